"""Newton's method for collocation on one mesh: with derivatives at Gauss's points, or by products alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.banded.block_tridiagonal import solve_tridiagonal
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.damped_newton import STEP_LENGTH, TWICE, Iterate, damped_newton
from pullgeo.numerics.gmres import gmres
from pullgeo.numerics.ode.piecewise import interpolated, like, resampled


@dataclass(frozen=True)
class NewtonSettings:
    """How Newton's method on one mesh takes derivatives and solves its systems.

    Attributes:
        several: dimension from which on fewer points, and not fewer batches, are what counts. Set by hand.
        large: dimension from which on linear systems are solved by their products alone. Set by hand.
        probe: how far a point or velocity is moved for a derivative, relative to the velocity. About the cube root of
            the precision, where rounding errors and curvature balance.
        sparse: gauss points of a piece at which derivatives are taken, at most; they are interpolated to the others. An
            error of some percent costs no more than a round.
        tol: relative residual that ends the search on one mesh. Near the rounding errors of float64.
        max_rounds: bound on the corrections on one mesh. Set by hand.
        krylov_rounds: bound on the products for one linear system. As many vectors are held.
        loose: relative residual of a linear system that is good enough far from the solution. A step gains no more
            digits there.
    """

    several: int = 4
    large: int = 12
    probe: float = 3e-6
    sparse: int = 6
    tol: float = 1e-11
    max_rounds: int = 14
    krylov_rounds: int = 40
    loose: float = 1e-2


SETTINGS = NewtonSettings()


@dataclass(frozen=True, eq=False)
class Slopes(Batch):
    """Derivatives of the equation at Gauss's points, ``[out, in]``, and what makes residuals vectors.

    Attributes:
        inverse: of the metric.
        derivatives: ``∂(z̈ + Γ(u, u))/∂z`` and ``/∂u``; none where systems are solved by products.
    """

    inverse: Float[Tensor, "b S s d d"]
    derivatives: tuple[Float[Tensor, "b S s d d"], ...] = ()

    def between(self, joints: Float[Tensor, "b J"], others: Float[Tensor, "b K"]) -> "Slopes":
        """Those at the Gauss points of other pieces of the same curves, by interpolation."""
        return self.map(lambda a: interpolated(a, joints, others))

    def refined(self, stages: int) -> "Slopes":
        """Those at more Gauss points of the same pieces."""
        return self.map(lambda a: resampled(a, stages))


def newton(
    equation: Equation,
    begin: Pieces,
    slopes: Slopes,
    force: Tensor | None = None,
    *,
    free: bool,
    tol: float = SETTINGS.tol,
) -> tuple[Pieces, Slopes, Float[Tensor, " b"]]:
    """Newton's method on one mesh.

    In few dimensions a derivative is kept while corrections with it gain a digit each. In many, systems are solved by
    directional derivatives: the curve is its second derivative, of which points and velocities are integrals, so that
    the equation is one of the second kind, with few eigenvalues away from 1, whatever d is, if residuals are made
    vectors by a metric near the right one.

    Args:
        equation: of the curves.
        begin: the first guess.
        slopes: derivatives there, or near; in many dimensions the metric alone.
        force: what `force_at` gives for the guess, if that is known.
        free: whether the initial values are given, and the end is free.
        tol: relative residual that is small enough.

    Returns:
        What was found, the derivatives in use at the end, and relative residuals.
    """
    by_products = begin.origin.shape[1] >= SETTINGS.large
    begin = begin.with_accelerations(begin.accelerations, free=free) if by_products else begin
    force = force_at(equation, begin) if force is None else force
    turned, error = residual(begin, force, slopes.inverse, free)
    never = torch.zeros_like(error, dtype=torch.bool)
    start = Approximation(
        at=Residual(begin, force, turned, error), slopes=slopes, fresh=never, ended=never, **STEP_LENGTH.begin(error)
    )
    problem = (_ByProducts if by_products else _ByMatrices)(equation, free, tol)
    found = damped_newton(problem, start, STEP_LENGTH, SETTINGS.max_rounds)
    return found.at.curve, found.slopes, found.at.error


@dataclass(frozen=True, eq=False)
class Residual(Batch):
    """Curves, and what is left of their equation; see `force_at` and `residual`."""

    curve: Pieces
    force: Float[Tensor, "b S s d"]
    turned: Float[Tensor, "b S s d"]
    error: Float[Tensor, " b"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Approximation(Iterate):
    """Curves on the way to solutions.

    Attributes:
        at: where they are.
        slopes: derivatives in use.
        fresh: whether these were taken at the curve, and not before.
        ended: whether nothing helps any more, at rounding error.
    """

    at: Residual
    slopes: Slopes
    fresh: Bool[Tensor, " b"]
    ended: Bool[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class _Corrections(ABC):
    """Corrections of curves on a mesh."""

    equation: Equation
    free: bool
    tol: float

    def done(self, now: Approximation) -> Bool[Tensor, " b"]:
        return (now.at.error <= self.tol) | now.ended

    @abstractmethod
    def step(self, now: Approximation) -> tuple[Approximation, Tensor, Tensor]: ...

    def _tried(self, now: Approximation, curve: Pieces) -> tuple[Residual, Tensor, Tensor]:
        """The better of two curves; whether that is the new one; whether it gained less than a factor of two."""
        force = force_at(self.equation, curve)
        turned, error = residual(curve, force, now.slopes.inverse, self.free)
        better, before = error < now.at.error, now.at.error
        slow = ~(error < 0.5 * before) & (before < 1e3 * self.tol)
        return Residual(curve, force, turned, error).where(better, now.at), better, slow


class _ByMatrices(_Corrections):
    def step(self, now: Approximation) -> tuple[Approximation, Tensor, Tensor]:
        step = correction(now.at.curve, now.at.turned, now.slopes, free=self.free)
        at, better, slow = self._tried(now, now.at.curve.moved(step, 1 / now.damping))
        # what a fresh derivative does not fix needs a shorter step
        shorter, ended = ~better & now.fresh, now.fresh & slow
        fast = better & (at.error < 0.1 * now.at.error)
        stale = (~fast & ~ended & ~shorter & (at.error > self.tol)).nonzero().squeeze(1)
        slopes, fresh = now.slopes, shorter
        if len(stale):
            old = at[stale]
            stages = old.curve.accelerations.shape[2]
            sparse = old.curve.refined(min(stages, SETTINGS.sparse))
            slopes = slopes.put(stale, slopes_at(self.equation, sparse)[0].refined(stages))
            turned, error = residual(old.curve, old.force, slopes.inverse[stale], self.free)
            at = at.put(stale, replace(old, turned=turned, error=error))
            fresh = fresh.index_fill(0, stale, True)
        now = replace(now, at=at, slopes=slopes, fresh=fresh, ended=ended)
        return now, ~shorter, torch.full_like(at.error, TWICE)


class _ByProducts(_Corrections):
    def step(self, now: Approximation) -> tuple[Approximation, Tensor, Tensor]:
        at, metric = now.at, now.slopes.inverse
        step = krylov_step(self.equation, at.curve, at.force, at.turned, metric, at.error, free=self.free)
        curve = at.curve.with_accelerations(
            at.curve.accelerations + step / now.damping.view(-1, 1, 1, 1), free=self.free
        )
        at, better, slow = self._tried(now, curve)
        return replace(now, at=at, ended=slow), better, torch.full_like(at.error, TWICE)


def krylov_step(
    equation: Equation,
    at: Pieces,
    force: Float[Tensor, "b S s d"],
    turned: Float[Tensor, "b S s d"],
    metric: Float[Tensor, "b S s d d"],
    error: Float[Tensor, " b"],
    *,
    free: bool,
) -> Float[Tensor, "b S s d"]:
    """The change of the accelerations that solves the linearised equation, about as well as the linearisation holds."""
    # residuals count by their integrals, as accelerations do
    weight = (at.durations.unsqueeze(3) * like(at.rule.outer, force).view(-1, 1)).sqrt()
    # what takes no time has no residual
    weight = weight.clamp(min=torch.finfo(weight.dtype).tiny ** 0.5)
    zero = _still(at)
    zero = replace(zero, target=torch.zeros_like(at.target))

    def product(v: Tensor, index: Tensor) -> Tensor:
        here = at[index]
        # of the change, both ends stay where they are, or the initial values do
        change = zero[index].with_accelerations(v.reshape(here.accelerations.shape) / weight[index], free=free)
        size = change.stages[1].norm(dim=3).flatten(1).amax(1).clamp(min=torch.finfo(v.dtype).tiny)
        reach = SETTINGS.probe * here.size / size
        there = force_at(equation, here.moved(change, reach))
        slope = (there - force[index]) / reach.view(-1, 1, 1, 1)
        return (weight[index] * torch.einsum("bSmij,bSmj->bSmi", metric[index], slope)).flatten(1)

    goal = torch.minimum(error, torch.full_like(error, SETTINGS.loose)).clamp(min=1e-4)
    step, _ = gmres(product, -(weight * turned).flatten(1), goal, SETTINGS.krylov_rounds)
    return step.reshape(at.accelerations.shape) / weight


def force_at(equation: Equation, at: Pieces) -> Float[Tensor, "b S s d"]:
    """``G ∇ż/dt`` at Gauss's points."""
    z, u = at.stages
    return _lowered(equation, at, at.origin[:, None, None] + z, u, at.accelerations)


