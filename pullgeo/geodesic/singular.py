"""Metrics that have no inverse."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.geodesic.energy.base import DiscreteEnergy, MetricEnergy
from pullgeo.numerics.bisect_batch import where_defined

ROUNDING = 64
"""Pivots of a metric, relative to its diagonal, in units of rounding errors and dimensions, that are zero."""


def singular(G: Float[Tensor, "n d d"]) -> Bool[Tensor, " n"]:
    """Which symmetric positive semidefinite matrices have no inverse to the digits that they have.

    The unit of a coordinate makes no matrix singular: pivots are compared with the diagonal. A matrix that is not
    finite is not known to be singular.
    """
    scale = G.diagonal(dim1=-2, dim2=-1)
    zero = (scale <= 0).any(1)
    root = torch.where(scale > 0, scale, 1.0).rsqrt()
    scaled = G * root.unsqueeze(2) * root.unsqueeze(1)
    known = torch.isfinite(scaled).flatten(1).all(1)
    identity = torch.eye(G.shape[1], dtype=G.dtype, device=G.device)
    factor, info = torch.linalg.cholesky_ex(torch.where(known.view(-1, 1, 1), scaled, identity))
    least = factor.diagonal(dim1=-2, dim2=-1).square().amin(1)
    small = ROUNDING * G.shape[1] * torch.finfo(G.dtype).eps
    return known & (zero | (info != 0) | (least <= small))


def singular_at(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> Bool[Tensor, "p n"]:
    """At which nodes of curves the metric is singular; nowhere if the space has no metric tensors."""
    if not isinstance(space, MetricEnergy):
        return torch.zeros(nodes.shape[:2], dtype=torch.bool, device=nodes.device)
    d = nodes.shape[2]
    G = where_defined(lambda z: space.metric(z).dense().expand(len(z), d, d), (d, d), nodes.flatten(0, 1))
    return singular(G).view(nodes.shape[:2])
