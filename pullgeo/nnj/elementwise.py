"""Elementwise maps beyond those of torch.nn, with their derivatives."""

import torch
from torch import Tensor, nn

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.registry import rule
from pullgeo.nnj.classes import with_products

Linearized = tuple[Tensor, Jacobian]


@with_products
class Sinusoidal(nn.Module):
    """``sin x``.

    Example:
        >>> Sinusoidal().jacobian(torch.zeros(1, 1))
        tensor([[[1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``sin x``."""
        return torch.sin(x)


@rule(Sinusoidal)
def sinusoidal(module: Sinusoidal, x: Tensor) -> Linearized:
    """``cos x`` and ``-sin x``."""
    y = torch.sin(x)
    return y, Elementwise(torch.cos(x), lambda: -y)


@with_products
class TruncExp(nn.Module):
    """``exp x``, whose derivative is taken to be ``exp(clamp(x, -15, 15))`` so that it neither explodes nor vanishes.

    The forward value is not clamped. torch's own backward gives the same derivative.

    Example:
        >>> TruncExp().jacobian(torch.full((1, 1), 20.0)).log()
        tensor([[[15.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``exp x``."""
        limited = _limited_exp(x)
        return torch.exp(x).detach() + (limited - limited.detach())


@rule(TruncExp)
def trunc_exp(module: TruncExp, x: Tensor) -> Linearized:
    """``exp(clamp(x, -15, 15))``, whose derivative vanishes outside."""
    clamped = x.clamp(-15, 15)
    derivative = torch.exp(clamped)
    return torch.exp(x), Elementwise(derivative, lambda: torch.where(clamped == x, derivative, 0.0))


def _limited_exp(x: Tensor) -> Tensor:
    """``exp`` on [-15, 15], continued by its tangents: the function that has the clamped derivative."""
    clamped = x.clamp(-15, 15)
    return torch.exp(clamped) * (1 + (x - clamped))


@with_products
class ArcTanh(nn.Module):
    """``artanh x`` for |x| < 1.

    Example:
        >>> ArcTanh().jacobian(torch.zeros(1, 1))
        tensor([[[1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``artanh x``."""
        return torch.atanh(x)


@rule(ArcTanh)
def arctanh(module: ArcTanh, x: Tensor) -> Linearized:
    """``1 / (1 - x²)``."""
    derivative = 1 / (1 - x.square())
    return torch.atanh(x), Elementwise(derivative, lambda: 2 * x * derivative.square())


@with_products
class Reciprocal(nn.Module):
    """``1 / (x + b)``.

    Args:
        b: a constant that keeps the denominator from zero.

    Example:
        >>> Reciprocal(b=1.0).jacobian(torch.ones(1, 1))
        tensor([[[-0.2500]]])
    """

    def __init__(self, b: float = 0.0) -> None:
        super().__init__()
        self.b = b

    def forward(self, x: Tensor) -> Tensor:
        """``1 / (x + b)``."""
        return 1 / (x + self.b)

    def extra_repr(self) -> str:
        """The constant."""
        return f"b={self.b}"


@rule(Reciprocal)
def reciprocal(module: Reciprocal, x: Tensor) -> Linearized:
    """``-1 / (x + b)²``."""
    y = 1 / (x + module.b)
    return y, Elementwise(-y.square(), lambda: 2 * y**3)


@with_products
class OneMinusX(nn.Module):
    """``1 - x``.

    Example:
        >>> OneMinusX().jacobian(torch.zeros(1, 1))
        tensor([[[-1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``1 - x``."""
        return 1 - x


@rule(OneMinusX)
def one_minus_x(module: OneMinusX, x: Tensor) -> Linearized:
    """``-1``."""
    return 1 - x, Elementwise(-torch.ones_like(x))


@with_products
class Sqrt(nn.Module):
    """``√x`` for x > 0.

    Example:
        >>> Sqrt().jacobian(torch.ones(1, 1))
        tensor([[[0.5000]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``√x``."""
        return torch.sqrt(x)


@rule(Sqrt)
def sqrt(module: Sqrt, x: Tensor) -> Linearized:
    """``1 / (2√x)``."""
    y = torch.sqrt(x)
    derivative = 1 / (2 * y)
    return y, Elementwise(derivative, lambda: -derivative / (2 * x))
