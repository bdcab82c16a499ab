"""Softmax, its logarithm, softmin, and the gated linear unit."""

import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError, ShapeError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.glu import GatedLinear
from pullgeo.jacobian.kinds.softmax import LogSoftmax, Softmax
from pullgeo.jacobian.registry import rule
from pullgeo.jacobian.rules.layout import require_dims


@rule(nn.Softmax)
def softmax(module: nn.Softmax, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``exp x / Σ exp x`` along ``dim``."""
    dim = _from_end(module, x, module.dim)
    y = torch.softmax(x, dim)
    return y, Softmax(y, dim)


@rule(nn.Softmax2d)
def softmax2d(module: nn.Softmax2d, x: Tensor) -> tuple[Tensor, Jacobian]:
    """Softmax over the channels at every place of an image."""
    require_dims(module, x, 4)
    y = torch.softmax(x, -3)
    return y, Softmax(y, -3)


@rule(nn.Softmin)
def softmin(module: nn.Softmin, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``exp(-x) / Σ exp(-x)`` along ``dim``."""
    dim = _from_end(module, x, module.dim)
    y = torch.softmax(-x, dim)
    return y, Softmax(y, dim, sign=-1.0)


@rule(nn.LogSoftmax)
def log_softmax(module: nn.LogSoftmax, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``x - log Σ exp x`` along ``dim``."""
    dim = _from_end(module, x, module.dim)
    y = torch.log_softmax(x, dim)
    return y, LogSoftmax(torch.softmax(x, dim), dim)


@rule(nn.GLU)
def glu(module: nn.GLU, x: Tensor) -> tuple[Tensor, Jacobian]:
    """``a σ(g)`` of the halves ``a, g`` along ``dim``.

    Raises:
        ShapeError: the dimension cannot be halved.
    """
    dim = _from_end(module, x, module.dim)
    if x.shape[dim] % 2:
        raise ShapeError(
            f"Jacobian: {module} halves dimension {module.dim} of {tuple(x.shape)}, whose size is odd. Give it twice "
            "as many features as it should return."
        )
    a, g = x.chunk(2, dim)
    gate = torch.sigmoid(g)
    return a * gate, GatedLinear(a, gate, dim)


def _from_end(module: nn.Module, x: Tensor, dim: int | None) -> int:
    """The dimension that is summed over, counted from the end.

    Raises:
        CoupledSamplesError: it is the batch.
    """
    if dim is None:  # what torch chooses, with a warning
        dim = 0 if x.ndim in (0, 1, 3) else 1
    if not -x.ndim <= dim < x.ndim:
        raise ShapeError(f"Jacobian: {module} acts along dimension {dim}, which {tuple(x.shape)} does not have.")
    if dim % x.ndim == 0:
        raise CoupledSamplesError(
            f"Jacobian: {module} acts along dimension 0 of {tuple(x.shape)}, the batch, so samples are coupled and "
            "there is no Jacobian per sample. Use dim=-1 or another dimension of the sample."
        )
    return dim % x.ndim - x.ndim
