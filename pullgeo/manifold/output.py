"""The tensor in what a decoder returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pullgeo.errors import ModuleError, OptionError
from pullgeo.jacobian.returned import contents

Output = Callable[[Any], Tensor] | str | int
"""A function of what a decoder returns, or the key, position or attribute of the tensor in it."""


@dataclass(frozen=True)
class Pick:
    """The entry of a mapping or a sequence, or the attribute of an object.

    Args:
        key: a position in tuples and lists; a key of mappings, or the name of an attribute.

    Raises:
        ModuleError: what is given has no such tensor.

    Example:
        >>> import torch
        >>> Pick("mean")({"mean": torch.zeros(2)}), Pick(1)((None, torch.ones(2)))
        (tensor([0., 0.]), tensor([1., 1.]))
    """

    key: str | int

    def __call__(self, returned: Any) -> Tensor:
        """The tensor."""
        try:
            if isinstance(self.key, str) and not isinstance(returned, Mapping):
                value = getattr(returned, self.key)
            else:
                value = None if isinstance(returned, Tensor) else returned[self.key]
        except (LookupError, TypeError, AttributeError, NotImplementedError):
            value = None
        if not isinstance(value, Tensor):
            held = ", ".join(f"{key!r} of shape {tuple(part.shape)}" for key, _, part in contents(returned))
            got = f"which holds {held}" if held else "which holds none"
            if isinstance(returned, Tensor):
                got = f"of shape {tuple(returned.shape)}, which needs no output="
            raise ModuleError(
                f"PullbackManifold: output={self.key!r} names no tensor of what the decoder returns, a "
                f"{type(returned).__name__} {got}."
            )
        return value


def as_picker(output: Any) -> Callable[[Any], Tensor] | None:
    """The function that picks a tensor.

    Raises:
        OptionError: it is neither a function nor a key, position or name.
    """
    if isinstance(output, str | int) and not isinstance(output, bool):
        return Pick(output)
    if output is None or (callable(output) and not isinstance(output, type)):
        return output
    raise OptionError(
        "PullbackManifold: output must be a function of what the decoder returns, such as lambda out: out.mean, or the "
        f"key, position or attribute of the tensor in it, got {output!r}."
    )
