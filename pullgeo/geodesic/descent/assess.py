"""What can be said of curves, wherever they come from."""

from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.descent.newton import Descent
from pullgeo.geodesic.descent.newton_cg import LARGE, assess_free, order_of
from pullgeo.geodesic.descent.result import Found
from pullgeo.geodesic.energy.base import Space


def assess(space: Space, nodes: Float[Tensor, "p n d"], tol: float, steps: Int[Tensor, " p"]) -> tuple[Found, int]:
    """Energy, residual and status of curves, and how far their energies may lie above the minima near them.

    Returns:
        The judgement, and the order of the energy.

    Cost: one expansion of the energy.
    """
    if nodes.shape[2] >= LARGE:
        return assess_free(space, nodes, tol, steps), order_of(space, nodes)
    begun = Descent.begin(space, nodes)
    return Found.after(Descent(nodes, begun.at, begun.damping, steps), tol), begun.at.order
