"""Means of points on a manifold."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.geodesic.descent.newton_cg import LARGE
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_count, check_manifold, check_tolerance
from pullgeo.stats.centers.approach import Approach
from pullgeo.stats.centers.found import Found, FoundCurves, followed, statuses
from pullgeo.stats.centers.newton import Power, derivatives, search
from pullgeo.stats.centers.star import Star, eliminate, energies, expand
from pullgeo.stats.points import Points, as_numbers, as_points

SHORTER = 1e-6
"""Relative difference of lengths from which another curve between the same points is the better one."""

ROUNDS = 3
"""How often shorter curves, found from the mean, may start the search again."""

Groups = Int[Tensor, " n"] | Int[np.ndarray, " n"] | list[int]


@dataclass(frozen=True, eq=False)
class FrechetMean:
    """Centres of groups of points, and the geodesics from them.

    Attributes:
        point: the means, or medians, one for each group.
        variance: ``Σ w d² / Σ w``, the weighted mean squared distance from the centre, with the discrete energies that
            are minimised for ``d²``.
        group: the number of each point's group.
        label: the label that each group had in the argument, ascending.
        geodesics: the curves from the centre to each point, with their lengths, error estimates and statuses.
        status: how the search ended for each group; its text says what to do.
        residual: the norm of the weighted mean of the unit-time velocities ``log_p(z_i)``, over the mean of their norms
            (for a median, of their directions); or the largest residual of a curve, if that is larger.
        iterations: steps taken.
    """

    point: Float[Tensor, "g d"]
    variance: Float[Tensor, " g"]
    group: Int[Tensor, " n"]
    label: Int[Tensor, " g"]
    geodesics: Solution
    status: tuple[Status, ...]
    residual: Float[Tensor, " g"]
    iterations: Int[Tensor, " g"]

    @property
    def converged(self) -> Bool[Tensor, " g"]:
        """Whether each group's centre is stationary, and all curves to it are geodesics, to the tolerance."""
        return torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.point.device)


@with_progress()
def frechet_mean(
    manifold: Manifold,
    points: Points,
    weights: Tensor | np.ndarray | None = None,
    groups: Groups | None = None,
    *,
    start: Points | None = None,
    solver: Solver | None = None,
    tol: float = 1e-8,
    max_steps: int = 100,
    progress: bool = False,
) -> FrechetMean:
    """Fréchet means ``argmin_p Σ w_i d²(p, z_i)``, of one group of points or of many at once.

    The mean and all curves that lead to it are the unknowns of one Newton system. Each curve's blocks are eliminated on
    their own, and their Schur complements add up to a d x d system for the mean, so that a step costs about as much as
    a step of the geodesics does. Curves that do not follow a step go on by themselves, so that one that bends sharply
    does not hold up the others. With `Newton` the neighbourhood of the mean is found with few segments first, in single
    precision; all curves are searched for from there, and again if the mean moves by more than a hundredth of the root
    of the variance since. With other solvers they are searched for again from the mean that is found, and if some of
    them turn out shorter the search goes on with these.

    With the default solver one or two last steps are taken with three times the segments: on spheres they leave a mean
    tangent below 1e-9, relative to the mean distance. Groups with curves that bend so sharply that few steps would not
    do, of which the length changes by more than 1e-4 with half of the nodes, keep the segments of the solver, and so
    does a group that does not converge in these steps.

    The mean is differentiable with respect to points, weights and the decoder's parameters by the implicit function
    theorem (first derivatives), and so is the variance. A minimiser is local: with points far apart, several ``start``
    may lead to several means, of which that with the least variance is the mean.

    Args:
        manifold: where the points live.
        points: ``(n, d)``, tensor or numpy array.
        weights: ``(n,)``, not negative; all 1 if ``None``. Points with weight 0 do not move the mean.
        groups: ``(n,)`` whole numbers, which points belong together; one group if ``None``.
        start: ``(g, d)``, where to begin, in the order of ascending labels; the weighted means of the latents if
            ``None``.
        solver: how the geodesics are found, and with how many segments from first to last; ``Newton()``, and three
            times its segments at the end, if ``None``.
        tol: bound on the residual.
        max_steps: bound on the number of steps, before those at the end.
        progress: show a progress bar, counting steps.

    Raises:
        ShapeError, DtypeError, NonFiniteError: points, weights, groups or start are not as described above.
        OptionError: weights are negative, or all zero in a group; groups are no whole numbers.

    Source: Karcher, *Riemannian Center of Mass and Mollifier Smoothing*, 1977 (existence and uniqueness).

    Example:
        >>> from pullgeo import PullbackManifold
        >>> plane = PullbackManifold(torch.nn.Linear(2, 3).double())
        >>> z = torch.randn(7, 2, dtype=torch.float64)
        >>> bool(torch.allclose(frechet_mean(plane, z).point[0], z.mean(0)))  # flat
        True
        >>> frechet_mean(plane, z, groups=[0, 0, 1, 1, 1, 2, 2]).point.shape
        torch.Size([3, 2])
    """
    return center("frechet_mean", manifold, points, weights, groups, start, solver, tol, max_steps, power=2)


