"""Frames that are orthonormal in a metric."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import SingularMetricError
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


def metric_cholesky(where: str, metric: Callable[[Tensor], Metric], p: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """``L`` with ``G(p) = L Lᵀ``: ``Lᵀv`` are the coordinates of a tangent in an orthonormal frame.

    Args:
        where: who asks, for the message.
        metric: ``G``, in float64.
        p: the point.

    Raises:
        SingularMetricError: the metric is singular at p.
    """
    d = len(p)
    with torch.no_grad():
        G = metric(p.double().unsqueeze(0)).dense()
    # a constant metric has no batch
    lower, info = torch.linalg.cholesky_ex(G.reshape(d, d))
    if int(info):
        raise SingularMetricError(
            f"{where}: the metric is singular at {p.tolist()}, so that there is no orthonormal frame. Begin elsewhere, "
            "or add a floor to the metric."
        )
    return lower
