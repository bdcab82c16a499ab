"""Pooling by maxima: each output is a copy of the largest input of its window."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.errors import ModuleError
from pullgeo.jacobian.kinds.index_map import IndexMap
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_batch
from pullgeo.jacobian.signature import Signature

Linearized = tuple[Tensor, IndexMap]


@rule(nn.MaxPool1d)
def max_pool1d(module: nn.MaxPool1d, x: Tensor) -> Linearized:
    """Windows of a given size along the last axis; they may overlap."""
    m = _settings(module, x, 1)
    return _chosen(x, 1, F.max_pool1d(x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, True))


@rule(nn.MaxPool2d)
def max_pool2d(module: nn.MaxPool2d, x: Tensor) -> Linearized:
    """Windows of a given size over the last two axes; they may overlap."""
    m = _settings(module, x, 2)
    return _chosen(x, 2, F.max_pool2d(x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, True))


@rule(nn.MaxPool3d)
def max_pool3d(module: nn.MaxPool3d, x: Tensor) -> Linearized:
    """Windows of a given size over the last three axes; they may overlap."""
    m = _settings(module, x, 3)
    return _chosen(x, 3, F.max_pool3d(x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, True))


@rule(nn.AdaptiveMaxPool1d)
def adaptive_max_pool1d(module: nn.AdaptiveMaxPool1d, x: Tensor) -> Linearized:
    """As many windows as asked for along the last axis."""
    m = _settings(module, x, 1)
    return _chosen(x, 1, F.adaptive_max_pool1d(x, m.output_size, True))


@rule(nn.AdaptiveMaxPool2d)
def adaptive_max_pool2d(module: nn.AdaptiveMaxPool2d, x: Tensor) -> Linearized:
    """As many windows as asked for over the last two axes."""
    m = _settings(module, x, 2)
    return _chosen(x, 2, F.adaptive_max_pool2d(x, m.output_size, True))


@rule(nn.AdaptiveMaxPool3d)
def adaptive_max_pool3d(module: nn.AdaptiveMaxPool3d, x: Tensor) -> Linearized:
    """As many windows as asked for over the last three axes."""
    m = _settings(module, x, 3)
    return _chosen(x, 3, F.adaptive_max_pool3d(x, m.output_size, True))


@rule(nn.FractionalMaxPool2d)
def fractional_max_pool2d(module: nn.FractionalMaxPool2d, x: Tensor) -> Linearized:
    """Windows over the last two axes that given random samples place; without these it was refused before."""
    m = _settings(module, x, 2)
    samples = m._random_samples
    return _chosen(x, 2, F.fractional_max_pool2d(x, m.kernel_size, m.output_size, m.output_ratio, True, samples))


@rule(nn.FractionalMaxPool3d)
def fractional_max_pool3d(module: nn.FractionalMaxPool3d, x: Tensor) -> Linearized:
    """Windows over the last three axes that given random samples place; without these it was refused before."""
    m = _settings(module, x, 3)
    samples = m._random_samples
    return _chosen(x, 3, F.fractional_max_pool3d(x, m.kernel_size, m.output_size, m.output_ratio, True, samples))


def _settings(module: nn.Module, x: Tensor, axes: int) -> Any:
    """The module itself, whose settings torch types more loosely than the functions that take them."""
    require_batch(module, x, axes)
    if module.return_indices:
        raise ModuleError(
            f"Jacobian: {module} returns indices beside its values (return_indices=True), expected one tensor. Set "
            "return_indices=False, or wrap it in a module that returns the values alone."
        )
    return module


def _chosen(x: Tensor, axes: int, pooled: tuple[Tensor, Tensor]) -> Linearized:
    """The maxima over the last axes, with the map that copies them from where torch found them."""
    y, index = pooled
    rows = x.shape[1:-axes].numel()
    return y, IndexMap(index.reshape(len(x), rows, y.shape[-axes:].numel()), Signature.between(x, y))
