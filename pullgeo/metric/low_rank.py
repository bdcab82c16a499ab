"""A metric given by its root."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.half_precision import decomposable
from pullgeo.errors import ShapeError, SingularMetricError
from pullgeo.metric.base import Metric


@dataclass(frozen=True, eq=False)
class LowRank(Metric):
    """``M = R Rᵀ`` of rank at most r: a Gauss-Newton matrix from few loss terms, a projection, a Gram matrix.

    Everything is computed from ``R``, with ``n r`` numbers in place of n², and pulls back as a root, ``Jᵀ R``.

    Args:
        matrix: the root ``R``, ``(n, r)`` for the same at every point or ``(b, n, r)``; r may be above n.

    Raises:
        ShapeError: the root is no matrix.

    Example:
        >>> M = LowRank(torch.tensor([[1.0], [2.0]]))
        >>> M.dense()
        tensor([[1., 2.],
                [2., 4.]])
        >>> M.logdet()
        tensor(-inf)
    """

    matrix: Float[Tensor, "*b n r"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matrix.ndim < 2:
            raise ShapeError(f"LowRank: expected roots (*b, n, r), got {tuple(self.matrix.shape)}.")

    @property
    def dim(self) -> int:  # type: ignore[override]
        """n."""
        return self.matrix.shape[-2]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the root."""
        return self.matrix.dtype

    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``R (Rᵀ v)``. Cost: ``2 n r`` multiplications for each vector."""
        self._check("apply", v)
        return self._combined(self._coefficients(v))

    def inner(self, u: Float[Tensor, "*k n"], v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k"]:
        """``⟨Rᵀ u, Rᵀ v⟩``.

        Raises:
            ShapeError: the vectors do not live in this tangent space.
        """
        self._check("inner", u)
        self._check("inner", v)
        left = self._coefficients(u)
        return (left * (left if v is u else self._coefficients(v))).sum(-1)

    def gram(self, T: Float[Tensor, "k *b n"]) -> Float[Tensor, "*b k k"]:
        """``⟨Rᵀ T_i, Rᵀ T_j⟩`` for a stack of k tangents."""
        seen = self._coefficients(T)
        return torch.matmul(seen.movedim(0, -2), seen.movedim(0, -1))

    def quadratic(self, T: Float[Tensor, "k *b n"]) -> Float[Tensor, "k *b"]:
        """``‖Rᵀ T_i‖²`` for a stack of k tangents."""
        return self._coefficients(T).square().sum(-1)

    def solve(self, w: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``M⁻¹ w``, where the root has full rank.

        Raises:
            SingularMetricError: there are fewer columns than dimensions, or ``M`` is singular at a point.
            ShapeError: ``w`` does not live in this cotangent space.
        """
        self._check("solve", w)
        n, r = self.matrix.shape[-2:]
        if r < n:
            raise SingularMetricError(
                f"LowRank.solve: M = R Rᵀ has rank at most {r} in dimension {n}, so it has no inverse. Add a "
                "multiple of the identity, Dense(M.dense() + eps * eye), if you want a regularised one."
            )
        return super().solve(w)

    def logdet(self) -> Float[Tensor, "*b"]:
        """``log det M``; minus infinity where there are fewer columns than dimensions, or the root is singular."""
        n, r = self.matrix.shape[-2:]
        if r < n:
            return self.matrix.new_full(self.matrix.shape[:-2], -torch.inf)
        if r == n:
            return 2 * torch.linalg.slogdet(decomposable(self.matrix)).logabsdet.to(self.dtype)
        return super().logdet()

    def diag(self) -> Float[Tensor, "*b n"]:
        """``Σ_k R_ik²``."""
        return self.matrix.square().sum(-1)

    def dense(self) -> Float[Tensor, "*b n n"]:
        """``R Rᵀ``."""
        return self.matrix @ self.matrix.mT

    def root(self) -> Float[Tensor, "*b n r"]:
        """``R`` itself."""
        return self.matrix

    def columns(self, part: slice) -> Float[Tensor, "k b n"]:
        """Some columns of the root; with a batch of one where they are the same at every point."""
        columns = self.matrix[..., part]
        return (columns if columns.ndim > 2 else columns.unsqueeze(0)).movedim(-1, 0)

    def _coefficients(self, v: Tensor) -> Float[Tensor, "*k r"]:
        return _times(self.matrix.mT, v)

    def _combined(self, c: Tensor) -> Float[Tensor, "*k n"]:
        return _times(self.matrix, c)


def _times(matrix: Tensor, v: Tensor) -> Tensor:
    """A matrix, one for all or one for each point, times vectors."""
    if matrix.ndim == 2:
        return v @ matrix.mT
    if matrix.ndim == 3 and v.ndim == 3:  # one product of matrices per point; broadcasting would copy it k times
        return torch.matmul(matrix, v.movedim(0, -1)).movedim(-1, 0)
    return torch.matmul(matrix, v.unsqueeze(-1)).squeeze(-1)
