"""A manifold given by its metric tensor."""

from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import function_text
from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.base import DiscreteEnergy, QuadraticModel
from pullgeo.geodesic.energy.segment import SegmentEnergy, linearised
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.metric_field import MetricField, MetricFn, check_riemannian
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.float64.convert import in_double
from pullgeo.metric.base import Metric


class MetricManifold(Manifold):
    """R^d with any metric tensor field ``z -> G(z)``, for metrics that are no pullback of a decoder.

    Args:
        metric_fn: a function or module, points ``(b, d)`` to symmetric positive definite matrices ``(b, d, d)`` or to
            a `Metric`, such as ``Diagonal(values)`` with values ``(b, d)``; composed of torch operations and sample by
            sample. `LandMetric`, `RHVAEMetric` and `ConformalMetric` are ready ones, from data.

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

    def __init__(self, metric_fn: MetricFn) -> None:
        super().__init__()
        if not callable(metric_fn):
            raise OptionError(
                f"MetricManifold: metric_fn must be a function or module, got {type(metric_fn).__name__}."
            )
        self.metric_fn = metric_fn

    def __repr__(self) -> str:
        return f"MetricManifold({function_text(self.metric_fn)})"

    def metric(self, z: Tensor) -> Metric:
        """``G(z)``.

        Raises:
            NonFiniteError: a point or a matrix entry is NaN or infinite.
            ShapeError: ``metric_fn`` returns neither ``(b, d, d)`` nor a `Metric` of dimension d.
            DtypeError: ``metric_fn`` returns numbers of another precision than the points.
            GeometryError: a matrix is not symmetric, or has a negative eigenvalue.
        """
        self._check_points("metric", z)
        G = self._field.finite_metric(z)
        check_riemannian(G)
        return G

    def check_ends(self, z: Float[Tensor, "b d"]) -> None:
        """Raise unless geodesics can begin and end at these points.

        Raises:
            GeometryError: a matrix there is not symmetric, or has a negative eigenvalue.
        """
        self._field.check(z)

    def connection(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``Γ(u, w) = ½ G⁻¹ (∂_u G w + ∂_w G u - ∇(uᵀ G w))`` by automatic differentiation of ``G``.

        Raises:
            SingularMetricError: ``G`` is singular at a point.
        """
        z, u, w = map(outside_inference, (z, u, w))
        return self._field.metric(z).solve(self._field.lowered_christoffel(z, u, w))

    def lowered_derivative(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"], rate: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``G ẇ + ½ (∂_u G w + ∂_w G u - ∇(uᵀ G w))``."""
        return self._field.metric(z).apply(rate) + self._field.lowered_christoffel(z, u, w)

    def metric_matrix(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
        """``G(z)`` as the function gives it."""
        return self._field.metric(z).dense().expand(len(z), -1, -1)

    def in_double(self) -> "MetricManifold":
        """This manifold in float64, connected to the same weights."""
        return MetricManifold(in_double(self.metric_fn))

    def discretise(self) -> DiscreteEnergy:
        """``T Σ Δz_iᵀ Ḡ_i Δz_i`` with ``Ḡ_i`` the metric at the middle of a segment: symmetric and of second order."""
        return SegmentEnergy(self.segment_energy)

    def gauss_newton_energy(self, nodes: Float[Tensor, "b nodes d"]) -> QuadraticModel:
        """The midpoint energy with its exact gradient, and the Hessian as if the metric did not change on the way."""
        return linearised(self.expand_energy(nodes), nodes, lambda z: self._field.metric(z).dense())

    def segment_energy(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``(b - a)ᵀ G((a + b)/2) (b - a)``."""
        return self._field.segment_energy(a, b)

    @property
    def _field(self) -> MetricField:
        return MetricField(self.metric_fn)


@ambient_of.register
def _(given: MetricManifold) -> Ambient:
    return MetricField(given.metric_fn)
