"""From a discrete geodesic to the geodesic: polynomials that solve its equation at Gauss's points."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.manifold.bvp.pieces import Collocated, Pieces
from pullgeo.manifold.exponential import Connection
from pullgeo.numerics.banded.block_tridiagonal import solve_tridiagonal
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.ode.gauss_legendre import gauss
from pullgeo.numerics.ode.piecewise import STAGES, interpolated, like

PIECES = 12
"""To begin with."""

MAX_PIECES = 128

GROWTH = 1.5
"""By how much the number of pieces grows at a time."""


ROWS = 512
"""So many points, at most, go through a connection at once."""

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

ORDER = 0.01
"""What remains of a change with half as many pieces again, at best: collocation is of order 12."""

SLOW = 0.2
"""More pieces change a smooth curve by less than this part of the last change."""

MAX_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class Slopes:
    """``∂Γ(u, u)/∂z`` and ``∂Γ(u, u)/∂u`` at Gauss's points, ``[out, in]``."""

    by_point: Float[Tensor, "b S s d d"]
    by_velocity: Float[Tensor, "b S s d d"]

    def between(self, joints: Float[Tensor, "b J"], others: Float[Tensor, "b K"]) -> "Slopes":
        """Those at the Gauss points of other pieces of the same curves, by interpolation."""
        return Slopes(*(interpolated(a, joints, others) for a in (self.by_point, self.by_velocity)))

    def __getitem__(self, index: Tensor) -> "Slopes":
        return Slopes(self.by_point[index], self.by_velocity[index])

    def put(self, index: Tensor, other: "Slopes") -> "Slopes":
        """Those of some pairs exchanged."""
        return Slopes(
            self.by_point.index_put((index,), other.by_point), self.by_velocity.index_put((index,), other.by_velocity)
        )


