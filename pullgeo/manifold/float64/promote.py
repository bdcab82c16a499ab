"""Functions over float32 weights, evaluated in double precision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LOWER = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class Promoted:
    """A function that takes float64 whatever the precision of the tensors that it holds.

    Where the function by itself refuses, every operation of torch in it is given float64, so its weights count as they
    are, rounded nowhere, and gradients reach them.

    Args:
        function: what to call.

    Example:
        >>> layer = torch.nn.Linear(2, 3)
        >>> Promoted(lambda z: layer(z).exp())(torch.zeros(5, 2, dtype=torch.float64)).dtype
        torch.float64
    """

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """The function's value."""
        try:
            return _double(self.function(*args))  # it may return a constant
        except RuntimeError:  # most operations do not mix precisions; if this is about something else, it comes again
            with _Promoting():
                return _double(self.function(*args))

    @property
    def __name__(self) -> str:
        """The function's."""
        return getattr(self.function, "__name__", "the function")


class _Promoting(TorchFunctionMode):
    """Gives float64 to all operations, and takes it from them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        # what is written into must stay the tensor that it is
        written = int(name == "__setitem__" or (name.endswith("_") and not name.endswith("__")))
        return _double(func(*args[:written], *_double(args[written:]), **_double(kwargs or {})))


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _LOWER else value
    if type(value) in (tuple, list):
        return type(value)(map(_double, value))
    if type(value) is dict:
        return {key: _double(entry) for key, entry in value.items()}
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOWER else value
