"""Functions whose backward somebody wrote in Python, by ``torch.autograd.Function``, and what that backward forgets."""

from types import CodeType
from typing import Any

import torch
from torch._functorch import autograd_function
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

CALL: Any = getattr(autograd_function, "custom_function_call", None)
"""What transforms call in place of ``apply``, with the class as the first argument."""

_LEAVING = frozenset(("detach", "detach_", "numpy", "data", "item", "tolist", "no_grad", "inference_mode", "cpu"))
"""What a backward calls where it leaves autograd."""

_ONCE: CodeType = once_differentiable(lambda ctx: None).__code__


class ForgetsError(RuntimeError):
    """Transforms would take what a backward computes for constant."""


def check_remembered(function: type[torch.autograd.Function]) -> None:
    """Raise inside a transform for a function whose backward may be one that cannot be differentiated.

    Plain reverse mode refuses to differentiate what was marked ``once_differentiable``. Transforms take it for
    constant, and with it the transpose of the transpose, by which they move tangents: these come out as zero.

    Raises:
        ForgetsError: the backward is marked, or names one of the ways that lead out of autograd.
    """
    code = getattr(function.backward, "__code__", None)
    if code is not None and (code is _ONCE or _LEAVING.intersection(code.co_names)):
        raise ForgetsError(f"the backward of {function.__name__} may be constant for transforms")


class Remembering(TorchFunctionMode):
    """Within this context transforms refuse functions whose backward they would take for constant.

    Raises:
        ForgetsError: they meet one.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function, unless it has such a backward."""
        if func is CALL:
            check_remembered(args[0])
        return func(*args, **(kwargs or {}))
