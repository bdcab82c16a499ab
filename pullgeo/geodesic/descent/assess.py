"""What can be said of curves, wherever they come from."""

from dataclasses import replace

from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.descent.newton import Descent
from pullgeo.geodesic.descent.newton_cg import LARGE, assess_free
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solver import SearchResult


def assess(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"], tol: float, steps: Int[Tensor, " p"]) -> SearchResult:
    """Energy, residual and status of curves, and how far their energies may lie above the minima near them.

    Cost: one expansion of the energy.
    """
    if nodes.shape[2] >= LARGE:
        return assess_free(space, nodes, tol, steps)
    return replace(Descent.begin(space, nodes), steps=steps).result(tol)