def center(
    where: str,
    manifold: Manifold,
    points: Points,
    weights: Tensor | np.ndarray | None,
    groups: Groups | None,
    start: Points | None,
    solver: Solver | None,
    tol: float,
    max_steps: int,
    power: Power,
) -> FrechetMean:
    """The points that minimise ``Σ w d^power``; arguments are those of `frechet_mean`."""
    check_manifold(where, manifold)
    check_tolerance(where, tol)
    check_count(where, "max_steps", max_steps, 0)
    plain = as_points(where, points, name="points")
    # the points as they came, with the graph behind them
    z = (points if isinstance(points, Tensor) and points.is_floating_point() else plain).double()
    label, group = _groups(where, groups, plain)
    w = checked_weights(where, weights, z, group, len(label))
    with torch.no_grad():
        space = manifold.in_double()
        p = _start(where, start, z.detach(), w.detach(), group, len(label))
        chosen = solver if solver is not None else Newton()
        if power == 2 and isinstance(chosen, Newton) and z.shape[1] < LARGE:
            approach = Approach.to(manifold, z.detach(), chosen, tol, max_steps)
            parts = approach.means(p, z.detach(), group, w.detach(), finish=solver is None)
        else:
            parts = [_searched(manifold, space, p, z.detach(), group, w.detach(), chosen, power, tol, max_steps)]
    ends = [_attached(manifold, part, z[part.members.place], w[part.members.place], power) for part in parts]
    order = torch.cat([part.number for part in parts]).argsort()
    places = torch.cat([part.members.place for part in parts]).argsort()
    status = [end for part in parts for end in part.status]
    return FrechetMean(
        point=torch.cat([point for point, _ in ends])[order].to(plain.dtype),
        variance=torch.cat([variance for _, variance in ends])[order].to(plain.dtype),
        group=group,
        label=label,
        geodesics=Solution.cat([part.members.geodesics for part in parts])[places.tolist()],
        status=tuple(status[g] for g in order.tolist()),
        residual=torch.cat([part.residual for part in parts])[order].to(plain.dtype),
        iterations=torch.cat([part.iterations for part in parts])[order],
    )


def _searched(
    manifold: Manifold,
    space: Manifold,
    p: Tensor,
    z: Tensor,
    group: Tensor,
    w: Tensor,
    solver: Solver,
    power: Power,
    tol: float,
    max_steps: int,
) -> Found:
    """Centres to which any solver finds the curves."""
    solution = manifold.geodesic(p[group], z, solver)
    steps = torch.zeros(len(p), dtype=torch.long, device=z.device)
    star = Star.of(p, solution.curve.nodes[:, 1:-1], z, group)
    for _ in range(ROUNDS):
        star, end = search(space, space, star, w, power, tol, max_steps)
        residual, steps = end.residual, steps + end.steps
        solution, shorter = _geodesics(manifold, star, solver, tol)
        if not bool((shorter & (w > 0)).any()):
            break
        star = star.through(star.p, solution.curve.nodes[:, 1:-1])
    else:
        residual = torch.where(star.most((shorter & (w > 0)).double()) > 0, torch.inf, residual)
    return Found(
        p=star.p,
        group=star.group,
        members=FoundCurves(
            inner=star.members.inner,
            z=star.members.z,
            place=torch.arange(len(z), device=z.device),
            geodesics=solution,
        ),
        number=torch.arange(len(p), device=z.device),
        status=statuses(star, solution, w, residual, end.stalled, tol),
        residual=residual,
        iterations=steps,
    )


def checked_weights(
    where: str, weights: Tensor | np.ndarray | None, z: Tensor, group: Tensor, count: int
) -> Float[Tensor, " n"]:
    """Weights in float64, with the graph behind them.

    Raises:
        ShapeError: there is not one for each point.
        DtypeError: they are no real numbers.
        NonFiniteError: one is NaN or infinite.
        OptionError: one is negative, or all are zero in a group.
    """
    if weights is None:
        return torch.ones_like(z[:, 0]).detach()
    w = as_numbers(where, weights, name="weights", like=z)
    if w.shape != z.shape[:1]:
        raise ShapeError(f"{where}: weights must have shape ({len(z)},), one for each point, got {tuple(w.shape)}.")
    if not bool(torch.isfinite(w).all()):
        raise NonFiniteError(f"{where}: weights hold NaN or infinity.")
    total = w.detach().new_zeros(count).index_add(0, group, w.detach())
    if bool((w < 0).any()) or bool((total == 0).any()):
        raise OptionError(f"{where}: weights must not be negative, nor all zero in a group.")
    return w