def _lowered(equation: Equation, at: Pieces, z: Tensor, u: Tensor, rate: Tensor) -> Tensor:
    """Covariant derivatives of velocities at points of pieces; zero for what takes no time."""
    return _of_live(at, lambda z, u, rate: equation.lowered(z, u, u, rate), (), z, u, rate)


def _of_live(at: Pieces, function: Callable[..., Tensor], more: tuple[int, ...], *points: Tensor) -> Tensor:
    """A function of points of pieces, with ``more`` dimensions than they; zero for what takes no time."""
    live = at.durations.squeeze(2) > 0
    if bool(live.all()):
        return function(*points)
    found = function(*[a[..., live, :, :] for a in points])
    values = found.new_zeros(*points[0].shape, *more)
    where: Any = (..., live, *[slice(None)] * (2 + len(more)))
    values[where] = found
    return values


def residual(
    at: Pieces, force: Float[Tensor, "b S s d"], metric: Float[Tensor, "b S s d d"], free: bool
) -> tuple[Float[Tensor, "b S s d"], Float[Tensor, " b"]]:
    """``∇ż/dt`` at Gauss's points, and how much of the equations is unsolved, relative to the velocity."""
    turned = torch.einsum("bSmij,bSmj->bSmi", metric, force)
    # all that is missing, one piece after the other, can add up
    missing = (at.durations * turned.norm(dim=3)).amax(2).sum(1)
    # with a free end pieces always meet: steps are linear, and so is what they have to meet
    missing = missing if free else missing + at.gaps.norm(dim=3).sum((1, 2))
    return turned, (missing / at.size).nan_to_num(nan=torch.inf)


