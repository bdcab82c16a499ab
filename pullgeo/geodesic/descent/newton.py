"""Damped Newton steps on many curves at once, until each is a minimiser of the discrete energy or cannot go on."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.energy.base import QuadraticModel, Space
from pullgeo.numerics.batch import Batch

STALL = 1e6
"""Damping, in units of the Gauss-Newton diagonal, beyond which a step that does not help says that none will."""

ROUNDING_MARGIN = 8.0
"""How far above the estimate of rounding errors a residual may still be nothing but rounding."""

_LEAST_DAMPING, _FIRST_DAMPING = 1e-12, 1e-2


@dataclass(frozen=True, eq=False)
class Descent(Batch):
    """Curves as damped Newton steps leave them.

    Attributes:
        nodes: the curves.
        at: the energy's expansion there.
        damping: λ, in units of the Gauss-Newton diagonal.
        steps: steps taken or tried.
    """

    nodes: Float[Tensor, "p n d"]
    at: QuadraticModel
    damping: Float[Tensor, " p"]
    steps: Int[Tensor, " p"]

    @staticmethod
    def begin(space: Space, nodes: Float[Tensor, "p n d"]) -> "Descent":
        """Curves before the first step."""
        at = space.expand_energy(nodes)
        steps = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
        return Descent(nodes, at, torch.full_like(at.energy, _FIRST_DAMPING), steps)

    @property
    def stalled(self) -> Bool[Tensor, " p"]:
        """Which curves no step improves."""
        return self.damping > STALL


def reached(residual: Tensor, rounding: Tensor, tol: float) -> Bool[Tensor, " p"]:
    """Which residuals are below the tolerance, or as low as rounding errors let them be."""
    return residual <= (ROUNDING_MARGIN * rounding).clamp(min=tol)


def descend(space: Space, start: Descent, tol: float, max_steps: int) -> Descent:
    """Minimise the energy of each curve over its inner nodes, end points fixed.

    A step solves ``(H + λD) s = -g`` with the exact Hessian H and, curve by curve, a damping λ in units of the
    Gauss-Newton diagonal D: it grows until the matrix is positive definite and the energy falls, and shrinks as the
    quadratic model proves right. Where the predicted gain drowns in the energy's rounding errors the residual decides
    instead. Curves that are done leave the batch. The expansion at an accepted trial is that of the next step.

    Args:
        space: where the curves live.
        start: where they begin.
        tol: the residual at which a curve is done.
        max_steps: the number of steps, those before the start included, at which it gives up.

    Source: damping after Nielsen, *Damping Parameter in Marquardt's Method*, 1999.
    """
    index = torch.arange(len(start.nodes), device=start.nodes.device)
    now, growth = start, torch.full_like(start.damping, 2.0)
    left, indices = [], []
    while True:
        at = now.at
        done = now.stalled | reached(at.residual, at.rounding, tol) | (now.steps >= max_steps)
        done = done | ~(torch.isfinite(at.energy) & torch.isfinite(at.residual))
        left.append(now[done])
        indices.append(index[done])
        stay = ~done
        if not bool(stay.any()):
            break
        if bool(done.any()):
            index, now, growth = index[stay], now[stay], growth[stay]
        now, growth = _step(space, now, growth)
    return Descent.cat(left)[torch.cat(indices).argsort()]


def _step(space: Space, now: Descent, growth: Tensor) -> tuple[Descent, Tensor]:
    x, at = now.nodes, now.at
    step, damping = _damped_step(at, now.damping)
    predicted = -(at.gradient * step).flatten(1).sum(1) / 2
    predicted = predicted + damping * (at.damping * step.square()).flatten(1).sum(1) / 2
    trial = torch.cat([x[:, :1], x[:, 1:-1] + step, x[:, -1:]], 1)
    new = space.expand_energy(trial)
    gain = (at.energy - new.energy) / predicted
    drowned = predicted < energy_rounding(at)
    falls = (new.residual < at.residual) & (new.energy <= at.energy + energy_rounding(at))
    accepted = torch.where(drowned, falls, gain > 1e-4)
    factor = (1 - (2 * gain - 1) ** 3).clamp(0.1, 2.0)
    factor = torch.where(drowned | (gain > 0.9), 1 / 30, factor)
    damping = torch.where(accepted, (damping * factor).clamp(min=_LEAST_DAMPING), damping * growth)
    growth = torch.where(accepted, 2.0, 2 * growth)
    moved = torch.where(accepted.view(-1, 1, 1), trial, x)
    return Descent(moved, new.where(accepted, at), damping, now.steps + 1), growth


def energy_rounding(at: QuadraticModel) -> Float[Tensor, " p"]:
    """Bound on the rounding error of the energy."""
    eps = torch.finfo(at.energy.dtype).eps
    return at.energy * (4 * eps + ROUNDING_MARGIN * at.rounding)


def _damped_step(at: QuadraticModel, damping: Tensor) -> tuple[Tensor, Tensor]:
    """``-(H + λD)⁻¹ g`` with the least damping, from the given one upwards, that makes the matrix positive definite."""
    step = torch.zeros_like(at.gradient)
    todo = torch.arange(len(damping), device=damping.device)
    while len(todo):
        part = at if len(todo) == len(damping) else at[todo]
        # a direction in which moving a node changes nothing still needs some damping
        unit = part.damping.clamp(min=1e-12 * part.damping.flatten(1).amax(1)[:, None, None])
        factor = part.hessian.shifted(damping[todo].view(-1, 1, 1) * unit).cholesky()
        solution = -factor.solve(part.gradient)
        good = (factor.good & torch.isfinite(solution).flatten(1).all(1)) | (damping[todo] > STALL)
        step[todo[good]] = solution[good]
        todo = todo[~good]
        damping = damping.index_put((todo,), (8 * damping[todo]).clamp(min=1e-3))
    return torch.where(torch.isfinite(step), step, 0.0), damping
