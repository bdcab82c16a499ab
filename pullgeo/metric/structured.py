"""Metrics whose entries are held: identity, diagonal, dense."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import ShapeError, SingularMetricError
from pullgeo.metric.base import Metric


@dataclass(frozen=True, eq=False)
class Identity(Metric):
    """The Euclidean metric of dimension ``dim``."""

    dim: int
    entries: torch.dtype = torch.float64
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 0:
            raise ShapeError(f"Identity: dim must not be negative, got {self.dim}.")

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the matrices it gives."""
        return self.entries

    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``v`` itself."""
        self._check("apply", v)
        return v

    def solve(self, w: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``w`` itself."""
        self._check("solve", w)
        return w

    def dense(self) -> Float[Tensor, "n n"]:
        """The identity matrix."""
        return torch.eye(self.dim, dtype=self.entries, device=self.device)

    def diag(self) -> Float[Tensor, " n"]:
        """Ones."""
        return torch.ones(self.dim, dtype=self.entries, device=self.device)

    def logdet(self) -> Float[Tensor, ""]:
        """Zero."""
        return torch.zeros((), dtype=self.entries, device=self.device)

    def root(self) -> Float[Tensor, "n n"]:
        """The identity matrix."""
        return self.dense()


@dataclass(frozen=True, eq=False)
class Diagonal(Metric):
    """``M = diag(values)``, with values ``(n,)`` for the same at every point or ``(b, n)``."""

    values: Float[Tensor, "*b n"]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """n."""
        return self.values.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the values."""
        return self.values.dtype

    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``values ∘ v``."""
        self._check("apply", v)
        return self.values * v

    def solve(self, w: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``w / values``.

        Raises:
            SingularMetricError: a value is zero.
        """
        self._check("solve", w)
        if bool((self.values == 0).any()):
            raise SingularMetricError(
                f"Diagonal.solve: {int((self.values == 0).sum())} diagonal entries are zero, so M has no inverse. "
                "Add a small positive number to them if you want a regularised one.",
                (self.values == 0).any(-1),
            )
        return w / self.values

    def dense(self) -> Float[Tensor, "*b n n"]:
        """The diagonal matrices."""
        return self.values.diag_embed()

    def diag(self) -> Float[Tensor, "*b n"]:
        """The values."""
        return self.values

    def logdet(self) -> Float[Tensor, "*b"]:
        """``Σ log |value|``."""
        return self.values.abs().log().sum(-1)

    def root(self) -> Float[Tensor, "*b n n"]:
        """``diag(√values)``.

        Raises:
            SingularMetricError: a value is negative.
        """
        if bool((self.values < 0).any()):
            raise SingularMetricError("Diagonal.root: a diagonal entry is negative, so M has no real root.")
        # where a variance underflows the root's derivative is taken to be zero, not infinite
        zero = self.values == 0
        return torch.where(zero, self.values, torch.where(zero, 1.0, self.values).sqrt()).diag_embed()


@dataclass(frozen=True, eq=False)
class Dense(Metric):
    """``M = matrix``, ``(n, n)`` for the same at every point or ``(b, n, n)``; symmetric or not.

    Raises:
        ShapeError: the matrix is not square.
    """

    matrix: Float[Tensor, "*b n m"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matrix.ndim < 2 or self.matrix.shape[-1] != self.matrix.shape[-2]:
            raise ShapeError(f"Dense: expected square matrices (*b, n, n), got {tuple(self.matrix.shape)}.")

    @property
    def dim(self) -> int:  # type: ignore[override]
        """n."""
        return self.matrix.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the matrix."""
        return self.matrix.dtype

    def apply(self, v: Float[Tensor, "*k n"]) -> Float[Tensor, "*k n"]:
        """``M v``."""
        self._check("apply", v)
        if self.matrix.ndim == 2:
            return torch.matmul(v, self.matrix.mT)
        if self.matrix.ndim == 3 and v.ndim == 3:  # one matrix product per point; broadcasting would copy M k times
            return torch.matmul(self.matrix, v.movedim(0, -1)).movedim(-1, 0)
        return torch.matmul(self.matrix, v.unsqueeze(-1)).squeeze(-1)

    def dense(self) -> Float[Tensor, "*b n n"]:
        """The matrix itself."""
        return self.matrix

    def diag(self) -> Float[Tensor, "*b n"]:
        """Its diagonal."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)
