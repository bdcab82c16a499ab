"""A manifold given by its metric tensor."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp

from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.geodesic import EnergyExpansion, expand_segment_energy, segment_lengths, segment_sum
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.precision import in_double
from pullgeo.metric import Dense, Metric


class MetricManifold(Manifold):
    """R^d with any metric tensor field ``z -> G(z)``, for metrics that are no pullback of a decoder.

    Args:
        metric_fn: a function or module, points ``(b, d)`` to symmetric positive definite matrices ``(b, d, d)``, made
            of torch operations and sample by sample.

    Raises:
        OptionError: ``metric_fn`` cannot be called.

    Example:
        >>> import torch
        >>> from pullgeo import MetricManifold
        >>> def half_plane(z):  # (x, y) with y > 0
        ...     return torch.eye(2, dtype=z.dtype) / z[:, 1].square()[:, None, None]
        >>> manifold = MetricManifold(half_plane)
        >>> a, b = torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([[0.0, 2.0]], dtype=torch.float64)
        >>> bool((manifold.dist(a, b) - torch.tensor(2.0).double().log()).abs() < 1e-6)
        True
    """

    name = "given metric"

    def __init__(self, metric_fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(metric_fn):
            raise OptionError(
                f"MetricManifold: metric_fn must be a function or module, got {type(metric_fn).__name__}."
            )
        self.metric_fn = metric_fn

    def metric(self, z: Tensor) -> Metric:
        """``G(z)``.

        Raises:
            NonFiniteError: a point or a matrix entry is NaN or infinite.
            ShapeError: ``metric_fn`` does not return ``(b, d, d)``.
        """
        self._check_points("metric", z)
        G = self._tensor(z)
        if not bool(torch.isfinite(G).all()):
            raise NonFiniteError("MetricManifold: metric_fn returned NaN or infinity. Keep points where it is defined.")
        return Dense(G)

    def connection(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``Γ(u, w) = ½ G⁻¹ (∂_u G w + ∂_w G u - ∇(uᵀ G w))`` by automatic differentiation of ``G``.

        Raises:
            SingularMetricError: ``G`` is singular at a point.
        """
        G, pull = vjp(self._tensor, z)[:2]

        def along(u: Tensor, w: Tensor) -> Tensor:
            # ∂_u G w as the transpose of v -> u·∇(vᵀ G w): reverse mode alone, much the faster on small tensors
            transposed = vjp(lambda v: (pull(v.unsqueeze(-1) * w.unsqueeze(-2))[0] * u).sum(-1), torch.zeros_like(w))[1]
            return transposed(torch.ones_like(z[:, 0]))[0]

        along_u = along(u, w)
        along_w = along_u if w is u else along(w, u)
        force = along_u + along_w - pull(u.unsqueeze(-1) * w.unsqueeze(-2))[0]
        return Dense(G).solve(force / 2)

    def in_double(self) -> "MetricManifold":
        """This manifold in float64, connected to the same weights."""
        return MetricManifold(in_double(self.metric_fn))

    def energy(self, nodes: Float[Tensor, "b nodes d"]) -> Float[Tensor, " b"]:
        """``T Σ Δz_iᵀ Ḡ_i Δz_i`` with ``Ḡ_i`` the metric at the middle of a segment: symmetric and of second order."""
        return segment_sum(self.segment_energy, nodes)

    def expand_energy(self, nodes: Float[Tensor, "b nodes d"]) -> EnergyExpansion:
        """The midpoint energy with its exact gradient and block-tridiagonal Hessian."""
        return expand_segment_energy(self.segment_energy, nodes)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths of the straight segments between all points of successive layers, by the midpoint rule."""
        return segment_lengths(self.segment_energy, layers)

    def segment_energy(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``(b - a)ᵀ G((a + b)/2) (b - a)``."""
        step = b - a
        return torch.einsum("ni,nij,nj->n", step, self._tensor((a + b) / 2), step)

    def _tensor(self, z: Tensor) -> Tensor:
        G = self.metric_fn(z)
        if G.shape != (*z.shape, z.shape[-1]):
            raise ShapeError(
                f"MetricManifold: metric_fn must map {tuple(z.shape)} to {(*z.shape, z.shape[-1])}, "
                f"got {tuple(G.shape)}. Return one matrix per point."
            )
        return G