def _groups(where: str, groups: Groups | None, z: Tensor) -> tuple[Tensor, Tensor]:
    if groups is None:
        zero = torch.zeros(len(z), dtype=torch.long, device=z.device)
        return zero[:1], zero
    fix = "Number other labels: np.unique(groups, return_inverse=True)[1]."
    try:
        labels = torch.as_tensor(groups, device=z.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{where}: groups must be {len(z)} whole numbers, one for each point, got {type(groups).__name__}: "
            f"{error}. {fix}"
        ) from error
    if labels.is_floating_point() or labels.is_complex():
        raise OptionError(f"{where}: groups must be {len(z)} whole numbers, got {labels.dtype}. {fix}")
    if labels.shape != z.shape[:1]:
        raise ShapeError(
            f"{where}: groups must be {len(z)} whole numbers, one for each point, got shape {tuple(labels.shape)}."
        )
    label, group = labels.long().unique(return_inverse=True)
    return label, group


def _start(where: str, start: Points | None, z: Tensor, w: Tensor, group: Tensor, count: int) -> Tensor:
    if start is None:
        total = w.new_zeros(count).index_add(0, group, w)
        # from the first point of each group, so that the mean of equal points is the point to the last bit
        first = z[[int((group == g).nonzero()[0]) for g in range(count)]]
        away = w.unsqueeze(1) * (z - first[group])
        return first + torch.zeros_like(first).index_add(0, group, away) / total.unsqueeze(1)
    p = as_points(where, start, name="start").to(z)
    if p.shape != (count, z.shape[1]):
        raise ShapeError(f"{where}: start must have shape {(count, z.shape[1])}, got {tuple(p.shape)}.")
    return p


def _geodesics(manifold: Manifold, star: Star, solver: Solver, tol: float) -> tuple[Solution, Tensor]:
    """Geodesics from the centres: those of the star, or those that a new search finds if they are shorter."""
    old = followed(manifold, star, tol)
    new = manifold.geodesic(star.p[star.group], star.members.z, solver)
    # lengths that are rounding errors, or known to few digits for them, differ without a reason
    close = [
        not {Status.ROUNDING, Status.DEGENERATE, Status.COINCIDENT}.isdisjoint(s)
        for s in zip(old.status, new.status, strict=True)
    ]
    unsure = torch.where(torch.tensor(close, device=new.length.device), old.error_estimate + new.error_estimate, 0.0)
    shorter = new.converged & ~(old.converged & (old.length <= (1 + SHORTER) * new.length + unsure))
    return _chosen(shorter, new, old), shorter


def _chosen(first: Tensor, a: Solution, b: Solution) -> Solution:
    places = [i if c else len(a) + i for i, c in enumerate(first.tolist())]
    return Solution.cat([a, b])[places]


def _attached(manifold: Manifold, star: Star, z: Tensor, w: Tensor, power: Power) -> tuple[Tensor, Tensor]:
    """The centres and the variances, connected to points, weights and parameters.

    One Newton step with the Hessian held fixed moves the centres by nothing and has the derivative that the implicit
    function theorem gives.
    """
    space = manifold.in_double()
    star = star.rested()
    same = (star.p[star.group] == star.members.z).all(1)
    with torch.no_grad():
        # a point without weight that cannot be measured says nothing; one that can has a derivative with respect to it
        light = (~(w > 0)).nonzero().squeeze(1)
        keep = torch.ones_like(w, dtype=torch.bool)
        keep[light] = torch.isfinite(space.energy(star.nodes[light]))
        keep = keep.nonzero().squeeze(1)
    star = replace(star, members=star.members[keep], group=star.group[keep])
    z, w, same = z[keep], w[keep], same[keep]
    connected = z.requires_grad or w.requires_grad or space.energy(star.nodes[:1]).requires_grad
    if not torch.is_grad_enabled() or not connected:
        return star.p, _spread(star, w, same, energies(space, star.nodes))
    begin = star.p[star.group].clone().requires_grad_()
    inner = star.members.inner.clone().requires_grad_()
    energy = energies(space, torch.cat([begin.unsqueeze(1), inner, z.unsqueeze(1)], 1))
    if not energy.requires_grad:  # a constant decoder
        return star.p, _spread(star, w, same, energy)
    slope, gradient = torch.autograd.grad(energy.sum(), (begin, inner), create_graph=True)
    each = eliminate(expand(space, star), torch.zeros_like(w), gradient, slope)
    first, second = derivatives(energy, power)
    weight = (w * first).detach()
    schur = star.sum(weight.view(-1, 1, 1) * each.schur)
    outer = (each.slope.unsqueeze(2) * each.slope.unsqueeze(1)).detach()
    schur = schur + star.sum((w * second).detach().view(-1, 1, 1) * outer)
    pull = star.sum((w * first).unsqueeze(1) * each.slope)
    step = torch.linalg.solve_ex(schur.detach(), pull.unsqueeze(2))[0].squeeze(2)
    point = star.p - (step - step.detach())
    nodes = torch.cat([point[star.group].unsqueeze(1), star.members.inner, z.unsqueeze(1)], 1)
    return point, _spread(star, w, same, energies(space, nodes))


def _spread(star: Star, w: Tensor, same: Tensor, energy: Tensor) -> Float[Tensor, " g"]:
    """``Σ w E / Σ w``; equal points have no distance, even where a decoder's rounding errors depend on the row."""
    energy = torch.where(same, energy - energy.detach(), energy)
    return star.sum(w * energy) / star.sum(w)
