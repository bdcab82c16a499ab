"""What a function returned in place of a tensor, in words."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from pullgeo.errors import ModuleError

_SHOWN = 8
# What a distribution is asked for; the rest of its tensors are its parameters.
_MOMENTS = ("mean", "stddev", "loc", "probs", "logits")


def checked_tensor(name: str, value: Any) -> Tensor:
    """The value, which must be a tensor.

    Args:
        name: of the function that returned it.
        value: what it returned.

    Raises:
        ModuleError: it is something else; the message lists what is in it, and how to pick a tensor from that.

    Example:
        >>> import torch
        >>> checked_tensor("decoder", {"mean": torch.zeros(3, 5), "log_var": torch.zeros(3, 5)})
        Traceback (most recent call last):
        ...
        pullgeo.errors.ModuleError: Jacobian: decoder returned dict, expected a torch.Tensor. It holds ['mean'] of ...
    """
    if isinstance(value, Tensor):
        return value
    parts = contents(value)
    got = f"Jacobian: {name} returned {type(value).__name__}, expected a torch.Tensor. "
    if not parts:
        raise ModuleError(got + "Return the tensor whose derivative you want, computed by torch operations.")
    held = ", ".join(f"{access or key} {shape_of(part)}" for key, access, part in parts[:_SHOWN])
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    key, access, first = parts[0]
    pair = len(parts) == 2 and isinstance(first, Tensor) and isinstance(parts[1][2], Tensor)
    both = (
        "If the two are mean and log-variance, output='mean+logvar' measures both, and 'mean+std' likewise. "
        if pair and not isinstance(value, Distribution)
        else ""
    )
    raise ModuleError(
        f"{got}It holds {held}{more}. Pick one: PullbackManifold(decoder, output=lambda out: out{access}), or "
        f"output={key!r} for short; --decoder-output {key} on the command line; and for linearize a function that "
        f"returns it. {both}".strip()
    )


def shape_of(part: Tensor | Distribution) -> str:
    """What a part is, in words."""
    if isinstance(part, Tensor):
        return f"of shape {tuple(part.shape)}"
    return f"a {type(part).__name__} with batch_shape {tuple(part.batch_shape)}"


def contents(value: Any) -> list[tuple[str | int, str, Tensor | Distribution]]:
    """The tensors and distributions in what a function returned: each with its key, and how Python reaches it.

    Entries of mappings and sequences, fields of dataclasses and named tuples, and attributes of anything else.
    """
    if isinstance(value, Mapping):
        found: list[tuple[Any, str, Any]] = [(key, f"[{key!r}]", entry) for key, entry in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        found = [(name, f".{name}", getattr(value, name)) for name in value._fields]
    elif isinstance(value, tuple | list):
        found = [(i, f"[{i}]", entry) for i, entry in enumerate(value)]
    elif is_dataclass(value):
        found = [(f.name, f".{f.name}", getattr(value, f.name, None)) for f in fields(value)]
    else:
        names = dict.fromkeys([*_MOMENTS, *(n for n in getattr(value, "__dict__", {}) if not n.startswith("_"))])
        found = [(name, f".{name}", _attribute(value, name)) for name in names]
    return [(key, access, entry) for key, access, entry in found if isinstance(entry, Tensor | Distribution)]


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except (NotImplementedError, ValueError):  # a distribution without this moment
        return None
