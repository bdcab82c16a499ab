"""Running modules without leaving traces on them."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.jit import ScriptModule

_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


@contextmanager
def left_alone(function: Any) -> Iterator[None]:
    """Puts attributes and buffers of a module back as they were, and lets no hooks of its backward pass run.

    A ``forward`` may keep what it computed, as the hook of ``torch.nn.utils.weight_norm`` does. Inside a transform of
    torch that is a tensor of the transform, which cannot be used, copied or pickled afterwards.

    Args:
        function: a module, a bound method of one, or any other function, which nothing is known of.
    """
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    # what is compiled keeps its attributes out of reach, and sets none while it runs
    children = [m for m in owner.modules() if not isinstance(m, ScriptModule)] if isinstance(owner, nn.Module) else []
    held = [(attributes, attributes.copy()) for child in children for attributes in (vars(child), child._buffers)]
    for child in children:
        # they change gradients on their way, not what forward computes; torch runs them in a function without rules
        vars(child).update((name, OrderedDict()) for name in _BACKWARD_HOOKS if vars(child).get(name))
    try:
        yield
    finally:
        for attributes, before in held:
            if attributes.keys() != before.keys() or any(attributes[name] is not before[name] for name in before):
                attributes.clear()
                attributes.update(before)
