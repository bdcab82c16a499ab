"""Unfold, which lays out the windows of an image as columns, and Fold, its adjoint."""

from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import Move, ones_map
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_dims


@rule(nn.Unfold)
def unfold(module: nn.Unfold, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Every output is a copy of one input, or zero in the padding."""
    require_dims(module, x, 4)
    windows, added = _windows(module, (x.shape[2], x.shape[3]))
    return ones_map(x, windows, added)


@rule(nn.Fold)
def fold(module: nn.Fold, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Windows put back where they stood, and added up where they overlap."""
    require_dims(module, x, 3)
    windows, added = _windows(module, module.output_size)
    return ones_map(x, added, windows)


def _windows(module: nn.Unfold | nn.Fold, size: int | tuple[int, ...]) -> tuple[Move, Move]:
    settings = (module.kernel_size, module.dilation, module.padding, module.stride)
    return lambda x: F.unfold(x, *settings), lambda y: F.fold(y, size, *settings)
