"""Symmetric positive definite matrices with the affine-invariant metric."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.ambient.base import Ambient
from pullgeo.metric.base import Metric

_POINTS = 8
"""Points of the quadrature along a segment: exact to rounding for segments of length two in each eigenvalue."""


@dataclass(frozen=True, eq=False)
class AffineInvariant(Ambient):
    """Symmetric positive definite matrices ``(b, n, n)`` with ``⟨U, V⟩_P = tr(P⁻¹ U P⁻¹ V)``.

    Segments are measured by their geodesic length ``‖log(A⁻¹B)‖``, where ``log(A⁻¹B) = ∫ ((1 - x)A + xB)⁻¹(B - A) dx``
    is integrated by Gauss and Legendre's rule: it is as good as exact, and smooth where eigenvalues or the matrices
    themselves coincide. With one point it would be the midpoint rule.

    Source: Pennec, Fillard, Ayache, *A Riemannian Framework for Tensor Computing*, IJCV 2006; the integral: Higham,
    *Functions of Matrices*, section 11.1.
    """

    def metric(self, y: Float[Tensor, "b n n"]) -> "Sandwich":
        """``V -> P⁻¹ V P⁻¹``."""
        return Sandwich(torch.linalg.inv(y))

    def segment_energy(self, a: Float[Tensor, "b n n"], b: Float[Tensor, "b n n"]) -> Float[Tensor, " b"]:
        """``tr(log²(A⁻¹B))``."""
        x, weights = (
            torch.as_tensor(v, dtype=a.dtype, device=a.device) for v in np.polynomial.legendre.leggauss(_POINTS)
        )
        x = (x.view(-1, 1, 1, 1) + 1) / 2
        between = torch.linalg.inv((1 - x) * a + x * b) @ (b - a)
        log = torch.einsum("q,qbij->bij", weights / 2, between)
        return (log * log.mT).flatten(1).sum(1)

    def lowered_christoffel(
        self, y: Float[Tensor, "b n n"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``-½ P⁻¹ (U P⁻¹ W + W P⁻¹ U) P⁻¹``."""
        inverse = torch.linalg.inv(y)
        U, W = u.reshape(y.shape), w.reshape(y.shape)
        half = U @ inverse @ W
        return -(inverse @ (half + half.mT) @ inverse).flatten(1) / 2

    @property
    def fix(self) -> str:
        """How a decoder is made to end on positive definite matrices."""
        return (
            "Let the decoder return positive definite matrices (b, n, n): the matrix exponential of a symmetric "
            "matrix, or L Lᵀ + ε I of any square one."
        )


@dataclass(frozen=True, eq=False)
class Sandwich(Metric):
    """``⟨U, V⟩ = tr(A U A V)`` on flattened symmetric matrices, given the symmetric ``A`` ``(b, n, n)``."""

    factor: Float[Tensor, "b n n"]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """n²."""
        return self.factor.shape[-1] ** 2

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the factor."""
        return self.factor.dtype

    def apply(self, v: Float[Tensor, "*k D"]) -> Float[Tensor, "*k D"]:
        """``A V A``, flattened."""
        self._check("apply", v)
        n = self.factor.shape[-1]
        return (self.factor @ v.unflatten(-1, (n, n)) @ self.factor).flatten(-2)

    def dense(self) -> Float[Tensor, "b D D"]:
        """The Kronecker products ``A ⊗ A``."""
        b, n, _ = self.factor.shape
        return torch.einsum("bij,bkl->bikjl", self.factor, self.factor).reshape(b, n * n, n * n)

    def diag(self) -> Float[Tensor, "b D"]:
        """``A_ii A_kk``."""
        own = self.factor.diagonal(dim1=-2, dim2=-1)
        return (own.unsqueeze(-1) * own.unsqueeze(-2)).flatten(1)
