"""Frames that are orthonormal in a metric."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.half_precision import decomposable
from pullgeo.errors import SingularMetricError
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense
from pullgeo.numerics.batch import Batch


@dataclass(frozen=True, eq=False)
class Frame(Batch):
    """d tangents at each of b points that are orthonormal in a metric: the columns of ``E = L⁻ᵀ`` where ``G = L Lᵀ``.

    ``Eᵀ G E = I`` and ``E Eᵀ = G⁻¹``. The matrices are triangular, by Cholesky.

    Args:
        root: ``L``.
        vectors: ``E``.

    Example:
        >>> import torch
        >>> from pullgeo.manifold.frame import Frame
        >>> from pullgeo.metric import Dense
        >>> frame = Frame.of(Dense(torch.tensor([[[4.0, 0.0], [0.0, 9.0]]])), 1)
        >>> frame.coordinates(torch.tensor([[1.0, 1.0]]))
        tensor([[2., 3.]])
    """

    root: Float[Tensor, "b d d"]
    vectors: Float[Tensor, "b d d"]

    @staticmethod
    def of(G: Metric, batch: int) -> "Frame":
        """The frame of a metric at a batch of points, or of one that is the same at all.

        Raises:
            SingularMetricError: G is not positive definite at a point.

        Cost: O(b d³).
        """
        L = Dense(G.dense()).root()
        eye = torch.eye(L.shape[-1], dtype=L.dtype, device=L.device)
        upper, right = decomposable(L.mT), decomposable(eye.expand_as(L))
        vectors = torch.linalg.solve_triangular(upper, right, upper=True).to(L.dtype)
        return Frame(L.expand(batch, -1, -1), vectors.expand(batch, -1, -1))

    @staticmethod
    def at(where: str, G: Metric, p: Float[Tensor, " d"]) -> "Frame":
        """The frame at a single point.

        Args:
            where: who asks, for the message.
            G: the metric there.
            p: the point.

        Raises:
            SingularMetricError: the metric is singular at p.
        """
        try:
            return Frame.of(G, 1)
        except SingularMetricError as error:
            raise SingularMetricError(
                f"{where}: the metric is singular at {p.tolist()}, so that there is no orthonormal frame. Begin "
                "elsewhere, or add a floor to the metric."
            ) from error

    def coordinates(self, v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """``Lᵀ v``: the coordinates of tangents, whose Euclidean products are those of the metric."""
        return (v.unsqueeze(-2) @ self.root).squeeze(-2)

    def tangents(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """``E x``: the tangents with given coordinates."""
        return (self.vectors @ x.unsqueeze(-1)).squeeze(-1)

    @property
    def log_volume(self) -> Float[Tensor, " b"]:
        """``½ log det G``."""
        return self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
