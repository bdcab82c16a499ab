"""Frames that are orthonormal in a metric."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense


def orthonormal_frame(G: Metric, batch: int) -> Float[Tensor, "b d d"]:
    """``E = L⁻ᵀ`` where ``G = L Lᵀ`` by Cholesky: columns are d vectors with ``Eᵀ G E = I``, and ``E Eᵀ = G⁻¹``.

    Args:
        G: at a batch of points, or at one for all.
        batch: the number of points.

    Raises:
        SingularMetricError: G is not positive definite at a point.
    """
    L = Dense(G.dense()).root()
    eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
    return torch.linalg.solve_triangular(L.mT, eye.expand_as(L), upper=True).expand(batch, -1, -1)
