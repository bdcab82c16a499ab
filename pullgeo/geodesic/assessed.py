"""What can be said of curves, wherever they come from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.descent import Descent
from pullgeo.geodesic.found import Found
from pullgeo.geodesic.matrix_free import LARGE, assess_free, order_of
from pullgeo.geodesic.space import Space


def assess(space: Space, nodes: Float[Tensor, "p n d"], tol: float, steps: Int[Tensor, " p"]) -> tuple[Found, int]:
    """Energy, residual and status of curves, and how far their energies may lie above the minima near them.

    That excess is half the Newton decrement, ``½ gᵀ H⁻¹ g`` with the exact Hessian; infinite where H is not positive
    definite, as no minimum is in sight then.

    Returns:
        The judgement, and the order of the energy.

    Cost: one expansion of the energy.
    """
    if nodes.shape[2] >= LARGE:
        return assess_free(space, nodes, tol, steps), order_of(space, nodes)
    begun = Descent.begin(space, nodes)
    at = begun.at
    found = Found.after(Descent(nodes, at, begun.damping, steps), tol)
    factor = at.hessian.cholesky()
    decrement = (at.gradient * factor.solve(at.gradient)).flatten(1).sum(1) / 2
    known = factor.good & torch.isfinite(decrement)
    excess = torch.where(known, decrement.clamp(min=0), torch.inf)
    return found.exceeding(torch.where(found.converged, 0.0, excess)), at.order
