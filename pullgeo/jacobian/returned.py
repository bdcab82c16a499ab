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
    listed = [(access, part) for _, access, part in parts] + _inside(value)
    got = f"Jacobian: {name} returned {type(value).__name__}, expected a torch.Tensor. "
    if not listed:
        raise ModuleError(got + "Return the tensor whose derivative you want, computed by torch operations.")
    held = ", ".join(f"{access} {shape_of(part)}" for access, part in listed[:_SHOWN])
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    batches = [(access, part) for access, part in listed if isinstance(part, Distribution) or part.ndim > 0]
    if not parts or (batches and batches[0][0] not in [access for _, access, _ in parts]):
        access = (batches or listed)[0][0]
        raise ModuleError(
            f"{got}It holds {held}{more}. Pick one: PullbackManifold(decoder, output=lambda out: out{access}); for the "
            "command line and for linearize, a function that returns it."
        )
    key, access, first = next((part for part in parts if batches and part[1] == batches[0][0]), parts[0])
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
    return [(key, access, entry) for key, access, entry in _entries(value) if isinstance(entry, Tensor | Distribution)]


def _inside(value: Any, levels: int = 2) -> list[tuple[str, Tensor | Distribution]]:
    """The tensors and distributions in the mappings, sequences and records that something holds in turn."""
    found: list[tuple[str, Tensor | Distribution]] = []
    for _, access, entry in _entries(value):
        if isinstance(entry, Mapping | tuple | list) or (is_dataclass(entry) and not isinstance(entry, type)):
            found += [(access + inner, part) for _, inner, part in contents(entry)]
            if levels > 1:
                found += [(access + inner, part) for inner, part in _inside(entry, levels - 1)]
    return found


def _entries(value: Any) -> list[tuple[Any, str, Any]]:
    if isinstance(value, Mapping):
        found: list[tuple[Any, str, Any]] = [(key, f"[{key!r}]", entry) for key, entry in value.items()]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        found = [(name, f".{name}", getattr(value, name)) for name in value._fields]
    elif isinstance(value, tuple | list):
        found = [(i, f"[{i}]", entry) for i, entry in enumerate(value)]
    elif is_dataclass(value):
        found = [(f.name, f".{f.name}", getattr(value, f.name, None)) for f in fields(value)]
    else:
        own = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
        names = dict.fromkeys([*_MOMENTS, *(name for name in own if not name.startswith("_"))])
        found = [(name, f".{name}", _attribute(value, name)) for name in names]
    return found


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except (NotImplementedError, ValueError):  # a distribution without this moment
        return None
