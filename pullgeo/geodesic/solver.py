"""What a solver is: a value that finds discrete geodesics between pairs of points of a space."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.space import Space
from pullgeo.geodesic.status import Status


@dataclass(frozen=True, eq=False)
class Minimised:
    """Discrete curves, as a solver leaves them.

    Attributes:
        nodes: the curves.
        energy: their discrete energies.
        residual: scale-free norms of the energy's gradient.
        rounding: the residuals that rounding errors alone can cause.
        speed_ratio: largest over median length of a curve's segments.
        iterations: steps taken or tried.
        status: how the search ended.
        order: the energy's error is O(T^-order).
    """

    nodes: Float[Tensor, "p n d"]
    energy: Float[Tensor, " p"]
    residual: Float[Tensor, " p"]
    rounding: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]
    iterations: Int[Tensor, " p"]
    status: tuple[Status, ...]
    order: int


@runtime_checkable
class Solver(Protocol):
    """Finds discrete geodesics."""

    def minimise(self, space: Space, rough: Space, z0: Tensor, z1: Tensor) -> Minimised:
        """Curves of an even number of segments between end points ``(p, d)``.

        Args:
            space: the manifold in float64.
            rough: the manifold for what need not be exact: in float32 behind float64, or the same as ``space``.
            z0: where the curves begin, in float64.
            z1: where they end.
        """
