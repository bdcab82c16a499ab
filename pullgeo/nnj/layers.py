"""Layers beyond those of torch.nn: Reshape, L2Norm, PosLinear."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.chain import Chain
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.kinds.linear_map import LinearMap
from pullgeo.jacobian.kinds.linear_map import Reshape as ReshapeKind
from pullgeo.jacobian.registry import rule, weight_rule
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.linear import LinearWeight
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.nnj.classes import with_products


@with_products
class Reshape(nn.Module):
    """The elements of each sample in another shape.

    Args:
        dims: the shape of one sample; one entry may be -1.

    Example:
        >>> Reshape(2, 3)(torch.zeros(7, 6)).shape
        torch.Size([7, 2, 3])
    """

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """``(b, *in) -> (b, *dims)``."""
        return x.reshape(x.shape[0], *self.dims)

    def extra_repr(self) -> str:
        """The dimensions."""
        return ", ".join(map(str, self.dims))


@rule(Reshape)
def reshape(module: Reshape, x: Tensor) -> tuple[Tensor, Jacobian]:
    """The same elements in the same order."""
    y = x.reshape(len(x), *module.dims)
    return y, ReshapeKind(Signature.between(x, y))


@with_products
class L2Norm(nn.Module):
    """``x / (‖x‖ + eps)``, with the Euclidean norm of the whole sample.

    Args:
        eps: keeps the denominator from zero.

    Example:
        >>> L2Norm(eps=0.0)(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``x / (‖x‖ + eps)``."""
        norm = torch.linalg.vector_norm(x.flatten(1), dim=1)
        return x / (norm + self.eps).reshape(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """The constant."""
        return f"eps={self.eps}"


@with_products
class PosLinear(nn.Linear):
    """`torch.nn.Linear` with ``softplus(weight)`` and ``softplus(bias)``: increasing in every input.

    The parameters are those of `torch.nn.Linear`, before the softplus, and derivatives are with respect to them.

    Example:
        >>> bool((PosLinear(2, 3).jacobian(torch.zeros(7, 2)) > 0).all())
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        """``x softplus(A)ᵀ + softplus(c)``."""
        return F.linear(x, F.softplus(self.weight), None if self.bias is None else F.softplus(self.bias))


@rule(PosLinear)
def pos_linear(module: PosLinear, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Linear with the positive weight."""
    weight, y = F.softplus(module.weight), module.forward(x)
    return y, LinearMap(
        Signature.between(x, y),
        forward=lambda T: F.linear(T, weight),
        backward=lambda W: W @ weight,
        forward_squared=lambda v: F.linear(v, weight.square()),
        backward_squared=lambda w: w @ weight.square(),
    )


@weight_rule(PosLinear)
def pos_linear_weight(module: PosLinear, x: Tensor) -> Jacobian:
    """``δy = (σ(A) ∘ δA) x + σ(c) ∘ δc`` with σ the logistic function, the derivative of softplus."""
    theta = ParameterLayout.of(module).vector().expand(len(x), -1)
    slope = torch.sigmoid(theta)
    signature = Signature(len(x), (theta.shape[1],), (*x.shape[1:-1], module.out_features), x.dtype, x.device)
    rows = x.reshape(len(x), -1, module.in_features) if x.numel() else x.new_zeros(0, 1, module.in_features)
    linear = LinearWeight(rows, module.out_features, module.bias is not None, signature)
    return Chain((Elementwise(slope, lambda: slope * (1 - slope)), linear))
