"""Functions that torch silently treats as constant when it differentiates, although they are not constant."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from pullgeo._torch.torch_names import Function
from pullgeo.errors import ModuleError

_NAMES = (
    "airy_ai",
    "bessel_j0 bessel_j1 bessel_y0 bessel_y1 spherical_bessel_j0",
    "modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1",
    "scaled_modified_bessel_k0 scaled_modified_bessel_k1",
    *(f"{kind}chebyshev_polynomial_{letter}" for kind in ("", "shifted_") for letter in "tuvw"),
    "hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p",
)
_HINTS = {
    "modified_bessel_i0": "use torch.special.i0, the same function",
    "modified_bessel_i1": "use torch.special.i1, the same function",
}
_INSTEAD = "give it one by a torch.autograd.Function, or write a polynomial out"

WITHOUT_DERIVATIVE: frozenset[Function] = frozenset(
    getattr(torch.special, name) for name in " ".join(_NAMES).split() if hasattr(torch.special, name)
)
"""Their results are not connected to what they were computed of; those of `torch.floor` are, with the right zero."""


def check_has_derivative(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise where a function without a derivative meets what is being differentiated.

    Raises:
        ModuleError: it does.
    """
    if function not in WITHOUT_DERIVATIVE:
        return
    # what a module computes while gradients are off is constant on purpose; forward mode goes on without them
    if not torch.is_grad_enabled() and forward_ad._current_level < 0:
        return
    if any(isinstance(argument, Tensor) and _is_tracked(argument) for argument in (*args, *kwargs.values())):
        name = function.__name__.removeprefix("special_")
        raise ModuleError(
            f"torch.special.{name} is to be differentiated, expected a function with a derivative: torch has none of "
            f"it, and would take its value for constant. Instead, {_HINTS.get(name, _INSTEAD)}."
        )


class NoneConstant(TorchFunctionMode):
    """Within this context functions without a derivative are refused.

    Raises:
        ModuleError: see `check_has_derivative`.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function, if it has a derivative or needs none."""
        kwargs = kwargs or {}
        check_has_derivative(func, args, kwargs)
        return func(*args, **kwargs)


def _is_tracked(tensor: Tensor) -> bool:
    functorch: Any = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return tensor.requires_grad
