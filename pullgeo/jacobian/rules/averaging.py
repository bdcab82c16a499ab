"""Pooling by averages and by power means."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.chain import Chain
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.kinds.index_map import IndexMap
from pullgeo.jacobian.kinds.linear_map import Move, stacked
from pullgeo.jacobian.kinds.separable import Separable, matrix_of
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_batch
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True)
class Windows:
    """Where averages are taken, and what they are divided by."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None

    def averages(self, x: Tensor, operation: Move) -> tuple[Tensor, Separable]:
        """The averages over the last axes that the operation takes, with their Jacobian."""
        y = operation(x)
        sizes = x.shape[-len(self.kernel) :]

        def factors() -> list[Tensor]:
            return [matrix_of(self._along(axis), n, x) for axis, n in enumerate(sizes)]

        return y, Separable(Signature.between(x, y), stacked(operation), factors)

    def _along(self, axis: int) -> Move:
        """The averages along one axis. torch divides by a product of one number per axis, so that axes separate."""
        divisor = self.divisor if axis == 0 or self.divisor is None else 1
        window = ((self.kernel[axis], 1), (self.stride[axis], 1), (self.padding[axis], 0))
        return lambda x: F.avg_pool2d(x, *window, self.ceil_mode, self.count_include_pad, divisor)


@rule(nn.AvgPool1d)
def avg_pool1d(module: nn.AvgPool1d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Averages of windows along the last axis."""
    require_batch(module, x, 1)
    m = module
    return Windows(
        _each(m.kernel_size, 1), _each(m.stride, 1), _each(m.padding, 1), m.ceil_mode, m.count_include_pad
    ).averages(x, m.forward)


@rule(nn.AvgPool2d, nn.AvgPool3d)
def avg_pool(module: nn.AvgPool2d | nn.AvgPool3d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Averages of windows over the last two or three axes."""
    axes = 2 if isinstance(module, nn.AvgPool2d) else 3
    require_batch(module, x, axes)
    m = module
    window = (_each(m.kernel_size, axes), _each(m.stride, axes), _each(m.padding, axes))
    return Windows(*window, m.ceil_mode, m.count_include_pad, m.divisor_override).averages(x, m.forward)


@rule(nn.AdaptiveAvgPool1d)
def adaptive_avg_pool1d(module: nn.AdaptiveAvgPool1d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Averages of as many windows as asked for along the last axis."""
    return _adaptive(module, x, 1)


@rule(nn.AdaptiveAvgPool2d)
def adaptive_avg_pool2d(module: nn.AdaptiveAvgPool2d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Averages of as many windows as asked for over the last two axes."""
    return _adaptive(module, x, 2)


@rule(nn.AdaptiveAvgPool3d)
def adaptive_avg_pool3d(module: nn.AdaptiveAvgPool3d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Averages of as many windows as asked for over the last three axes."""
    return _adaptive(module, x, 3)


def _adaptive(module: nn.Module, x: Tensor, axes: int) -> tuple[Tensor, Jacobian]:
    require_batch(module, x, axes)
    y = module.forward(x)

    def factors() -> list[Tensor]:
        sizes = zip(x.shape[-axes:], y.shape[-axes:], strict=True)
        return [matrix_of(nn.AdaptiveAvgPool2d((m, 1)), n, x) for n, m in sizes]

    return y, Separable(Signature.between(x, y), stacked(module.forward), factors)


@rule(nn.LPPool1d)
def lp_pool1d(module: nn.LPPool1d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``(Σ x^p)^(1/p)`` of windows along the last axis."""
    return _power_mean(module, x, 1, F.avg_pool1d, F.max_pool1d)


@rule(nn.LPPool2d)
def lp_pool2d(module: nn.LPPool2d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``(Σ x^p)^(1/p)`` of windows over the last two axes."""
    return _power_mean(module, x, 2, F.avg_pool2d, F.max_pool2d)


@rule(nn.LPPool3d)
def lp_pool3d(module: nn.LPPool3d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``(Σ x^p)^(1/p)`` of windows over the last three axes."""
    return _power_mean(module, x, 3, F.avg_pool3d, F.max_pool3d)


def _power_mean(
    module: nn.LPPool1d | nn.LPPool2d | nn.LPPool3d,
    x: Tensor,
    axes: int,
    avg_pool: Callable[..., Tensor],
    max_pool: Callable[..., tuple[Tensor, Tensor]],
) -> tuple[Tensor, Jacobian]:
    require_batch(module, x, axes)
    p = float(module.norm_type)
    kernel = _each(module.kernel_size, axes)
    stride = kernel if module.stride is None else _each(module.stride, axes)
    if math.isinf(p):
        sign = math.copysign(1.0, p)
        extreme, index = max_pool(sign * x.abs(), kernel, stride, 0, 1, module.ceil_mode, True)
        rows, positions = x.shape[1:-axes].numel(), extreme.shape[-axes:].numel()
        chosen = IndexMap(index.reshape(len(x), rows, positions), Signature.between(x, extreme))
        return sign * extreme, Chain((Elementwise(x.detach().sign()), chosen))
    average, averages = Windows(kernel, stride, (0,) * axes, module.ceil_mode).averages(
        x.pow(p), lambda powers: avg_pool(powers, kernel, stride, 0, module.ceil_mode)
    )
    y, root = _root(average, math.prod(kernel), p)
    return y, Chain((_power(x, p), averages, root))


def _power(x: Tensor, p: float) -> Elementwise:
    return Elementwise(p * x.pow(p - 1), None if p == 1 else lambda: p * (p - 1) * x.pow(p - 2))


def _root(average: Tensor, size: int, p: float) -> tuple[Tensor, Elementwise]:
    """``(size average)^(1/p)``; where that is zero it has no derivative, and torch takes zero."""
    vanishes = average == 0
    total = torch.where(vanishes, 1.0, size * average)
    curvature = size**2 / p * (1 / p - 1)
    return torch.where(vanishes, 0.0, total.pow(1 / p)), Elementwise(
        torch.where(vanishes, 0.0, size / p * total.pow(1 / p - 1)),
        lambda: torch.where(vanishes, 0.0, curvature * total.pow(1 / p - 2)),
    )


def _each(setting: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return tuple(setting) if isinstance(setting, tuple | list) else (setting,) * axes
