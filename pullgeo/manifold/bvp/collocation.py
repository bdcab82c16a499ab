"""Geodesics as polynomials that solve their equation at Gauss's points: between two points, or from initial values."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.manifold.bvp.pieces import Collocated, Pieces
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.banded.block_tridiagonal import solve_tridiagonal
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.gmres import gmres
from pullgeo.numerics.ode.gauss_legendre import gauss
from pullgeo.numerics.ode.piecewise import STAGES, interpolated, like

PIECES = 8
"""To begin with."""

MAX_PIECES = 128

GROWTH = 1.5
"""By how much the number of pieces grows at a time."""

SPARSE = 3
"""Pieces at whose Gauss points derivatives are taken first; they are interpolated to all others."""

LARGE = 12
"""Dimension from which on linear systems are solved by their products alone."""

NUMBERS = 2**24
"""So many, at most, are held in the matrices of the pieces at once."""

PROBE = 3e-6
"""How far a point or velocity is moved for a derivative, relative to the velocity."""

TOL = 1e-11
"""Relative residual that ends the search on one mesh."""

SETTLED = 1e-9
"""By how much, relatively, more pieces may still change the curve."""

ROUGH = 40
"""So many pieces may show that a curve is not smooth."""

FREE_ROUGH, FREE_PIECES = 12, 27
"""The same, and the largest number, where the end is free: a shorter way can be asked for."""

LOST = 1e-6
"""Relative residual after which a curve with a free end is given up."""

ORDER = 0.01
"""What remains of a change with half as many pieces again, at best: collocation is of order 12."""

SLOW = 0.2
"""More pieces change a smooth curve by less than this part of the last change."""

MAX_ROUNDS = 14

KRYLOV_ROUNDS = 40
"""Bound on the products for one linear system."""

LOOSE = 1e-2
"""Relative residual of a linear system that is good enough far from the solution."""


@dataclass(frozen=True, eq=False)
class Slopes(Batch):
    """Derivatives of ``Γ(u, u)`` at Gauss's points, ``[out, in]``, and what makes residuals vectors.

    Attributes:
        by_point: ``∂(z̈ + Γ(u, u))/∂z``.
        by_velocity: ``∂(z̈ + Γ(u, u))/∂u``.
        inverse: of the metric.
    """

    by_point: Float[Tensor, "b S s d d"]
    by_velocity: Float[Tensor, "b S s d d"]
    inverse: Float[Tensor, "b S s d d"]

    def between(self, joints: Float[Tensor, "b J"], others: Float[Tensor, "b K"]) -> "Slopes":
        """Those at the Gauss points of other pieces of the same curves, by interpolation."""
        return Slopes(*(interpolated(a, joints, others) for a in (self.by_point, self.by_velocity, self.inverse)))


def collocate(
    equation: Equation, origin: Float[Tensor, "b d"], curve: DiscreteCurve
) -> list[tuple[Tensor, Collocated]]:
    """The geodesics that discrete geodesics approximate, by Gauss collocation and Newton's method.

    On every piece ``∇ż/dt = 0`` holds at six Gauss points, and pieces meet with one velocity. All pieces of all pairs
    are solved for at once. Pairs whose velocities at the ends change with the number of pieces go on with half as many
    again, shorter where the curve bends, beginning with what was found and with its derivatives: 8 to 128 pieces. Each
    change foretells the next, by its ratio to the last. Where changes hardly shrink the connection jumps, as with ELU,
    and more pieces would be of no use.

    Args:
        equation: of the geodesics.
        origin: where they begin.
        curve: displacements from there.

    Returns:
        Which pairs, and what was found for them; each pair once.

    Cost: covariant derivatives, for which no metric has to be inverted: at 48 points for a pair and each correction.
    In few dimensions ``2d`` times 18 points for derivatives; from 12 dimensions on none, but some ten directional
    derivatives for a correction, and one metric tensor a piece.

    Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, sections 5.3 and 5.6; Knoll,
    Keyes, *Jacobian-free Newton-Krylov methods*, J. Comput. Phys. 2004.
    """
    return _in_parts(equation, Pieces.through(origin, curve, PIECES), free=False)


def launch(
    equation: Equation, origin: Float[Tensor, "b d"], velocity: Float[Tensor, "b d"], bend: Float[Tensor, "b d"]
) -> list[tuple[Tensor, Collocated]]:
    """Geodesics from initial values, for unit time, as `collocate` finds those between two points.

    Args:
        equation: of the geodesics.
        origin: where they begin.
        velocity: with which velocity.
        bend: ``z̈`` there.
    """
    return _in_parts(equation, Pieces.bending(origin, velocity, bend, PIECES), free=True)


def _in_parts(equation: Equation, begin: Pieces, *, free: bool) -> list[tuple[Tensor, Collocated]]:
    b, d = begin.origin.shape
    # matrices of the pieces, or Krylov spaces
    each = (STAGES * d) ** 2 if d < LARGE else KRYLOV_ROUNDS * STAGES * d
    size = max(1, NUMBERS // (MAX_PIECES * each))
    parts = []
    for start in range(0, b, size):
        chosen = torch.arange(start, min(start + size, b), device=begin.origin.device)
        parts += [(index + start, found) for index, found in _refined(equation, begin[chosen], free)]
    return parts


def _refined(equation: Equation, begin: Pieces, free: bool) -> list[tuple[Tensor, Collocated]]:
    index = torch.arange(len(begin.origin), device=begin.origin.device)
    solve = _newton if begin.origin.shape[1] < LARGE else _newton_krylov
    now, slopes, error = solve(equation, begin, None, free)
    parts = []
    if free:
        # what is not solved on one mesh needs a shorter way, not more pieces
        lost = ~(error < LOST)
        if bool(lost.any()):
            parts.append((index[lost], now[lost.nonzero().squeeze(1)].collocated(error[lost])))
            rest = (~lost).nonzero().squeeze(1)
            index, now, slopes = index[rest], now[rest], None if slopes is None else slopes[rest]
    last = torch.full_like(now.size, torch.inf)
    while len(index):
        pieces = min(MAX_PIECES, int(GROWTH * now.points.shape[1]))
        joints = now.finer_joints(pieces)
        slopes = None if slopes is None else slopes.between(now.joints, joints)
        finer, slopes, error = solve(equation, now.at(joints), slopes, free)
        change = finer.away_from(now)
        # the next one, if they go on to shrink as they do; there is nothing to tell from the first
        coming = change * torch.where(torch.isfinite(last), (change / last).clamp(ORDER, 1.0), 1.0)
        error = torch.maximum(error, coming).nan_to_num(nan=torch.inf)
        rough, most = (FREE_ROUGH, FREE_PIECES) if free else (ROUGH, MAX_PIECES)
        done = (error < SETTLED) | ((change > SLOW * last) & (pieces >= rough)) | (pieces >= most)
        if bool(done.any()):
            parts.append((index[done], finer[done.nonzero().squeeze(1)].collocated(error[done])))
        rest = (~done).nonzero().squeeze(1)
        index, now, last = index[rest], finer[rest], change[rest]
        slopes = None if slopes is None else slopes[rest]
    return parts


def _newton(
    equation: Equation, begin: Pieces, slopes: Slopes | None, free: bool
) -> tuple[Pieces, Slopes, Float[Tensor, " b"]]:
    """Newton's method on one mesh; a derivative is kept while corrections with it gain a digit each."""
    now = begin
    if slopes is None:
        sparse = torch.linspace(0, 1, SPARSE + 1, dtype=now.joints.dtype, device=now.joints.device)
        sparse = sparse.expand(len(now.joints), -1)
        slopes = _slopes(equation, now.at(sparse)).between(sparse, now.joints)
    force = _force(equation, now)
    turned, error = _residual(now, force, slopes.inverse, free)
    damping = torch.ones_like(error)
    new = torch.zeros_like(error, dtype=torch.bool)
    going = (error > TOL).nonzero().squeeze(1)
    for _ in range(MAX_ROUNDS):
        if not len(going):
            break
        at, before, own = now[going], error[going], slopes[going]
        step = _correction(at, turned[going], own, free)
        trial = at.moved(step, damping[going])
        trial_force = _force(equation, trial)
        trial_turned, after = _residual(trial, trial_force, own.inverse, free)
        better = after < before
        taken = going[better]
        now, turned = now.put(taken, trial[better]), turned.index_put((taken,), trial_turned[better])
        error, force = error.index_put((taken,), after[better]), force.index_put((taken,), trial_force[better])
        fast = better & (after < 0.1 * before)
        # what a fresh derivative does not fix needs a shorter step; at rounding error nothing helps any more
        ended = (error[going] <= TOL) | (new[going] & ~(after < 0.5 * before) & (before < 1e3 * TOL))
        shorter = ~better & new[going]
        damping = damping.index_put(
            (going,), torch.where(shorter, damping[going] / 4, (2 * damping[going]).clamp(max=1.0))
        )
        ended = ended | (damping[going] < 1e-3)
        stale = going[~fast & ~ended & ~shorter]
        new = new.index_put((going,), ~better & new[going])
        if len(stale):
            slopes = slopes.put(stale, _slopes(equation, now[stale]))
            fresh, size = _residual(now[stale], force[stale], slopes.inverse[stale], free)
            turned, error = turned.index_put((stale,), fresh), error.index_put((stale,), size)
            new = new.index_put((stale,), torch.ones_like(stale, dtype=torch.bool))
        going = going[~ended]
    return now, slopes, error


