"""The equation of geodesics and of parallel transport, as solvers for whole curves ask for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.geodesic.singular import singular
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.chunking import DERIVED


@runtime_checkable
class Connected(Protocol):
    """What a manifold offers to solvers of the geodesic equation."""

    def connection(self, z: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``Γ(u, w)``."""

    def lowered_derivative(self, z: Tensor, u: Tensor, w: Tensor, rate: Tensor) -> Tensor:
        """``G (rate + Γ(u, w))``."""

    def metric_matrix(self, z: Tensor) -> Tensor:
        """``G``."""


@dataclass(frozen=True, eq=False)
class Equation:
    """Covariant derivatives along curves, at points with any leading dimensions; NaN where there are none.

    Args:
        manifold: whose geometry it is.
    """

    manifold: Connected

    def lowered(
        self,
        z: Float[Tensor, "*n d"],
        u: Float[Tensor, "*n d"],
        w: Float[Tensor, "*n d"],
        rate: Float[Tensor, "*n d"],
    ) -> Float[Tensor, "*n d"]:
        """``G (rate + Γ(u, w))``; with the same tensor for u and w it costs less."""
        if u is w:
            return _in_parts(
                lambda z, u, rate: self.manifold.lowered_derivative(z, u, u, rate), z.shape[-1:], z, u, rate
            )
        return _in_parts(self.manifold.lowered_derivative, z.shape[-1:], z, u, w, rate)

    def matrix(self, z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d d"]:
        """``G(z)``."""
        return _in_parts(self.manifold.metric_matrix, (z.shape[-1], z.shape[-1]), z)

    def singular(self, z: Float[Tensor, "b n d"]) -> Bool[Tensor, " b"]:
        """Whether the metric is singular, up to rounding, or not finite at one of the points."""
        G = self.matrix(z)
        finite = torch.isfinite(G).flatten(2).all(2)
        return (~finite | singular(G.flatten(0, 1)).view_as(finite)).any(1)


def inverse(matrix: Float[Tensor, "*n d d"]) -> Float[Tensor, "*n d d"]:
    """Inverse matrices; NaN, for that point alone, where one is singular up to rounding."""
    finite = torch.isfinite(matrix).flatten(-2).all(-1)[..., None, None]
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverted, info = torch.linalg.inv_ex(torch.where(finite, matrix, one))
    condition = torch.linalg.matrix_norm(matrix) * torch.linalg.matrix_norm(inverted)
    good = (info == 0) & (condition < 1 / (8 * len(one) * torch.finfo(matrix.dtype).eps))
    return torch.where(good[..., None, None], inverted, torch.nan)


def _in_parts(function: Callable[..., Tensor], shape: tuple[int, ...], *points: Tensor) -> Tensor:
    lead = points[0].shape[:-1]
    parts = DERIVED.split(*(a.reshape(-1, a.shape[-1]) for a in points))
    return torch.cat([where_defined(function, tuple(shape), *part) for part in parts]).reshape(*lead, *shape)
