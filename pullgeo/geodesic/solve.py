"""The entry point: a problem and a solver in, a solution out."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.checkpoint import checkpoints_kept
from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.base import DiscreteEnergy, GuardedEnergy, HeldEnergy, MetricEnergy
from pullgeo.geodesic.energy.near import Near, near_energy, near_pairs
from pullgeo.geodesic.error_estimate import SETTINGS, longer_than_line, noise, unseen
from pullgeo.geodesic.extrapolated import extrapolated, root
from pullgeo.geodesic.implicit_diff import differentiable
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.single_precision import single_precision
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solver import Discretising, Refining, SearchResult, Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.numerics.progress import with_progress

LOOSE = 0.02
"""Relative error estimate from which on a curve is solved once more with twice the segments."""

UNSEEN_ENDS = (Status.DEGENERATE, Status.STALLED, Status.MAX_STEPS, Status.MISSED)
"""Ends of searches that may have seen nothing but rounding errors."""


@with_progress()
@checkpoints_kept()  # solvers take gradients of the decoder, which reentrant checkpoints refuse
def solve(problem: BoundaryValue, solver: Solver | None = None, *, progress: bool = False) -> Solution:
    """Find the geodesics between the pairs of a problem.

    All arithmetic is in float64, whatever the precision of the decoder and the end points; results come in the end
    points' dtype. Where gradients are enabled and asked for, curve, length and energy are differentiable with respect
    to end points and weights by the implicit function theorem.

    Args:
        problem: the manifold and the pairs.
        solver: how to find them; ``Newton()`` if ``None``.
        progress: show a progress bar, counting steps.

    Raises:
        OptionError: ``solver`` is not a solver.

    Example:
        >>> import torch
        >>> from pullgeo import BoundaryValue, Newton, PullbackManifold, solve
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> problem = BoundaryValue(PullbackManifold(decoder), torch.zeros(3, 2), torch.ones(3, 2))
        >>> solve(problem, Newton(tol=1e-8, segments=32))
        Solution(3 pairs: 3 CONVERGED)
    """
    solver = solver if solver is not None else Newton()
    if isinstance(solver, type) or not isinstance(solver, Solver):
        raise OptionError(
            f"solve: solver must be a solver with its options, such as Newton(segments=32), got {solver!r}."
        )
    manifold = problem.manifold.held(problem.z0) if isinstance(problem.manifold, HeldEnergy) else problem.manifold
    space, z0, z1 = manifold.in_double(), problem.z0.double(), problem.z1.double()
    if isinstance(solver, Discretising):
        space = solver.discretised(space)
    with torch.no_grad():
        if isinstance(guarded := space, GuardedEnergy):
            guarded.check_ends(torch.cat([z0, z1]))
        near = space if isinstance(solver, Discretising) else single_precision(manifold, space, z0)
        found = solver.minimise(space, near, z0.detach(), z1.detach())
    solution = _solution(space, near, found, z0, z1, problem.z0.dtype)
    if isinstance(solver, Refining):
        solution = _refined(space, solver, solution, z0, z1)
    return _finite_between(solution)


def _finite_between(solution: Solution) -> Solution:
    """The solution, where curves that are finite at their nodes alone have not converged."""
    lost = torch.isinf(solution.error_estimate).tolist()
    if not any(lost):
        return solution
    # the estimate is infinite for degenerate curves too, which are what they are said to be
    status = [
        Status.NON_FINITE if bad and s is Status.CONVERGED else s for bad, s in zip(lost, solution.status, strict=True)
    ]
    return replace(solution, status=tuple(status))


def _solution(
    space: DiscreteEnergy,
    near: DiscreteEnergy,
    found: SearchResult,
    z0: Float[Tensor, "p d"],
    z1: Float[Tensor, "p d"],
    dtype: torch.dtype,
) -> Solution:
    same = (z0 == z1).all(1)
    # the geodesic between equal points is the point, whatever rounding errors a search has left there
    still = z0.detach().unsqueeze(1).expand_as(found.nodes)
    found = replace(found, nodes=torch.where(same[:, None, None], still, found.nodes))
    found, tight = _known_by_metric(space, found)
    status = tuple(Status.COINCIDENT if point else end for point, end in zip(same.tolist(), found.status, strict=True))
    nodes, energy, coarse_energy = differentiable(space, found, z0, z1)
    if len(tight.index) and isinstance(space, MetricEnergy):
        exact = near_energy(space, z0[tight.index], z1[tight.index])
        energy, coarse_energy = (e.index_put((tight.index,), exact) for e in (energy, coarse_energy))
    # second derivatives do not vanish with the energy
    energy, coarse_energy = (torch.where(same, _zero(e), e) for e in (energy, coarse_energy))
    # the same curve seen with every second node: the two lengths tell by how much discretisation has changed it
    fine, coarse = root(energy.detach()), root(coarse_energy.detach())
    change = (fine - coarse).abs()
    # an energy of first order is there to be compared with, as it is; and rounding errors are not to be extrapolated
    gain = 2**found.order - 1 if found.order > 1 else torch.inf
    share = torch.where(change > SETTINGS.rounding * noise(space, space, found, fine), 1 / gain, 0.0)
    length = extrapolated(energy, coarse_energy, share)
    # a curve too coarse for its bends does not show the order that extrapolation trusts in: assume the least there is
    doubt = change / (3 if found.order > 1 else 1)
    doubt = torch.maximum(doubt, unseen(space, near, found, fine, coarse))
    doubt = doubt + torch.where(fine > 0, found.rounding * fine, 0.0)
    doubt = doubt + torch.where(fine > 0, found.excess / torch.where(fine > 0, 2 * fine, 1.0), 0.0)
    doubt = doubt.index_put((tight.index,), tight.error)
    # of an energy that vanishes the gradient tells nothing, and its scale-free norm is infinite
    flat = torch.tensor([s is Status.DEGENERATE for s in status], dtype=torch.bool, device=same.device)
    return Solution(
        curve=DiscreteCurve(nodes.to(dtype)),
        length=length.to(dtype),
        energy=energy.to(dtype),
        status=status,
        iterations=found.iterations,
        residual=torch.where(same | flat, 0.0, found.residual).to(dtype),
        error_estimate=doubt.to(dtype),
        speed_ratio=found.speed_ratio.to(dtype),
        minima=found.minima,
    )


def _known_by_metric(space: DiscreteEnergy, found: SearchResult) -> tuple[SearchResult, Near]:
    """The result where the end points are too near for outputs, and which pairs these are.

    As long as rounding errors are all that is seen of such a curve, its residual says nothing: it is the line.
    """
    x, y, segments = found.nodes[:, 0], found.nodes[:, -1], found.nodes.shape[1] - 1
    near = near_pairs(space, x, y, found.energy, found.rounding, segments)
    vanishing = ((x != y).any(1) & (found.energy == 0)).index_put((near.index,), near.degenerate)
    ends = dict.fromkeys(near.index.tolist(), Status.ROUNDING)
    ends |= dict.fromkeys(vanishing.nonzero().flatten().tolist(), Status.DEGENERATE)
    status = list(found.status)
    for i, end in ends.items():
        if status[i] in UNSEEN_ENDS or (end is Status.DEGENERATE and status[i].converged):
            status[i] = end
    lines = straight_line(x[near.index], y[near.index], segments).nodes
    return replace(found, nodes=found.nodes.index_put((near.index,), lines), status=tuple(status)), near


def _refined(space: DiscreteEnergy, solver: Refining, solution: Solution, z0: Tensor, z1: Tensor) -> Solution:
    """The solution with more segments for the pairs whose error estimate is too large."""
    index = list(range(len(solution)))
    parts: list[Solution] = []
    places: list[int] = []
    rtol = torch.inf if solver.rtol is None else float(solver.rtol)
    loose = min(LOOSE, rtol)
    while True:
        relative = solution.error_estimate / solution.length.detach()
        coarse = (relative > rtol) | longer_than_line(space, solution)
        able = solver.rtol is not None and 2 * solution.curve.segments <= solver.max_segments
        wide = coarse | (relative > loose)
        # once is cheap, and lets curves settle that are only a little too coarse
        loose = rtol
        converged = [status is Status.CONVERGED for status in solution.status]
        again = [i for i, one in enumerate(wide.tolist()) if one and converged[i] and able]
        if not able:
            bad = (coarse & torch.isfinite(relative)).tolist()
            status = [Status.COARSE if bad[i] and converged[i] else end for i, end in enumerate(solution.status)]
            solution = replace(solution, status=tuple(status))
        kept = sorted(set(range(len(solution))) - set(again))
        parts.append(solution[kept])
        places.extend(index[i] for i in kept)
        if not again:
            break
        index = [index[i] for i in again]
        before = solution[again]
        with torch.no_grad():
            found = solver.refined(space, before.curve.nodes.detach().double())
        solution = _solution(space, space, found, z0[index], z1[index], before.length.dtype)
        solution = replace(
            solution,
            iterations=solution.iterations + before.iterations,
            minima=before.minima,
        )
    return Solution.cat(parts)[torch.tensor(places).argsort().tolist()]


def _zero(energy: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Zeros with the derivatives of the energies, where these are finite."""
    return torch.where(torch.isfinite(energy), energy - energy.detach(), 0.0)
