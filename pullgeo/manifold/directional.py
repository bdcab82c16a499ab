"""Derivatives along a direction, of functions that are themselves made of derivatives."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic import check_grad_mode


def directional(
    function: Callable[[Tensor], Tensor], z: Float[Tensor, "n *x"], u: Float[Tensor, "n *x"]
) -> tuple[Float[Tensor, "n *y"], Float[Tensor, "n *y"]]:
    """``f(z)`` and ``f'(z) u``, the derivative as the transpose of the transpose.

    Reverse mode alone, because connections are made of it already, and the layers of every decoder have it twice.
    Differentiable again, under the caller's grad mode.

    Raises:
        GradModeError: ``torch.inference_mode()`` is on.

    Cost: ``function`` and two backward passes.
    """
    check_grad_mode("a derivative of the connection")
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        z = z.clone() if z.requires_grad else z.detach().clone().requires_grad_()
        value = function(z)
        if not value.requires_grad:
            return value, torch.zeros_like(value)
        w = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, z, w, create_graph=True, allow_unused=True)
        if pulled is None or not pulled.requires_grad:
            slope = torch.zeros_like(value)
        else:
            (slope,) = torch.autograd.grad(pulled, w, u, create_graph=again)
    return (value, slope) if again else (value.detach(), slope.detach())
