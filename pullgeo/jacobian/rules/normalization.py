"""Normalisation layers, with respect to input and affine parameters."""

import math

import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.kinds.local_response import LocalResponse
from pullgeo.jacobian.kinds.normalization import RowNormalization
from pullgeo.jacobian.registry import rule, weight_rule
from pullgeo.jacobian.rules.layout import require_batch, require_dims
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.broadcast import BroadcastWeight

Linearized = tuple[Tensor, Jacobian]
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d
_DIMS = {nn.BatchNorm2d: 4, nn.BatchNorm3d: 5, nn.InstanceNorm1d: 3, nn.InstanceNorm2d: 4, nn.InstanceNorm3d: 5}
"""Dimensions of a batch, where the class leaves no choice."""


@rule(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, x: Tensor) -> Linearized:
    """Each sample's last dimensions brought to mean zero and variance one, then ``γ · + β``."""
    J = _of_rows(module, x, module.eps, True)
    return _value(J, x, module.bias), J


@rule(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm, x: Tensor) -> Linearized:
    """Each sample's last dimensions divided by their root mean square, then ``γ ·``."""
    J = _of_rows(module, x, torch.finfo(x.dtype).eps if module.eps is None else module.eps, False)
    return _value(J, x, None), J


@rule(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, x: Tensor) -> Linearized:
    """Each group of channels brought to mean zero and variance one, then ``γ · + β`` by channel."""
    require_batch(module, x, 1)
    J = _of_channels(x, module.num_groups, module.eps, module.weight)
    return _value(J, x, None if module.bias is None else _by_channel(module.bias, x)), J


@rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(module: InstanceNorm, x: Tensor) -> Linearized:
    """Each channel brought to mean zero and variance one, or by running statistics, then ``γ · + β`` by channel."""
    _require_channels(module, x)
    if not _by_own_statistics(module):
        return _by_running_statistics(module, x)
    J = _of_channels(x, x.shape[1], module.eps, module.weight)
    return _value(J, x, None if module.bias is None else _by_channel(module.bias, x)), J


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
def batch_norm(module: BatchNorm, x: Tensor) -> Linearized:
    """``γ (x - mean)/√(variance + ε) + β`` by channel, with running statistics; in train mode it was refused before."""
    _require_channels(module, x)
    return _by_running_statistics(module, x)