def slopes_at(equation: Equation, at: Pieces) -> tuple[Slopes, Float[Tensor, "b S s d"]]:
    """Derivatives at the Gauss points of a curve, by differences, and the force there.

    Cost: in one, two or three dimensions ``3d + 1`` covariant derivatives at each point, in one batch: they are linear
    in ``z̈``, by the metric. In more, ``2d + 1``, and a metric tensor.
    """
    z, u = at.stages
    z, a = at.origin[:, None, None] + z, at.accelerations
    d = z.shape[3]
    size = at.size.view(-1, 1, 1, 1)
    reach = SETTINGS.probe * size
    ways = torch.eye(d, dtype=z.dtype, device=z.device).view(d, 1, 1, 1, d) * size
    still = torch.zeros_like(ways)
    # all in one batch: here, beside, faster, and, where the metric is had by it, turning more
    turning = [] if d >= SETTINGS.several else [(z + still, u + still, a + ways)]
    beside, faster = (
        (z + SETTINGS.probe * ways, u + still, a + still),
        (z + still, u + SETTINGS.probe * ways, a + still),
    )
    here = (z.unsqueeze(0), u.unsqueeze(0), a.unsqueeze(0))
    force = _lowered(equation, at, *map(torch.cat, zip(here, beside, faster, *turning, strict=True)))
    by = (force[1:] - force[0]).movedim(0, 4)
    metric = by[..., 2 * d :] / size.unsqueeze(4) if turning else _of_live(at, equation.matrix, (d,), z)
    lower = inverse(metric)
    lower = torch.where(at.durations[..., None, None] > 0, lower, 0.0)
    by_point, by_velocity = (lower @ part / reach.unsqueeze(4) for part in (by[..., :d], by[..., d : 2 * d]))
    return Slopes(lower, (by_point, by_velocity)), force[0]


def correction(at: Pieces, turned: Tensor, slopes: Slopes, *, free: bool) -> Pieces:
    """The step that would solve the linearised equations; none where they are singular."""
    alone = free and at.accelerations.shape[1] == 1
    step = _with_known_beginning(at, turned, slopes) if alone else _of_pieces(at, turned, slopes, free=free)
    good = torch.isfinite(step.accelerations).flatten(1).all(1) & torch.isfinite(step.velocities).flatten(1).all(1)
    return step if bool(good.all()) else step.put((~good).nonzero().squeeze(1), _still(at[~good]))


