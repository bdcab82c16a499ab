"""Damped Newton steps on many curves at once, until each is a minimiser of the discrete energy or cannot go on."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.energy.base import DiscreteEnergy, QuadraticModel
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, statuses
from pullgeo.numerics.damped_newton import MARQUARDT, Iterate, damped_newton, judged

ROUNDING_MARGIN = 8.0
"""How far above the estimate of rounding errors a residual may still be nothing but rounding."""

EXACT = 1e-6
"""Residual below which nothing is left to be gained; what is follows its square."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Descent(Iterate):
    """Curves as damped Newton steps leave them, with λ in units of the Gauss-Newton diagonal.

    Attributes:
        nodes: the curves.
        at: the energy's expansion there.
        minima: how many distinct curves the candidates ended at.
    """

    nodes: Float[Tensor, "p n d"]
    at: QuadraticModel
    minima: Int[Tensor, " p"]

    @staticmethod
    def begin(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> "Descent":
        """Curves before the first step."""
        return Descent.of(nodes, space.expand_energy(nodes), MARQUARDT.first)

    @staticmethod
    def of(nodes: Float[Tensor, "p n d"], at: QuadraticModel, damping: float) -> "Descent":
        """Curves of which the expansion is known."""
        begin = replace(MARQUARDT, first=damping).begin(at.energy)
        return Descent(nodes=nodes, at=at, minima=torch.ones_like(begin["steps"]), **begin)

    @property
    def stalled(self) -> Bool[Tensor, " p"]:
        """Which curves no step improves."""
        return self.damping > MARQUARDT.limit

    def result(self, tol: float) -> SearchResult:
        """How the descent ended."""
        at = self.at
        finite = torch.isfinite(at.energy) & torch.isfinite(at.residual)
        status = statuses(
            Status.MAX_STEPS,
            (Status.STALLED, self.stalled),
            (Status.ROUNDING, reached(at.residual, at.rounding, tol)),
            (Status.CONVERGED, at.residual <= tol),
            (Status.DEGENERATE, ROUNDING_MARGIN * at.rounding >= 1),
            (Status.NON_FINITE, ~finite & ~(torch.isinf(at.residual) & torch.isfinite(at.energy))),
        )
        excess = torch.zeros_like(at.energy)
        loose = (~(at.residual <= EXACT) & finite).nonzero().squeeze(1)
        if len(loose):
            excess[loose] = _excess(at[loose], at.residual[loose] <= tol)
        return SearchResult(
            nodes=self.nodes,
            energy=at.energy,
            residual=at.residual,
            rounding=at.rounding,
            speed_ratio=at.speed_ratio,
            iterations=self.steps,
            status=status,
            order=at.order,
            excess=excess,
            minima=self.minima,
        )


def reached(residual: Tensor, rounding: Tensor, tol: float) -> Bool[Tensor, " p"]:
    """Which residuals are below the tolerance, or as low as rounding errors let them be."""
    return residual <= (ROUNDING_MARGIN * rounding).clamp(min=tol)


def descend(space: DiscreteEnergy, start: Descent, tol: float, max_steps: int) -> Descent:
    """Minimise the energy of each curve over its inner nodes, end points fixed.

    A step solves ``(H + λD) s = -g`` with the exact Hessian H and, curve by curve, a damping λ in units of the
    Gauss-Newton diagonal D: it grows until the matrix is positive definite and the energy falls, and shrinks as the
    quadratic model proves right. The expansion at an accepted trial is that of the next step.

    Args:
        space: where the curves live.
        start: where they begin.
        tol: the residual at which a curve is done.
        max_steps: the number of steps, those before the start included, at which it gives up.
    """
    return damped_newton(_BandedDescent(space, tol), start, MARQUARDT, max_steps)


@dataclass(frozen=True, eq=False)
class _BandedDescent:
    """Steps with factors of banded Hessians."""

    space: DiscreteEnergy
    tol: float

    def done(self, now: Descent) -> Bool[Tensor, " p"]:
        at = now.at
        finite = (at.energy.abs() < torch.inf) & (at.residual.abs() < torch.inf)
        return reached(at.residual, at.rounding, self.tol) | ~finite

    def step(self, now: Descent) -> tuple[Descent, Tensor, Tensor]:
        x, at = now.nodes, now.at
        step, damping = _damped_step(at, now.damping)
        predicted = (step * (damping.view(-1, 1, 1) * at.damping * step - at.gradient)).flatten(1).sum(1) / 2
        trial = torch.cat([x[:, :1], x[:, 1:-1] + step, x[:, -1:]], 1)
        new = self.space.expand_energy(trial)
        good, factor = judged(at.energy, new.energy, predicted, energy_rounding(at), new.residual < at.residual)
        moved = torch.where(good.view(-1, 1, 1), trial, x)
        return now.changed(nodes=moved, at=new.where(good, at), damping=damping), good, factor


def energy_rounding(at: QuadraticModel) -> Float[Tensor, " p"]:
    """Bound on the rounding error of the energy."""
    eps = torch.finfo(at.energy.dtype).eps
    return at.energy * (4 * eps + ROUNDING_MARGIN * at.rounding)


def _damped_step(at: QuadraticModel, damping: Tensor) -> tuple[Tensor, Tensor]:
    """``-(H + λD)⁻¹ g`` with the least damping, from the given one upwards, that makes the matrix positive definite."""
    step, good = _solved(at, damping)
    if not bool(good.all()):
        todo = (~good).nonzero().squeeze(1)
        while len(todo):
            damping = damping.index_put((todo,), (8 * damping[todo]).clamp(min=1e-3))
            again, good = _solved(at[todo], damping[todo])
            step = step.index_put((todo,), again)
            todo = todo[~good]
    return step.nan_to_num(0.0, 0.0, 0.0), damping


def _solved(at: QuadraticModel, damping: Tensor) -> tuple[Tensor, Tensor]:
    """``-(H + λD)⁻¹ g``, and where it may be taken: the matrix is positive definite, or more damping is of no use."""
    # a direction in which moving a node changes nothing still needs some damping
    unit = at.damping.clamp(min=1e-12 * at.damping.flatten(1).amax(1).view(-1, 1, 1))
    factor = at.hessian.shifted(damping.view(-1, 1, 1) * unit).cholesky()
    step = -factor.solve(at.gradient)
    finite = step.abs().flatten(1).amax(1) < torch.inf
    return step, (factor.good & finite) | (damping > MARQUARDT.limit)


def _excess(at: QuadraticModel, done: Tensor) -> Float[Tensor, " p"]:
    """Half the Newton decrement, ``½ gᵀ H⁻¹ g``: how far energies lie above the minima near them.

    Where H is not positive definite no minimum is in sight: infinite, unless the curve is done.
    """
    factor = at.hessian.cholesky()
    decrement = (at.gradient * factor.solve(at.gradient)).flatten(1).sum(1) / 2
    known = factor.good & torch.isfinite(decrement)
    return torch.where(known, decrement.clamp(min=0), torch.where(done, 0.0, torch.inf))