def collocate(connection: Connection, curve: DiscreteCurve) -> list[tuple[Tensor, Collocated]]:
    """The geodesics that discrete geodesics approximate, by Gauss collocation and Newton's method.

    On every piece ``z̈ = -Γ(ż, ż)`` holds at six Gauss points, and pieces meet with one velocity. All pieces of all
    pairs are solved for at once. Pairs whose velocities at the ends change with the number of pieces go on with half as
    many again, shorter where the curve bends, beginning with what was found and with its derivatives: 12 to 128 pieces.
    Each change predicts the next, by its ratio to the last. Where changes hardly shrink the connection jumps, as with
    ELU, and more pieces would be of no use.

    Returns:
        Which pairs, and what was found for them; each pair once.

    Cost: the connection at 72 points for a pair to begin with and as many times ``2d`` for its derivative, some four
    corrections without further derivatives, then two for each larger number of pieces.

    Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, sections 5.3 and 5.6.
    """
    d = curve.nodes.shape[2]
    size = max(1, NUMBERS // (MAX_PIECES * (STAGES * d) ** 2))
    parts = []
    for start in range(0, len(curve), size):
        for index, found in _collocate(connection, curve[start : start + size]):
            parts.append((index + start, found))
    return parts


def _collocate(connection: Connection, curve: DiscreteCurve) -> list[tuple[Tensor, Collocated]]:
    index = torch.arange(len(curve), device=curve.nodes.device)
    now, slopes, _ = _solve(connection, Pieces.through(lambda z, u: -_turned(connection, z, u), curve, PIECES), None)
    parts = []
    last = torch.full_like(now.size, torch.inf)
    while len(index):
        pieces = min(MAX_PIECES, int(GROWTH * now.points.shape[1]))
        joints = now.finer_joints(pieces)
        finer, slopes, error = _solve(connection, now.at(joints), slopes.between(now.joints, joints))
        change = finer.away_from(now)
        # the next one, if they go on to shrink as they do; there is nothing to tell from the first
        coming = change * torch.where(torch.isfinite(last), (change / last).clamp(ORDER, 1.0), 1.0)
        error = torch.maximum(error, coming).nan_to_num(nan=torch.inf)
        done = error < torch.maximum(_attainable(finer) * SETTLED / TOL, torch.full_like(error, SETTLED))
        done = done | ((change > SLOW * last) & (pieces >= ROUGH)) | (pieces == MAX_PIECES)
        if bool(done.any()):
            parts.append((index[done], finer[done.nonzero().squeeze(1)].collocated(error[done])))
        rest = (~done).nonzero().squeeze(1)
        index, now, slopes, last = index[rest], finer[rest], slopes[rest], change[rest]
    return parts


def _solve(connection: Connection, begin: Pieces, slopes: Slopes | None) -> tuple[Pieces, Slopes, Float[Tensor, " b"]]:
    """Newton's method on one mesh; a derivative is kept while corrections with it gain a digit each."""
    now = begin
    turned, error = _residual(connection, now)
    fresh = slopes is None
    slopes = _slopes(connection, now, turned) if slopes is None else slopes
    damping = torch.ones_like(error)
    new = torch.full_like(error, fresh, dtype=torch.bool)
    tol = _attainable(begin)
    going = (error > tol).nonzero().squeeze(1)
    for _ in range(MAX_ROUNDS):
        if not len(going):
            break
        at, before = now[going], error[going]
        step = _correction(at, turned[going], slopes[going])
        trial = at.moved(step, damping[going])
        trial_turned, after = _residual(connection, trial)
        better = after < before
        taken = going[better]
        now, turned = now.put(taken, trial[better]), turned.index_put((taken,), trial_turned[better])
        error = error.index_put((taken,), after[better])
        fast = better & (after < 0.1 * before)
        # what a fresh derivative does not fix needs a shorter step; at rounding error nothing helps any more
        ended = (error[going] <= tol[going]) | (new[going] & ~(after < 0.5 * before) & (before < 1e3 * tol[going]))
        shorter = ~better & new[going]
        damping = damping.index_put(
            (going,), torch.where(shorter, damping[going] / 4, (2 * damping[going]).clamp(max=1.0))
        )
        ended = ended | (damping[going] < 1e-3)
        stale = going[~fast & ~ended & ~shorter]
        new = new.index_put((going,), ~better & new[going])
        if len(stale):
            slopes = slopes.put(stale, _slopes(connection, now[stale], turned[stale]))
            new = new.index_put((stale,), torch.ones_like(stale, dtype=torch.bool))
        going = going[~ended]
    return now, slopes, error


def _attainable(at: Pieces) -> Float[Tensor, " b"]:
    """The relative residual that ends the search; more where points so near each other are rounded."""
    eps = torch.finfo(at.points.dtype).eps
    return (16 * eps * at.points.abs().flatten(1).amax(1) / at.size).clamp(min=TOL)


def _residual(connection: Connection, at: Pieces) -> tuple[Float[Tensor, "b S s d"], Float[Tensor, " b"]]:
    """``z̈ + Γ(ż, ż)`` at Gauss's points, and how much of the equations is unsolved, relative to the velocity."""
    turned = at.bends + _turned(connection, *at.stages)
    gap = at.gaps.norm(dim=3).flatten(1).amax(1)
    bend = (at.durations * turned.norm(dim=3)).flatten(1).amax(1)
    return turned, (torch.maximum(gap, bend) / at.size).nan_to_num(nan=torch.inf)


def _slopes(connection: Connection, at: Pieces, residual: Float[Tensor, "b S s d"]) -> Slopes:
    z, u = at.stages
    d = z.shape[3]
    reach = PROBE * at.size.view(-1, 1, 1, 1)
    ways = torch.eye(d, dtype=z.dtype, device=z.device).view(d, 1, 1, 1, d)
    here = residual - at.bends
    moved = _turned(connection, *torch.broadcast_tensors(z + reach * ways, u))
    faster = _turned(connection, *torch.broadcast_tensors(z, u + reach * ways))
    by_point, by_velocity = (moved - here) / reach, (faster - here) / reach
    return Slopes(by_point.movedim(0, 4), by_velocity.movedim(0, 4))


def _correction(at: Pieces, turned: Tensor, slopes: Slopes) -> Pieces:
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
    zz, zu = place[..., 1 : d + 1] + one, place[..., d + 1 :] + h * one
    uz, uu = speed[..., 1 : d + 1], speed[..., d + 1 :] + one
    # a short piece is decided by its end points: δu = W (δz' - g_z - zz δz)
    W = _solved(zu, one.expand_as(zu))
    drive = -torch.einsum("bSij,bSj->bSi", W, g_z)
    pull = -W @ zz
    # pieces leave joints with the velocity with which the ones before arrive
    lower, upper = -(uz + uu @ pull)[:, :-1], W[:, 1:]
    diagonal = pull[:, 1:] - (uu @ W)[:, :-1]
    force = (g_u + torch.einsum("bSij,bSj->bSi", uu, drive))[:, :-1] - drive[:, 1:]
    joints = solve_tridiagonal(lower[:, 1:], diagonal, upper[:, :-1], force)
    zero = torch.zeros_like(at.points[:, :1])
    points, after = torch.cat([zero, joints], 1), torch.cat([joints, zero], 1)
    velocities = torch.einsum("bSij,bSj->bSi", W, after) + torch.einsum("bSij,bSj->bSi", pull, points) + drive
    change = torch.cat([points, velocities], 2)
    step = Pieces(
        at.joints,
        points,
        velocities,
        bends[..., 0] + torch.einsum("bSmik,bSk->bSmi", bends[..., 1:], change),
        at.target,
    )
    good = torch.isfinite(step.bends).flatten(1).all(1) & torch.isfinite(change).flatten(1).all(1)
    return step.put((~good).nonzero().squeeze(1), _still(at[~good]))


def _still(at: Pieces) -> Pieces:
    zero = (torch.zeros_like(a) for a in (at.points, at.velocities, at.bends))
    return Pieces(at.joints, next(zero), next(zero), next(zero), at.target)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix⁻¹ right``; infinite or NaN, for that pair alone, where the matrix is singular."""
    solution: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return solution


def _turned(connection: Connection, z: Float[Tensor, "*n d"], u: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """``Γ(u, u)``; NaN where the metric is not defined."""
    parts = zip(*(a.reshape(-1, a.shape[-1]).split(ROWS) for a in (z, u)), strict=True)
    turned = [where_defined(lambda z, u: connection(z, u, u), a.shape[1:], a, b) for a, b in parts]
    return torch.cat(turned).reshape(u.shape)
