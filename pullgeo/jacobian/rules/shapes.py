"""Layers that only give the same elements another shape, or none at all."""

import math

from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.signature import Signature


def reshaped(x: Tensor, y: Tensor) -> tuple[Tensor, Jacobian]:
    """``y``, the elements of ``x`` in another shape, with its Jacobian."""
    return y, Reshape(Signature.between(x, y))


@rule(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
def identity(module: nn.Module, x: Tensor) -> tuple[Tensor, Jacobian]:
    """The identity; dropout is one in eval mode, and in train mode it was refused before."""
    return reshaped(x, x)


@rule(nn.Flatten)
def flatten(module: nn.Flatten, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Dimensions ``start_dim`` to ``end_dim`` of the batch in one."""
    y = x.flatten(module.start_dim, module.end_dim)
    if len(y) != len(x) or (module.start_dim % x.ndim == 0 and module.end_dim % x.ndim > 0):
        raise ModuleError(
            f"Jacobian: {module} flattens the batch dimension of {tuple(x.shape)} into {tuple(y.shape)}, so there is "
            "no Jacobian per sample. Use start_dim=1."
        )
    return reshaped(x, y)


@rule(nn.Unflatten)
def unflatten(module: nn.Unflatten, x: Tensor) -> tuple[Tensor, Jacobian]:
    """One dimension laid out as several."""
    y = module(x)
    if len(y) != len(x) or math.prod(y.shape[1:]) * len(x) != x.numel():
        raise ModuleError(
            f"Jacobian: {module} unflattens the batch dimension of {tuple(x.shape)} into {tuple(y.shape)}, so there "
            "is no Jacobian per sample. Use a dim of 1 or more."
        )
    return reshaped(x, y)