def _local(at: Pieces, slopes: Slopes) -> Float[Tensor, "b S n n"]:
    """``1 + h² P ĀĀ + h Q Ā``: the equation for the accelerations of a piece whose initial values are known."""
    b, S, s, d = at.accelerations.shape
    inner, h = like(at.rule.inner, at.accelerations), at.durations.unsqueeze(3).unsqueeze(4)
    P, Q = slopes.derivatives
    drift = h * torch.einsum("bSmij,ml->bSmilj", P, inner @ inner).reshape(b, S, s, d, s * d)
    drift = h * (drift + torch.einsum("bSmij,ml->bSmilj", Q, inner).reshape(b, S, s, d, s * d))
    return drift.reshape(b, S, s * d, s * d) + torch.eye(s * d, dtype=drift.dtype, device=drift.device)


def _with_known_beginning(at: Pieces, turned: Tensor, slopes: Slopes) -> Pieces:
    """For curves in one piece."""
    accelerations = _solved(_local(at, slopes), -turned.flatten(2).unsqueeze(3))
    return replace(_still(at), accelerations=accelerations.reshape(at.accelerations.shape))


def _of_pieces(at: Pieces, turned: Tensor, slopes: Slopes, *, free: bool) -> Pieces:
    b, S, s, d = at.accelerations.shape
    rule, h = at.rule, at.durations.unsqueeze(3)
    inner, outer, c = (like(a, at.accelerations) for a in (rule.inner, rule.outer, rule.points))
    P, Q = slopes.derivatives
    # (1 + h² P ĀĀ + h Q Ā) δaccelerations = -turned - P (δz + c h δu) - Q δu
    by_velocity = h.unsqueeze(4) * c.view(-1, 1, 1) * P + Q
    right = -torch.cat([turned.unsqueeze(4), P, by_velocity], 4).reshape(b, S, s * d, 1 + 2 * d)
    accelerations = _solved(_local(at, slopes), right).reshape(b, S, s, d, 1 + 2 * d)
    speed = h * torch.einsum("m,bSmik->bSik", outer, accelerations)
    place = h * h * torch.einsum("m,bSmik->bSik", outer @ inner, accelerations)
    one = torch.eye(d, dtype=P.dtype, device=P.device)
    g_z, g_u = place[..., 0], speed[..., 0]
    if not free:
        gaps = at.gaps
        g_z, g_u = g_z + gaps[:, :, 0], g_u + gaps[:, :, 1]
    # where a piece ends, by where it begins
    end = torch.cat(
        [
            torch.cat([place[..., 1 : d + 1] + one, place[..., d + 1 :] + h * one], 3),
            torch.cat([speed[..., 1 : d + 1], speed[..., d + 1 :] + one], 3),
        ],
        2,
    )
    change = _onward(end, torch.cat([g_z, g_u], 2)) if free else _between(end, g_z, g_u)
    accelerations = accelerations[..., 0] + torch.einsum("bSmik,bSk->bSmi", accelerations[..., 1:], change)
    return replace(at, points=change[..., :d], velocities=change[..., d:], accelerations=accelerations)


def _onward(end: Float[Tensor, "b S e e"], gain: Float[Tensor, "b S e"]) -> Float[Tensor, "b S e"]:
    """Changes of the states at which pieces begin: none of the first, and of each what those before lead to."""
    b, S, e = gain.shape
    system = torch.eye(S * e, dtype=end.dtype, device=end.device).repeat(b, 1, 1).view(b, S, e, S, e)
    system.diagonal(-1, 1, 3).copy_(-end[:, :-1].permute(0, 2, 3, 1))
    right = torch.cat([torch.zeros_like(gain[:, :1]), gain[:, :-1]], 1).reshape(b, S * e, 1)
    matrix = system.view(b, S * e, S * e)
    return torch.linalg.solve_triangular(matrix, right, upper=False, unitriangular=True).view(b, S, e)


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
    zero = (torch.zeros_like(a) for a in (at.points, at.velocities, at.accelerations))
    return Pieces(at.joints, at.origin, next(zero), next(zero), next(zero), at.target)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix⁻¹ right``; infinite or NaN, for that pair alone, where the matrix is singular."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return solution