def _newton_krylov(
    equation: Equation, begin: Pieces, slopes: Slopes | None, free: bool
) -> tuple[Pieces, Slopes | None, Float[Tensor, " b"]]:
    """Newton's method on one mesh, its systems solved by directional derivatives.

    The curve is its bends: points and velocities are their integrals. So the equation is one of the second kind, with
    few eigenvalues away from 1, whatever d is. One metric for each piece makes its residuals vectors.
    """
    now = begin.with_bends(begin.bends, free=free)
    half = now.points + now.durations * now.velocities / 2
    metric = inverse(equation.matrix(now.origin.unsqueeze(1) + half)).unsqueeze(2).expand(-1, -1, STAGES, -1, -1)
    force = _force(equation, now)
    turned, error = _residual(now, force, metric, free)
    damping = torch.ones_like(error)
    going = (error > TOL).nonzero().squeeze(1)
    for _ in range(MAX_ROUNDS):
        if not len(going):
            break
        at, before = now[going], error[going]
        step = _krylov_step(equation, at, force[going], turned[going], metric[going], before, free)
        trial = at.with_bends(at.bends + damping[going].view(-1, 1, 1, 1) * step, free=free)
        trial_force = _force(equation, trial)
        trial_turned, after = _residual(trial, trial_force, metric[going], free)
        better = after < before
        taken = going[better]
        now, turned = now.put(taken, trial[better]), turned.index_put((taken,), trial_turned[better])
        error, force = error.index_put((taken,), after[better]), force.index_put((taken,), trial_force[better])
        damping = damping.index_put(
            (going,), torch.where(better, (2 * damping[going]).clamp(max=1.0), damping[going] / 4)
        )
        # at rounding error nothing helps any more
        ended = (error[going] <= TOL) | (~(after < 0.5 * before) & (before < 1e3 * TOL)) | (damping[going] < 1e-3)
        going = going[~ended]
    return now, slopes, error


