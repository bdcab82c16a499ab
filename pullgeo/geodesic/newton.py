"""Newton's method on all inner nodes of a discrete curve at once: the default solver."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic.block_tridiagonal import BlockTridiagonal
from pullgeo.geodesic.space import EnergyExpansion, Space
from pullgeo.geodesic.start import Corridor, Start
from pullgeo.geodesic.status import Status


@dataclass(frozen=True, eq=False)
class Level:
    """Curves of one resolution, as a solver leaves them."""

    nodes: Float[Tensor, "p n d"]
    energy: Float[Tensor, " p"]
    residual: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]
    iterations: Tensor
    status: tuple[Status, ...]


@dataclass(frozen=True, eq=False)
class Newton:
    """Newton's method with Levenberg-Marquardt damping on the exact block-tridiagonal Hessian of the discrete energy.

    Every pair has its own damping, step count and status; pairs that have converged leave the batch. A step is taken
    only if it lowers the energy (or, at the rounding level of the energy, the residual), so no curve ends longer than
    it began.

    Curves with T segments descend from the start; where there are several, all of them until they can be told apart,
    and the shortest goes on. The result is refined to 2T by cubic interpolation and finished there. The lengths at the
    two resolutions give ``d = (4 d_2T - d_T) / 3`` with the error estimate ``|d_2T - d_T| / 3``.

    A minimiser is local: several starts find the shortest curve more often than one, and none guarantees it.

    Args:
        tol: bound on the residual ``‖gradient‖ / (max_i ‖J_i‖ ‖Δ‖)``, which no rescaling changes.
        segments: T, at least 2; the curves that are returned have 2T.
        max_steps: bound on the steps at each of the two resolutions.
        starts: curves to begin with; the best of them goes on.

    Raises:
        OptionError: a field is out of its range.

    Source: damping after Nielsen, *Damping Parameter in Marquardt's Method*, 1999.
    """

    tol: float = 1e-8
    segments: int = 32
    max_steps: int = 200
    starts: tuple[Start, ...] = (Corridor(),)

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1:
            raise OptionError(f"Newton: tol must lie between 0 and 1, got {self.tol}.")
        if self.segments < 2:
            raise OptionError(f"Newton: segments must be at least 2, got {self.segments}.")
        if self.max_steps < 1:
            raise OptionError(f"Newton: max_steps must be at least 1, got {self.max_steps}.")
        if not self.starts:
            raise OptionError("Newton: starts must name at least one way to begin, such as (Line(),).")

    def levels(self, space: Space, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]) -> tuple[Level, Level]:
        """Discrete geodesics with T and with 2T segments.

        Raises:
            ShapeError: given starts do not fit the pairs.
        """
        begun = [start.curves(space, z0, z1, self.segments) for start in self.starts]
        nodes, searched = self._best(space, [curve.nodes for curve in begun])
        coarse = minimise(space, nodes, self.tol, self.max_steps)
        refined = DiscreteCurve(coarse.nodes).resample(2 * self.segments)
        fine = minimise(space, refined.nodes, self.tol, self.max_steps)
        return coarse, replace(fine, iterations=searched + coarse.iterations + fine.iterations)

    def _best(self, space: Space, begun: list[Tensor]) -> tuple[Tensor, Tensor]:
        if len(begun) == 1:
            return begun[0], torch.zeros(len(begun[0]), dtype=torch.long, device=begun[0].device)
        races = [minimise(space, nodes, TOLD_APART, self.max_steps) for nodes in begun]
        # the energy of these nodes alone would favour a curve whose chords cut through a bend
        energies = [space.energy(DiscreteCurve(race.nodes).resample(4 * self.segments).nodes) for race in races]
        winner = torch.stack([torch.where(torch.isfinite(e), e, torch.inf) for e in energies]).argmin(0)
        nodes = torch.stack([race.nodes for race in races])[winner, torch.arange(len(winner), device=winner.device)]
        return nodes, torch.stack([race.iterations for race in races]).sum(0)


TOLD_APART = 1e-3
"""Residual at which the energies of curves from different starts tell which is the shortest."""


_RESULTS = ("energy", "residual", "speed_ratio")


def minimise(space: Space, nodes: Float[Tensor, "p n d"], tol: float, max_steps: int) -> Level:
    """Minimise the discrete energy of each curve over its inner nodes."""
    p = len(nodes)
    result = nodes.clone()
    final = {name: nodes.new_full((p,), torch.nan) for name in _RESULTS}
    iterations = torch.zeros(p, dtype=torch.long, device=nodes.device)
    status = [Status.MAX_STEPS] * p
    active = torch.arange(p, device=nodes.device)
    x, at = nodes, space.expand_energy(nodes)
    damping, growth = nodes.new_full((p,), 1e-3), nodes.new_full((p,), 2.0)
    for step in range(max_steps + 1):
        ended = _ended(at, damping, tol)
        if step == max_steps:
            ended = {Status.MAX_STEPS: torch.ones_like(damping, dtype=torch.bool)} | ended
        leaving = torch.zeros_like(damping, dtype=torch.bool)
        for reason, which in ended.items():
            leaving |= which
            for i in active[which].tolist():
                status[i] = reason
        result[active[leaving]] = x[leaving]
        for name in _RESULTS:
            final[name][active[leaving]] = getattr(at, name)[leaving]
        stay = ~leaving
        if not bool(stay.any()):
            break
        if bool(leaving.any()):
            active, x, at, damping, growth = active[stay], x[stay], at[stay], damping[stay], growth[stay]
        iterations[active] += 1
        x, at, damping, growth = _step(space, x, at, damping, growth)
    return Level(result, **final, iterations=iterations, status=tuple(status))


STALL = 1e12
"""Damping, in units of the Gauss-Newton diagonal, at which a step no longer moves a node beyond rounding."""


def _ended(at: EnergyExpansion, damping: Tensor, tol: float) -> dict[Status, Tensor]:
    finite = torch.isfinite(at.energy) & torch.isfinite(at.residual)
    converged = at.residual < tol
    return {
        Status.STALLED: ~converged & (damping > STALL),
        Status.CONVERGED: converged,
        Status.NON_FINITE: ~finite,
    }


def _step(
    space: Space, x: Tensor, at: EnergyExpansion, damping: Tensor, growth: Tensor
) -> tuple[Tensor, EnergyExpansion, Tensor, Tensor]:
    step, damping = _damped_step(at, damping)
    predicted = -(at.gradient * step).flatten(1).sum(1) / 2
    predicted = predicted + (damping.view(-1, 1, 1) * at.damping * step.square()).flatten(1).sum(1) / 2
    trial = torch.cat([x[:, :1], x[:, 1:-1] + step, x[:, -1:]], 1)
    new = space.expand_energy(trial)
    gain = (at.energy - new.energy) / predicted
    # below the rounding of the energy only the residual can tell whether a step was good
    rounding = predicted < 1e-13 * at.energy
    accepted = torch.where(rounding, new.residual < at.residual, gain > 1e-4)
    shrunk = damping * torch.where(rounding, 0.1, (1 - (2 * gain - 1) ** 3).clamp(0.1, 2.0))
    damping = torch.where(accepted, shrunk.clamp(min=1e-12), damping * growth)
    growth = torch.where(accepted, 2.0, 2 * growth)
    keep = accepted.view(-1, 1, 1)
    return torch.where(keep, trial, x), new.where(accepted, at), damping, growth


def _damped_step(at: EnergyExpansion, damping: Tensor) -> tuple[Tensor, Tensor]:
    """``-(H + λD)⁻¹ g`` with the least damping, from the given one upwards, that makes the matrix positive definite."""
    step = torch.zeros_like(at.gradient)
    todo = torch.arange(len(damping), device=damping.device)
    while len(todo):
        shift = (damping[todo].view(-1, 1, 1) * at.damping[todo]).diag_embed()
        system = BlockTridiagonal(at.diagonal[todo] + shift, at.off_diagonal[todo])
        solution, good = system.cholesky_solve(-at.gradient[todo])
        good = good | (damping[todo] > STALL)
        step[todo[good]] = solution[good]
        todo = todo[~good]
        damping = damping.index_put((todo,), (4 * damping[todo]).clamp(min=1e-3))
    return torch.where(torch.isfinite(step), step, 0.0), damping
