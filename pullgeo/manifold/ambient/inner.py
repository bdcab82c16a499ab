"""Any other manifold of geoopt, by the inner product that it states."""

from dataclasses import dataclass

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad

from pullgeo.manifold.ambient.base import Ambient
from pullgeo.metric.base import Metric


@dataclass(frozen=True, eq=False)
class InnerProduct(Ambient):
    """A geoopt manifold with the metric ``manifold.inner(y, u, v)``, measured along segments by the midpoint rule.

    The formula of the inner product is used for all y, between the manifold's points as well; only its values on the
    manifold enter as segments become short.
    """

    manifold: geoopt.Manifold

    def metric(self, y: Float[Tensor, "b *out"]) -> "BilinearMetric":
        """The inner product at y."""
        return BilinearMetric(self.manifold, y)


@dataclass(frozen=True, eq=False)
class BilinearMetric(Metric):
    """A geoopt manifold's inner product at points ``(b, *out)``, on flat tangents."""

    manifold: geoopt.Manifold
    y: Float[Tensor, "b *out"]

    @property
    def dim(self) -> int:  # type: ignore[override]
        """D."""
        return torch.Size(self.y.shape[1:]).numel()

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the points."""
        return self.y.dtype

    def apply(self, v: Float[Tensor, "*k b D"]) -> Float[Tensor, "*k b D"]:
        """The derivative of ``u -> ⟨u, v⟩``, which is linear. Cost: a backward pass of the inner product."""
        self._check("apply", v)
        y = self.y.expand(*v.shape[:-1], *self.y.shape[1:])

        def paired(u: Tensor) -> Tensor:
            return self.manifold.inner(y, u.reshape(y.shape), v.reshape(y.shape)).sum()

        return grad(paired)(torch.zeros_like(v))

    def dense(self) -> Float[Tensor, "b D D"]:
        """The matrices. Cost: D of them."""
        rows = torch.eye(self.dim, dtype=self.dtype, device=self.y.device)
        return self.apply(rows.unsqueeze(1).expand(self.dim, len(self.y), self.dim)).transpose(0, 1)

    def diag(self) -> Float[Tensor, "b D"]:
        """Their diagonals."""
        return self.dense().diagonal(dim1=-2, dim2=-1)