def _krylov_step(
    equation: Equation,
    at: Pieces,
    force: Float[Tensor, "b S s d"],
    turned: Float[Tensor, "b S s d"],
    metric: Float[Tensor, "b S s d d"],
    error: Float[Tensor, " b"],
    free: bool,
) -> Float[Tensor, "b S s d"]:
    """The change of the bends that solves the linearised equation, about as well as the linearisation holds."""
    # residuals count by their integrals, as bends do
    weight = (at.durations.unsqueeze(3) * like(gauss(STAGES).outer, force).view(-1, 1)).sqrt()
    zero = _still(at)
    zero = replace(zero, target=torch.zeros_like(at.target))

    def product(v: Tensor, index: Tensor) -> Tensor:
        here = at[index]
        # of the change, both ends stay where they are, or the initial values do
        change = zero[index].with_bends(v.reshape(here.bends.shape) / weight[index], free=free)
        size = change.stages[1].norm(dim=3).flatten(1).amax(1).clamp(min=torch.finfo(v.dtype).tiny)
        reach = PROBE * here.size / size
        there = _force(equation, here.moved(change, reach))
        slope = (there - force[index]) / reach.view(-1, 1, 1, 1)
        return (weight[index] * torch.einsum("bSmij,bSmj->bSmi", metric[index], slope)).flatten(1)

    goal = torch.minimum(error, torch.full_like(error, LOOSE)).clamp(min=1e-4)
    step, _ = gmres(product, -(weight * turned).flatten(1), goal, KRYLOV_ROUNDS)
    return step.reshape(at.bends.shape) / weight


