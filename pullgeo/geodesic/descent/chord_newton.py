"""The last steps to a solution, with the Hessian left as it is."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.descent.newton import Descent, energy_rounding
from pullgeo.geodesic.energy.base import DiscreteEnergy, EnergyGradient
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.geodesic.single_precision import precision
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, statuses
from pullgeo.numerics.banded.matrix import Factor
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.progress import stepped

CONTRACTION = 0.1
"""By how much a step has to bring the residual down to justify another one with the same Hessian."""

ENERGY_ROUNDING = 1e-12
"""Relative rise of the energy that is taken for rounding errors."""


@dataclass(frozen=True, eq=False)
class _Curves(Batch):
    """Curves, the energy to first order there, the gradient in the unit of the descent, and steps taken in all."""

    nodes: Float[Tensor, "p n d"]
    at: EnergyGradient
    residual: Float[Tensor, " p"]
    steps: Int[Tensor, " p"]


def polish(space: DiscreteEnergy, near: DiscreteEnergy, begun: Descent, tol: float, max_steps: int) -> SearchResult:
    """Simplified Newton steps from where a descent ended, with the Hessian of its last point.

    Close to the solution the Hessian hardly changes, and may be known to few digits only: the error still shrinks by
    the relative error of the Hessian with every step, while a step costs a gradient instead of an expansion. So a
    descent in float32 is brought to float64 accuracy. The first step needs not even that, for the descent has left a
    gradient. A step that contracts the residual too little, or raises the energy, is not taken and ends the polishing
    of its curve.

    Args:
        space: where the curves live, in the precision that is asked for.
        near: the same as the descent saw it.
        begun: the curves and the Hessians.
        tol: the residual at which a curve is done.
        max_steps: the number of steps, those of the descent included, at which it gives up.

    Source: Ortega, Rheinboldt, *Iterative Solution of Nonlinear Equations in Several Variables*, section 7.1
    (simplified Newton method).
    """
    # where the descent saw no gradient at all, only an expansion can tell what its unit is
    size = begun.at.gradient.flatten(1).norm(dim=1)
    unit = torch.where(begun.at.residual > 0, begun.at.residual / size, torch.inf)
    factor = begun.at.hessian.cholesky()

    def at(nodes: Tensor, steps: Tensor, unit: Tensor) -> _Curves:
        first_order = slope(space, nodes)
        return _Curves(nodes, first_order, unit * first_order.gradient.flatten(1).norm(dim=1), steps)

    now = at(*_first_step(begun, factor, max_steps), unit)
    better = (now.residual < begun.at.residual) & (now.at.energy <= begun.at.energy + energy_rounding(begun.at))
    back = ((now.steps > begun.steps) & ~better).nonzero().squeeze(1)
    if len(back):
        now = now.put(back, at(begun.nodes[back], begun.steps[back], unit[back]))
    active = factor.good & torch.isfinite(now.residual) & ~begun.stalled
    while True:
        active = active & ~(now.residual <= tol) & (now.steps < max_steps)
        chosen = active.nonzero().squeeze(1)
        if not len(chosen):
            break
        stepped(len(chosen))
        before = now[chosen]
        new = at(_moved(before.nodes, factor.solve(now.at.gradient)[chosen]), before.steps + 1, unit[chosen])
        good = new.residual < CONTRACTION * before.residual
        good = good & (new.at.energy <= (1 + ENERGY_ROUNDING) * before.at.energy)
        now = now.put(chosen[good], new[good])
        active = active.index_put((chosen,), good)
    return SearchResult(
        nodes=now.nodes,
        energy=now.at.energy,
        residual=now.residual,
        rounding=begun.at.rounding * (precision(space) / precision(near)),
        speed_ratio=begun.at.speed_ratio,
        iterations=now.steps,
        status=statuses(Status.MAX_STEPS, (Status.CONVERGED, now.residual <= tol)),
        order=begun.at.order,
        minima=begun.minima,
        coarse_energy=now.at.coarse_energy,
    )


def _first_step(begun: Descent, factor: Factor, max_steps: int) -> tuple[Float[Tensor, "p n d"], Int[Tensor, " p"]]:
    """A Newton step with what the descent knows at its last point, which costs nothing."""
    x, step = begun.nodes, factor.solve(begun.at.gradient)
    able = factor.good & torch.isfinite(step).flatten(1).all(1) & ~begun.stalled & (begun.steps < max_steps)
    return torch.where(able.view(-1, 1, 1), _moved(x, step), x), begun.steps + able


def _moved(nodes: Tensor, step: Tensor) -> Tensor:
    return torch.cat([nodes[:, :1], nodes[:, 1:-1] - step, nodes[:, -1:]], 1)
