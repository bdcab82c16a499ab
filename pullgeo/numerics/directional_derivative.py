"""Derivatives along a direction, of functions that contain derivatives themselves."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_grad_mode, check_transforms, leaves


def directional(
    function: Callable[[Tensor], Tensor], z: Float[Tensor, "n *x"], u: Float[Tensor, "n *x"]
) -> tuple[Float[Tensor, "n *y"], Float[Tensor, "n *y"]]:
    """``f(z)`` and ``f'(z) u``, the derivative as the transpose of the transpose.

    Reverse mode alone, because connections use it already, and the layers of every decoder have it twice.
    Differentiable again, under the caller's grad mode, with respect to what requires gradients.

    Raises:
        GradModeError: ``torch.inference_mode()`` is on, or a transform of ``torch.func`` that forbids it.

    Cost: ``function`` and two backward passes.
    """
    check_grad_mode("a derivative of the connection")
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        z = variable("a derivative of the connection", z)
        value = function(z)
        if not value.requires_grad:
            return value, torch.zeros_like(value)
        again = again and (u.requires_grad or depends_on_others(value, z))
        w = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, z, w, create_graph=True, allow_unused=True)
        if pulled is None or not pulled.requires_grad:
            slope = torch.zeros_like(value)
        else:
            (slope,) = torch.autograd.grad(pulled, w, u, create_graph=again)
    return (value, slope) if again else (value.detach(), slope.detach())


def variable(where: str, z: Tensor) -> Tensor:
    """A copy of a tensor to differentiate by: one that belongs to the caller's graph, if the tensor does.

    Raises:
        GradModeError: it does not, and a transform of ``torch.func`` allows no others.
    """
    if z.requires_grad:
        return z.clone()
    check_transforms(where)
    return z.detach().clone().requires_grad_()


def depends_on_others(value: Tensor, z: Tensor) -> bool:
    """Whether a value has derivatives that the caller may ask for: with respect to more than a `variable` of our own.

    What has none must not require gradients: the caller would keep its graph, and could not turn it into an array.
    """
    return not z.is_leaf or any(leaf is not z for leaf in leaves(value))