def _force(equation: Equation, at: Pieces) -> Float[Tensor, "b S s d"]:
    """``G ∇ż/dt`` at Gauss's points."""
    z, u = at.stages
    return equation.lowered(at.origin[:, None, None] + z, u, u, at.bends)


def _residual(
    at: Pieces, force: Float[Tensor, "b S s d"], metric: Float[Tensor, "b S s d d"], free: bool
) -> tuple[Float[Tensor, "b S s d"], Float[Tensor, " b"]]:
    """``∇ż/dt`` at Gauss's points, and how much of the equations is unsolved, relative to the velocity."""
    turned = torch.einsum("bSmij,bSmj->bSmi", metric, force)
    gaps = at.gaps[:, :-1] if free else at.gaps
    # all that is missing, one piece after the other, can add up
    missing = gaps.norm(dim=3).sum((1, 2)) + (at.durations * turned.norm(dim=3)).amax(2).sum(1)
    return turned, (missing / at.size).nan_to_num(nan=torch.inf)


def _slopes(equation: Equation, at: Pieces) -> Slopes:
    z, u = at.stages
    z, a = at.origin[:, None, None] + z, at.bends
    d = z.shape[3]
    reach = PROBE * at.size.view(-1, 1, 1, 1)
    ways = reach * torch.eye(d, dtype=z.dtype, device=z.device).view(d, 1, 1, 1, d)
    still = torch.zeros_like(ways)
    # all in one batch: here, beside, and faster
    points = torch.cat([z.unsqueeze(0), z + ways, z + still])
    velocities = torch.cat([u.unsqueeze(0), u + still, u + ways])
    force = equation.lowered(points, velocities, velocities, a.expand_as(points))
    lower = inverse(equation.matrix(z))
    by = ((force[1:] - force[0]) / reach).movedim(0, 4)
    by_point, by_velocity = (lower @ part for part in (by[..., :d], by[..., d:]))
    return Slopes(by_point, by_velocity, lower)


