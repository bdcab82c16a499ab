"""A module's double, whose calls are recorded while the module itself stays as it is."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.jit import ScriptModule

Call = Callable[[nn.Module, nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""``(module, its double, args, kwargs)``: what a call of the double does."""

# The module's own hooks run when the recorder calls the module itself.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def double(
    module: nn.Module, call: Call, parameters: dict[int, Tensor], made: dict[int, nn.Module] | None = None
) -> nn.Module:
    """A module of the same class with the same attributes, whose submodules are doubles and whose call is ``call``.

    What ``forward`` writes on ``self`` stays on the double. Parameters are replaced by what is given for their ids. A
    module that occurs twice has one double.

    Args:
        module: any module.
        call: what runs in place of ``forward``.
        parameters: replacements for parameters, by id.
        made: doubles that exist already, by the id of the module.
    """
    made = {} if made is None else made
    module = uncompiled(module)
    if id(module) in made or isinstance(module, ScriptModule):
        return made.get(id(module), module)
    twin: nn.Module = object.__new__(type(module))
    made[id(module)] = twin
    attributes = vars(twin)
    attributes.update(vars(module))
    attributes["forward"] = lambda *args, **kwargs: call(module, twin, args, kwargs)
    attributes.update((name, OrderedDict()) for name in _HOOKS if attributes[name])
    attributes["_buffers"] = module._buffers.copy()
    attributes["_parameters"] = {name: parameters.get(id(p), p) for name, p in module._parameters.items()}
    attributes["_modules"] = {
        name: None if child is None else double(child, call, parameters, made)
        for name, child in module._modules.items()
    }
    return twin


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given, if this one comes from there."""
    original = module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None
    return module if original is None else original


def runs_more_than_forward(module: nn.Module) -> bool:
    """Whether something else than the ``forward`` of its class runs when the module is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
