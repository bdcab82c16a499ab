"""Where a map that we did not write meets torch's differentiation: what is served otherwise, and what is named.

Every value and every derivative of an unknown map passes here, so that it fails in one way whatever was asked for:

* what the map raises when it is called by itself is the caller's own error, and stays what it is;
* what torch raises only because the map is differentiated becomes a `ModuleError` with that error as its cause.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pullgeo._torch.plain_memory import named
from pullgeo.errors import ModuleError, PullgeoError
from pullgeo.jacobian.reverse import gradients_on, ordinary

FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a ``forward`` may raise when it meets tensors that it does not expect."""

_NUMPY = "It leaves torch: compute with torch operations, or put it into a torch.autograd.Function with a backward."
_FUNCTION = (
    "A torch.autograd.Function in it has no derivative that serves: give it forward, backward (of differentiable torch "
    "operations) and setup_context."
)
_IN_PLACE = "It changes a tensor in place that is differentiated, or a parameter or buffer: write y = x + 1 for x += 1."
_COMPILED = "Use the module or function that torch.compile was given."
_HINTS = (
    ("setup_context", _FUNCTION),
    ("numpy", _NUMPY),
    ("storage", _NUMPY),
    ("nested", "Nested tensors have few derivatives: pad them, torch.nested.to_padded_tensor(t, 0.0), and mask."),
    ("sparse", "Sparse tensors have few derivatives: use .to_dense(), or torch.sparse.mm(sparse, dense)."),
    ("torchscript", "Use the module that TorchScript compiled."),
    ("torch.compile", _COMPILED),
    ("user code", _COMPILED),
    ("guard failed", "It was exported for one size of batch: export it with a dynamic first dimension."),
    ("in-place", _IN_PLACE),
    ("inplace", _IN_PLACE),
    ("inference", "Its parameters or buffers were made under torch.inference_mode: make them outside."),
    ("expected device", "Let it compute on the device of its input."),
)
"""What the text of torch's error tells of the cause, and the way out."""


def name_of(function: Any) -> str:
    """What to call a map in messages."""
    if isinstance(function, nn.Module):
        return type(function).__name__
    return str(getattr(function, "__name__", "the function"))


def value_of(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """``function(x)``; where it needs gradients of its own and the caller has none, with gradients on, detached.

    Raises:
        ModuleError: it cannot be called with a batch alone, or leaves torch where gradients are on.
    """
    try:
        return function(x)
    except FAILURES as error:
        if isinstance(error, PullgeoError | torch.OutOfMemoryError):
            raise
        if isinstance(error, RuntimeError) and (torch.is_inference_mode_enabled() or not torch.is_grad_enabled()):
            again = _with_gradients(function, x)
            if again is not None:
                return again
        reason = _call_refused(function, error)
        if reason is not None:
            raise ModuleError(reason) from error
        raise


def served(
    function: Callable[[Tensor], Any],
    x: Tensor,
    transformed: Callable[[], Tensor],
    reverse: Callable[[], Tensor],
    plain: bool = False,
) -> Tensor:
    """A derivative by torch's transforms, or where they cannot run the map by plain reverse mode.

    Args:
        function: the map.
        x: the batch, or the weights, at which it is differentiated.
        transformed: the derivative by transforms.
        reverse: the same derivative by plain reverse mode, see `Reverse`.
        plain: leave the transforms out.

    Raises:
        ModuleError: torch can do neither; the cause is what torch raised.
    """
    cause: Exception | None = None
    if not plain:
        try:
            return transformed()
        except FAILURES as error:
            if isinstance(error, PullgeoError | torch.OutOfMemoryError):
                raise
            cause = error
    try:
        return reverse()
    except FAILURES as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        own = error
    if isinstance(cause, RuntimeError) and named(cause) is not cause:
        raise cause  # products try again with ordinary copies of what they were given
    if isinstance(own, PullgeoError):
        raise own from cause
    value_of(function, x)  # an error of the caller's own comes again
    raise undifferentiable(function, own if cause is None else cause) from (own if cause is None else cause)


def undifferentiable(function: Any, error: Exception) -> ModuleError:
    """The error that says that torch cannot differentiate a map, and why."""
    first = next(iter(str(error).strip().splitlines()), "")
    told = str(error).lower()
    hint = next((hint for sign, hint in _HINTS if sign in told), "Write it as torch operations that differentiate.")
    return ModuleError(
        f"Jacobian: torch cannot differentiate what {name_of(function)} computes: {type(error).__name__}: "
        f"{first[:300]} {hint}"
    )


def _with_gradients(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """The value with gradients on, detached; None if the function fails in the same way."""
    try:
        with gradients_on():
            y = function(ordinary(x))
    except FAILURES:
        return None
    return y.detach() if isinstance(y, Tensor) else y


def _call_refused(function: Any, error: Exception) -> str | None:
    """Why a map cannot be called with a batch and nothing else, if that is what went wrong."""
    name = name_of(function)
    if "numpy() on Tensor that requires grad" in str(error):
        return f"Jacobian: {name} calls numpy() on a tensor that is differentiated. {_NUMPY}"
    if "leaf Variable that requires grad" in str(error):
        return (
            f"Jacobian: {name} changes a parameter in place while it is differentiated. Change parameters outside of "
            "forward, or compute with a changed copy: w = self.weight.clamp(-1, 1)."
        )
    inner = getattr(function, "__wrapped__", function)
    if isinstance(inner, nn.Module) and isinstance(error, NotImplementedError) and "forward" in str(error):
        return f"Jacobian: {name} has no forward, so there is nothing to differentiate. Use a module in it."
    if not isinstance(error, TypeError):
        return None
    if isinstance(inner, nn.Module) and "forward" not in vars(inner):  # behind wrappers that take anything
        inner = types.MethodType(inspect.unwrap(type(inner).forward), inner)
    try:
        signature = inspect.signature(inner.forward if isinstance(inner, nn.Module) else inner)
    except (TypeError, ValueError):  # it has none that Python knows
        return None
    try:
        signature.bind(None)
    except TypeError as refusal:
        return (
            f"Jacobian: {name} is called with the batch alone, and that it does not take: {refusal}. Its signature is "
            f"{signature}. Fix the other arguments, by functools.partial({name}, ...) for wrt='input', or by a module "
            "that holds them and calls it."
        )
    return None