@rule(nn.LocalResponseNorm)
def local_response_norm(module: nn.LocalResponseNorm, x: Tensor) -> Linearized:
    """``x (k + α/n Σ x²)^-β`` with the sum over n neighbouring channels (Krizhevsky et al., 2012, sect. 3.3)."""
    require_batch(module, x, 2)
    behind = _behind(x)
    window = (-(module.size // 2) <= behind) & (behind <= (module.size - 1) // 2)
    J = LocalResponse(x, window.to(x.dtype), module.alpha / module.size, module.beta, module.k)
    return J.value, J


@rule(nn.CrossMapLRN2d)
def cross_map_lrn(module: nn.CrossMapLRN2d, x: Tensor) -> Linearized:
    """As `torch.nn.LocalResponseNorm`, with a window that reaches equally far to both sides.

    In torch's forward channel 0 never leaves the window once it is in it, and torch's backward does not know this. The
    derivative here is the one of what forward computes.
    """
    require_dims(module, x, 4)
    behind, reach = _behind(x), (module.size - 1) // 2
    window = behind.abs() <= reach
    window[reach:, 0] = True
    J = LocalResponse(x, window.to(x.dtype), module.alpha / module.size, module.beta, module.k)
    return J.value, J


def _behind(x: Tensor) -> Tensor:
    """How far channel i (column) stands behind channel o (row)."""
    channels = torch.arange(x.shape[1], device=x.device)
    return channels - channels.unsqueeze(1)


@weight_rule(nn.LayerNorm)
def layer_norm_weight(module: nn.LayerNorm, x: Tensor) -> Jacobian:
    """``δy = x̂ δγ + δβ``."""
    normal = _of_rows(module, x, module.eps, True).normal.reshape(x.shape)
    return _affine_weight(normal, _trailing(module, x), module.bias)


@weight_rule(nn.RMSNorm)
def rms_norm_weight(module: nn.RMSNorm, x: Tensor) -> Jacobian:
    """``δy = x̂ δγ``."""
    J = _of_rows(module, x, torch.finfo(x.dtype).eps if module.eps is None else module.eps, False)
    return _affine_weight(J.normal.reshape(x.shape), _trailing(module, x), None)


@weight_rule(nn.GroupNorm)
def group_norm_weight(module: nn.GroupNorm, x: Tensor) -> Jacobian:
    """``δy = x̂ δγ + δβ`` by channel."""
    require_batch(module, x, 1)
    normal = _of_channels(x, module.num_groups, module.eps, None).normal.reshape(x.shape)
    return _affine_weight(normal, _channels(x), module.bias)


@weight_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm_weight(module: InstanceNorm, x: Tensor) -> Jacobian:
    """``δy = x̂ δγ + δβ`` by channel."""
    _require_channels(module, x)
    if not _by_own_statistics(module):
        return batch_norm_weight(module, x)
    normal = _of_channels(x, x.shape[1], module.eps, None).normal.reshape(x.shape)
    return _affine_weight(normal, _channels(x), module.bias)


@weight_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
def batch_norm_weight(module: BatchNorm | InstanceNorm, x: Tensor) -> Jacobian:
    """``δy = (x - mean)/√(variance + ε) δγ + δβ`` by channel."""
    _require_channels(module, x)
    mean, inverse = _running(module, x)
    return _affine_weight((x - mean) * inverse, _channels(x), module.bias)


def _of_rows(module: nn.LayerNorm | nn.RMSNorm, x: Tensor, eps: float, centred: bool) -> RowNormalization:
    """The last dimensions of a sample as rows.

    Raises:
        CoupledSamplesError: the batch is among them.
    """
    dims = len(module.normalized_shape)
    if x.ndim <= dims:
        raise CoupledSamplesError(
            f"Jacobian: {module} normalises over all of {tuple(x.shape)}, the batch included, so samples are coupled "
            "and there is no Jacobian per sample. Leave the batch out of normalized_shape."
        )
    rows = math.prod(x.shape[1:-dims])
    scale = None if module.weight is None else module.weight.reshape(1, -1)
    return _normalized(x.reshape(len(x), rows, math.prod(module.normalized_shape)), x, eps, scale, centred)


def _of_channels(x: Tensor, groups: int, eps: float, weight: Tensor | None) -> RowNormalization:
    """Groups of channels as rows."""
    each = x.shape[1] // groups
    size = math.prod(x.shape[2:])
    scale = None if weight is None else weight.reshape(groups, each, 1).expand(-1, -1, size).reshape(groups, -1)
    return _normalized(x.reshape(len(x), groups, each * size), x, eps, scale, True)


def _normalized(rows: Tensor, x: Tensor, eps: float, scale: Tensor | None, centred: bool) -> RowNormalization:
    if centred:
        rows = rows - rows.mean(-1, keepdim=True)
    inverse = (rows.square().mean(-1, keepdim=True) + eps).rsqrt()
    return RowNormalization(rows * inverse, inverse, scale, centred, Signature.between(x, x))


def _value(J: RowNormalization, x: Tensor, bias: Tensor | None) -> Tensor:
    y = (J.normal if J.scale is None else J.normal * J.scale).reshape(x.shape)
    return y if bias is None else y + bias


def _by_own_statistics(module: InstanceNorm) -> bool:
    return module.training or not module.track_running_stats


def _by_running_statistics(module: BatchNorm | InstanceNorm, x: Tensor) -> Linearized:
    mean, inverse = _running(module, x)
    slope = inverse if module.weight is None else inverse * _by_channel(module.weight, x)
    y = (x - mean) * slope
    return y if module.bias is None else y + _by_channel(module.bias, x), Elementwise(slope.expand_as(x))


def _running(module: BatchNorm | InstanceNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    if module.running_mean is None or module.running_var is None:
        raise CoupledSamplesError(
            f"Jacobian: {module} keeps no running statistics, so it normalises over the batch and samples are "
            "coupled. Use a layer with track_running_stats=True, or another norm."
        )
    return _by_channel(module.running_mean, x), _by_channel((module.running_var + module.eps).rsqrt(), x)


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _channels(x: Tensor) -> tuple[int, ...]:
    return (x.shape[1], *[1] * (x.ndim - 2))


def _trailing(module: nn.LayerNorm | nn.RMSNorm, x: Tensor) -> tuple[int, ...]:
    shape = tuple(module.normalized_shape)
    return (1,) * (x.ndim - 1 - len(shape)) + shape


def _affine_weight(normal: Tensor, shape: tuple[int, ...], bias: Tensor | None) -> BroadcastWeight:
    size = math.prod(shape) * (1 if bias is None else 2)
    signature = Signature(len(normal), (size,), tuple(normal.shape[1:]), normal.dtype, normal.device)
    return BroadcastWeight(normal, shape, signature, bias is not None)


def _require_channels(module: BatchNorm | InstanceNorm, x: Tensor) -> None:
    for cls, dims in _DIMS.items():
        if isinstance(module, cls):
            require_dims(module, x, dims)
    require_batch(module, x, 1)
