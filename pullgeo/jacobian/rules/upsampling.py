"""Upsample, in every mode."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import Move, stacked
from pullgeo.jacobian.kinds.separable import Separable, matrix_of
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_dims
from pullgeo.jacobian.signature import Signature

_IN_TWO_DIMENSIONS = {"linear": "bilinear", "trilinear": "bilinear"}
"""Names of a mode for images. Modes act along axes one by one, in the same way for any number of axes."""


@rule(nn.Upsample)
def upsample(module: nn.Upsample, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Resampled at another size, along each axis by itself; the two classes for images are subclasses."""
    require_dims(module, x, max(x.ndim, 3))
    y = module.forward(x)

    def factors() -> list[Tensor]:
        return [matrix_of(_along(module, axis), n, x) for axis, n in enumerate(x.shape[2:])]

    return y, Separable(Signature.between(x, y), stacked(module.forward), factors)


def _along(module: nn.Upsample, axis: int) -> Move:
    """The same resampling along one axis of an image, with the other axis left at length one."""
    size: Any = None if module.size is None else (_entry(module.size, axis), 1)
    scale: Any = None if module.scale_factor is None else (_entry(module.scale_factor, axis), 1.0)
    mode = _IN_TWO_DIMENSIONS.get(module.mode, module.mode)
    recompute = module.recompute_scale_factor
    return lambda x: F.interpolate(x, size, scale, mode, module.align_corners, recompute_scale_factor=recompute)


def _entry(setting: Any, axis: int) -> Any:
    return setting[axis] if isinstance(setting, tuple | list) else setting