def _correction(at: Pieces, turned: Tensor, slopes: Slopes, free: bool) -> Pieces:
    """The step that would solve the linearised equations; none where they are singular."""
    b, S, s, d = at.bends.shape
    rule, h = gauss(STAGES), at.durations.unsqueeze(3)
    inner, outer, c = (like(a, at.bends) for a in (rule.inner, rule.outer, rule.points))
    P, Q = slopes.by_point, slopes.by_velocity
    # (1 + h² P ĀĀ + h Q Ā) δbends = -turned - P (δz + c h δu) - Q δu
    drift = h.unsqueeze(4) * torch.einsum("bSmij,ml->bSmilj", P, inner @ inner).reshape(b, S, s, d, s * d)
    drift = h.unsqueeze(4) * (drift + torch.einsum("bSmij,ml->bSmilj", Q, inner).reshape(b, S, s, d, s * d))
    local = drift.reshape(b, S, s * d, s * d) + torch.eye(s * d, dtype=P.dtype, device=P.device)
    by_velocity = h.unsqueeze(4) * c.view(-1, 1, 1) * P + Q
    right = -torch.cat([turned.unsqueeze(4), P, by_velocity], 4).reshape(b, S, s * d, 1 + 2 * d)
    bends = _solved(local, right).reshape(b, S, s, d, 1 + 2 * d)
    speed = h * torch.einsum("m,bSmik->bSik", outer, bends)
    place = h * h * torch.einsum("m,bSmik->bSik", outer @ inner, bends)
    one = torch.eye(d, dtype=P.dtype, device=P.device)
    g_z, g_u = (at.gaps[:, :, k] + a[..., 0] for k, a in enumerate((place, speed)))
    # where a piece ends, by where it begins
    end = torch.cat(
        [
            torch.cat([place[..., 1 : d + 1] + one, place[..., d + 1 :] + h * one], 3),
            torch.cat([speed[..., 1 : d + 1], speed[..., d + 1 :] + one], 3),
        ],
        2,
    )
    joints = _forwards if free else _between
    change = joints(end, g_z, g_u)
    step = Pieces(
        at.joints,
        at.origin,
        change[..., :d],
        change[..., d:],
        bends[..., 0] + torch.einsum("bSmik,bSk->bSmi", bends[..., 1:], change),
        at.target,
    )
    good = torch.isfinite(step.bends).flatten(1).all(1) & torch.isfinite(change).flatten(1).all(1)
    return step.put((~good).nonzero().squeeze(1), _still(at[~good]))


def _forwards(
    end: Float[Tensor, "b S e e"], g_z: Float[Tensor, "b S d"], g_u: Float[Tensor, "b S d"]
) -> Float[Tensor, "b S e"]:
    """Changes of the states at the joints, the first of which is known."""
    change = torch.zeros_like(torch.cat([g_z[:, 0], g_u[:, 0]], 1))
    found = [change]
    gaps = torch.cat([g_z, g_u], 2)
    for piece in range(end.shape[1] - 1):
        change = gaps[:, piece] + (end[:, piece] @ change.unsqueeze(2)).squeeze(2)
        found.append(change)
    return torch.stack(found, 1)


def _between(
    end: Float[Tensor, "b S e e"], g_z: Float[Tensor, "b S d"], g_u: Float[Tensor, "b S d"]
) -> Float[Tensor, "b S e"]:
    """Changes of the states at the joints, with the first and the last point known."""
    d = g_z.shape[2]
    zz, zu, uz, uu = end[..., :d, :d], end[..., :d, d:], end[..., d:, :d], end[..., d:, d:]
    one = torch.eye(d, dtype=end.dtype, device=end.device)
    # a short piece is decided by its end points: δu = W (δz' - g_z - zz δz)
    W = _solved(zu, one.expand_as(zu))
    drive = -torch.einsum("bSij,bSj->bSi", W, g_z)
    pull = -W @ zz
    # pieces leave joints with the velocity with which the ones before arrive
    lower, upper = -(uz + uu @ pull)[:, :-1], W[:, 1:]
    diagonal = pull[:, 1:] - (uu @ W)[:, :-1]
    force = (g_u + torch.einsum("bSij,bSj->bSi", uu, drive))[:, :-1] - drive[:, 1:]
    joints = solve_tridiagonal(lower[:, 1:], diagonal, upper[:, :-1], force)
    zero = torch.zeros_like(g_z[:, :1])
    points, after = torch.cat([zero, joints], 1), torch.cat([joints, zero], 1)
    velocities = torch.einsum("bSij,bSj->bSi", W, after) + torch.einsum("bSij,bSj->bSi", pull, points) + drive
    return torch.cat([points, velocities], 2)


def _still(at: Pieces) -> Pieces:
    zero = (torch.zeros_like(a) for a in (at.points, at.velocities, at.bends))
    return Pieces(at.joints, at.origin, next(zero), next(zero), next(zero), at.target)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix⁻¹ right``; infinite or NaN, for that pair alone, where the matrix is singular."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return solution
