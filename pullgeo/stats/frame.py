"""Orthonormal frames and tangent coordinates at a point."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.errors import NonFiniteError, SingularMetricError
from pullgeo.manifold.base import Manifold


def metric_cholesky(where: str, manifold: Manifold, p: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
    """``L`` with ``G(p) = L Lᵀ``: ``Lᵀv`` are the coordinates of a tangent in an orthonormal frame.

    Raises:
        SingularMetricError: the metric is singular at p.
    """
    d = len(p)
    with torch.no_grad():
        G = manifold.in_double().metric(p.double().unsqueeze(0)).dense()
    # a constant metric has no batch
    lower, info = torch.linalg.cholesky_ex(G.reshape(d, d))
    if int(info):
        raise SingularMetricError(
            f"{where}: the metric is singular at {p.tolist()}, so that there is no orthonormal frame. Begin elsewhere, "
            "or add a floor to the metric."
        )
    return lower


def logarithms(
    where: str, manifold: Manifold, p: Float[Tensor, " d"], z: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
    """``log_p(z)`` in float64, and which of them were found; those that were not are NaN.

    Raises:
        NonFiniteError: none was found.
    """
    with torch.no_grad():
        v = manifold.logmap(p.double(), z.detach().double())
    found = torch.isfinite(v).all(1)
    if not bool(found.any()):
        raise NonFiniteError(f"{where}: no geodesic from {p.tolist()} to any of {len(z)} points was found.")
    return v, found
