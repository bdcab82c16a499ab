"""The energy that measures each segment by the metric at its first node."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.base import DiscreteEnergy, MetricEnergy, QuadraticModel
from pullgeo.geodesic.energy.segment import SegmentEnergy
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense
from pullgeo.numerics.bisect_batch import where_defined


@dataclass(frozen=True, eq=False)
class LeftEndpoint:
    """A space whose discrete energy is ``T Σ u_iᵀ G(z_i) u_i`` with ``u_i = z_{i+1} - z_i``.

    It is the energy of the curve up to O(1/T) only, and its minimisers profit from one long jump off a node where the
    metric is small. It is here to be compared with, not to be trusted.

    Args:
        space: the manifold that it measures.
    """

    space: MetricEnergy

    def in_double(self) -> "LeftEndpoint":
        """The space in float64.

        Raises:
            OptionError: that has no metric tensors.
        """
        return left_endpoint(self.space.in_double())

    def metric(self, z: Float[Tensor, "n d"]) -> Metric:
        """Metric tensors, NaN at points where the metric is not defined."""
        d = z.shape[1]
        return Dense(where_defined(lambda z: self.space.metric(z).dense().expand(len(z), d, d), (d, d), z))

    def segment_energy(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``(b - a)ᵀ G(a) (b - a)``."""
        return self.squares(a, b - a)

    def squares(self, z: Float[Tensor, "n d"], u: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """``uᵀ G(z) u``."""
        return where_defined(lambda z, u: self.space.metric(z).inner(u, u), (), z, u)

    def energy(self, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
        """Discrete energies of curves."""
        return self._sum.energy(nodes)

    def expand_energy(self, nodes: Float[Tensor, "p n d"]) -> QuadraticModel:
        """Discrete energies with gradients and Hessians."""
        return self._sum.expand_energy(nodes)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths of segments between all points of successive layers."""
        return self._sum.chord_lengths(layers)

    @property
    def _sum(self) -> SegmentEnergy:
        return SegmentEnergy(self.segment_energy, order=1)


def left_endpoint(space: DiscreteEnergy) -> LeftEndpoint:
    """The same space measured at left end points.

    Raises:
        OptionError: the space has no metric tensors.
    """
    if not isinstance(space, MetricEnergy):
        raise OptionError(
            f"left_endpoint: {type(space).__name__} has no metric(z), from which the left-endpoint energy is computed."
        )
    return LeftEndpoint(space)
