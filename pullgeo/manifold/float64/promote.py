"""Functions over float32 weights, evaluated in double precision."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pullgeo._torch.guard import GET_GRAD, Guard

_LOWER = (torch.float32, torch.float16, torch.bfloat16)


# What changes the precision of one tensor, or its device.
_CASTS = (Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.cpu, Tensor.cuda)


@dataclass(eq=False)
class Promoted:
    """A function that works in float64 whatever the precision of the tensors that it holds and makes.

    Where the function by itself refuses float64, or returns less, every operation of torch in it is given float64: its
    weights count as they are, rounded nowhere, ``z.float()`` leaves float64 as it is, and gradients reach the weights.

    Args:
        function: what to call.

    Raises:
        ModuleError: the function changes the weights of a network.

    Example:
        >>> layer = torch.nn.Linear(2, 3)
        >>> Promoted(lambda z: layer(z.float()).exp())(torch.zeros(5, 2, dtype=torch.float64)).dtype
        torch.float64
    """

    function: Callable[..., Any]
    promotes: bool = field(default=False, init=False)
    """Whether a call has shown that the function needs it; the next ones begin with it."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The function's value."""
        with Guard():
            if not self.promotes:
                # most operations do not mix precisions; if this is about something else, it comes again
                with suppress(RuntimeError):
                    value = self.function(*args, **named)
                    if not _is_lower(value):
                        return value
            with _Promoting():
                value = _double(self.function(*args, **_double(named)))
            self.promotes = True
            return value

    @property
    def __name__(self) -> str:
        """The function's."""
        return getattr(self.function, "__name__", type(self.function).__name__)


class _Promoting(TorchFunctionMode):
    """Gives float64 to all operations, and takes it from them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _CASTS:
            return _cast(func, args, kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__set__":  # the guard has a say in that
            return func(*args)
        if name == "__get__":
            return func(*args) if func == GET_GRAD else _double(func(*args))
        # what is written into must stay the tensor that it is
        written = int(name == "__setitem__" or (name.endswith("_") and not name.endswith("__")))
        return _double(func(*args[:written], *_double(args[written:]), **_double(kwargs or {})))


def _cast(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Tensors in float64 keep it; others are left to the operation that takes them, and weights stay themselves."""
    given = args[0]
    if given.dtype != torch.float64:
        return func(*args, **kwargs)
    if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
        return given
    value = func(given, *_double(args[1:]), **_double(kwargs))
    return given if _is_lower(value) else value


def _is_lower(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dtype in _LOWER
    if type(value) is dict:
        value = tuple(value.values())
    return type(value) in (tuple, list) and any(map(_is_lower, value))


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _LOWER else value
    if type(value) in (tuple, list):
        return type(value)(map(_double, value))
    if type(value) is dict:
        return {key: _double(entry) for key, entry in value.items()}
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOWER else value
