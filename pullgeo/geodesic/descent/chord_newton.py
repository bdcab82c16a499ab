"""The last steps to a solution, with the Hessian left as it is."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.descent.newton import Descent, energy_rounding
from pullgeo.geodesic.energy.base import EnergyGradient, Space
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.numerics.banded.matrix import Factor
from pullgeo.numerics.batch import Batch

CONTRACTION = 0.1
"""By how much a step has to bring the residual down to justify another one with the same Hessian."""

ENERGY_ROUNDING = 1e-12
"""Relative rise of the energy that is taken for rounding errors."""


@dataclass(frozen=True, eq=False)
class Polished(Batch):
    """Curves with a small residual.

    Attributes:
        nodes: the curves.
        at: the energy to first order there.
        residual: the gradient, in the unit of the descent.
        steps: steps taken, those of the descent included.
    """

    nodes: Float[Tensor, "p n d"]
    at: EnergyGradient
    residual: Float[Tensor, " p"]
    steps: Int[Tensor, " p"]


def polish(space: Space, rough: Descent, tol: float, max_steps: int) -> Polished:
    """Simplified Newton steps from where a descent ended, with the Hessian of its last point.

    Close to the solution the Hessian hardly changes, and may be known to few digits only: the error still shrinks by
    the relative error of the Hessian with every step, while a step costs a gradient instead of an expansion. So a
    descent in float32 is brought to float64 accuracy. The first step needs not even that, for the descent has left a
    gradient. A step that contracts the residual too little, or raises the energy, is not taken and ends the polishing
    of its curve.

    Args:
        space: where the curves live, in the precision that is asked for.
        rough: the curves and the Hessians.
        tol: the residual at which a curve is done.
        max_steps: the number of steps, those of the descent included, at which it gives up.

    Source: Ortega, Rheinboldt, *Iterative Solution of Nonlinear Equations in Several Variables*, section 7.1
    (simplified Newton method).
    """
    # where the descent saw no gradient at all, only an expansion can tell what its unit is
    size = rough.at.gradient.flatten(1).norm(dim=1)
    unit = torch.where(rough.at.residual > 0, rough.at.residual / size, torch.inf)
    factor = rough.at.hessian.cholesky()

    def polished(nodes: Tensor, steps: Tensor, unit: Tensor) -> Polished:
        at = slope(space, nodes)
        return Polished(nodes, at, unit * at.gradient.flatten(1).norm(dim=1), steps)

    now = polished(*_first_step(rough, factor, max_steps), unit)
    better = (now.residual < rough.at.residual) & (now.at.energy <= rough.at.energy + energy_rounding(rough.at))
    back = ((now.steps > rough.steps) & ~better).nonzero().squeeze(1)
    if len(back):
        now = now.put(back, polished(rough.nodes[back], rough.steps[back], unit[back]))
    active = factor.good & torch.isfinite(now.residual) & ~rough.stalled
    while True:
        active = active & ~(now.residual <= tol) & (now.steps < max_steps)
        chosen = active.nonzero().squeeze(1)
        if not len(chosen):
            return now
        before = now[chosen]
        new = polished(_moved(before.nodes, factor.solve(now.at.gradient)[chosen]), before.steps + 1, unit[chosen])
        good = new.residual < CONTRACTION * before.residual
        good = good & (new.at.energy <= (1 + ENERGY_ROUNDING) * before.at.energy)
        now = now.put(chosen[good], new[good])
        active = active.index_put((chosen,), good)


def _first_step(rough: Descent, factor: Factor, max_steps: int) -> tuple[Float[Tensor, "p n d"], Int[Tensor, " p"]]:
    """A Newton step with what the descent knows at its last point, which costs nothing."""
    x, step = rough.nodes, factor.solve(rough.at.gradient)
    able = factor.good & torch.isfinite(step).flatten(1).all(1) & ~rough.stalled & (rough.steps < max_steps)
    return torch.where(able.view(-1, 1, 1), _moved(x, step), x), rough.steps + able


def _moved(nodes: Tensor, step: Tensor) -> Tensor:
    return torch.cat([nodes[:, :1], nodes[:, 1:-1] - step, nodes[:, -1:]], 1)
