"""From a discrete geodesic to the geodesic: polynomials that solve its equation at Gauss's points."""

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import DiscreteCurve
from pullgeo.errors import NonFiniteError, SingularMetricError
from pullgeo.manifold.block_tridiagonal import solve_tridiagonal
from pullgeo.manifold.gauss import gauss
from pullgeo.manifold.initial_value import Connection

STAGES = 6
"""Gauss points of a piece: order 12."""

PIECES = 12
"""To begin with."""

MAX_PIECES = 128

GROWTH = 1.5
"""By how much the number of pieces grows at a time."""


ROWS = 1024
"""So many points, at most, go through a connection at once."""

NUMBERS = 2**24
"""So many, at most, are held in the matrices of the pieces at once."""

PROBE = 3e-6
"""How far a point or velocity is moved for a derivative, relative to the velocity."""

TOL = 1e-11
"""Relative residual that ends the search on one mesh."""

SETTLED = 1e-9
"""By how much, relatively, halving the pieces may still change the curve; what is left then is much less."""

MAX_ROUNDS = 12

NEGLIGIBLE = 1e-12
"""Relative roughness of a piece below which it need not be shorter."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Curves in S pieces, ``z̈`` a polynomial through s values on each.

    Attributes:
        joints: times at which pieces begin, and 1.
        points: where they begin.
        velocities: those there.
        bends: ``z̈`` at Gauss's points.
        target: where the last piece shall end.
    """

    joints: Float[Tensor, "b J"]
    points: Float[Tensor, "b S d"]
    velocities: Float[Tensor, "b S d"]
    bends: Float[Tensor, "b S s d"]
    target: Float[Tensor, "b d"]

    @staticmethod
    def through(connection: Connection, curve: DiscreteCurve, pieces: int) -> "Pieces":
        """Pieces of equal duration that begin on given curves, and bend as geodesics would there."""
        nodes = curve.nodes
        t = torch.linspace(0, 1, pieces + 1, dtype=nodes.dtype, device=nodes.device)
        inner = (t[:-1, None] + _like(gauss(STAGES).points, nodes) / pieces).flatten()
        z, u = (a.unflatten(1, (pieces, STAGES)) for a in (curve(inner), curve.velocity(inner)))
        points = torch.cat([curve.begin.unsqueeze(1), curve(t[1:-1])], 1)
        bends = -_turned(connection, z, u)
        return Pieces(t.expand(len(curve), -1), points, curve.velocity(t[:-1]), bends, curve.end)

    @property
    def durations(self) -> Float[Tensor, "b S 1"]:
        """Of the pieces."""
        return self.joints.diff(dim=1).unsqueeze(2)

    @property
    def stages(self) -> tuple[Float[Tensor, "b S s d"], Float[Tensor, "b S s d"]]:
        """Points and velocities at Gauss's points."""
        rule, h = gauss(STAGES), self.durations.unsqueeze(3)
        inner, c = _like(rule.inner, self.bends), _like(rule.points, self.bends).view(-1, 1)
        turned = h * torch.einsum("ml,bSld->bSmd", inner, self.bends)
        u, z = self.velocities.unsqueeze(2), self.points.unsqueeze(2)
        return z + h * (c * u + torch.einsum("ml,bSld->bSmd", inner, turned)), u + turned

    @property
    def ends(self) -> Float[Tensor, "b S 2 d"]:
        """Points and velocities where pieces end."""
        rule, h = gauss(STAGES), self.durations
        outer = _like(rule.outer, self.bends)
        speed = self.velocities + h * torch.einsum("m,bSmd->bSd", outer, self.bends)
        there = torch.einsum("m,bSmd->bSd", outer @ _like(rule.inner, outer), self.bends)
        return torch.stack([self.points + h * (self.velocities + h * there), speed], 2)

    @property
    def gaps(self) -> Float[Tensor, "b S 2 d"]:
        """From where pieces should end to where they do; the last velocity is free."""
        ends = self.ends
        starts = torch.stack([self.points, self.velocities], 2)[:, 1:]
        last = torch.stack([self.target, ends[:, -1, 1]], 1).unsqueeze(1)
        return ends - torch.cat([starts, last], 1)

    @property
    def size(self) -> Float[Tensor, " b"]:
        """The largest velocity in the chart: lengths that errors are compared with."""
        return self.velocities.norm(dim=2).amax(1).clamp(min=torch.finfo(self.points.dtype).tiny)

    def finer_joints(self, pieces: int) -> Float[Tensor, "b K"]:
        """The joints of so many pieces on which ``z̈`` is equally far from a polynomial of lower degree.

        Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, section 9.2.
        """
        h = self.durations.squeeze(2)
        top = torch.einsum("km,bSmd->bSkd", _like(_legendre()[-2:], self.bends), self.bends)
        rough = h * top.norm(dim=3).sum(2) / self.size.unsqueeze(1)
        # what is interpolated by s values is off by the s-th power of the duration
        density = (rough + NEGLIGIBLE).nan_to_num(nan=1.0, posinf=1.0) ** (1 / STAGES) / h
        # neighbours differ little, and no piece becomes longer than two evenly spread ones
        pad = torch.cat([density[:, :1], density, density[:, -1:]], 1)
        density = torch.stack([density, pad[:, :-2] / 2, pad[:, 2:] / 2]).amax(0)
        density = density + (density * h).sum(1, keepdim=True)
        share = torch.cat([torch.zeros_like(h[:, :1]), (density * h).cumsum(1)], 1)
        share = share / share[:, -1:]
        wanted = torch.linspace(0, 1, pieces + 1, dtype=h.dtype, device=h.device).expand(len(h), -1).contiguous()
        place = (torch.searchsorted(share.contiguous(), wanted, right=True) - 1).clamp(0, h.shape[1] - 1)
        left, width = share.gather(1, place), share.diff(dim=1).gather(1, place)
        joints = self.joints.gather(1, place) + (wanted - left) / width * h.gather(1, place)
        return torch.cat([wanted[:, :1], joints[:, 1:-1], wanted[:, -1:]], 1)

    def at(self, joints: Float[Tensor, "b K"]) -> "Pieces":
        """The same curves in other pieces."""
        place, local = _located(self.joints, joints[:, :-1])
        _, once, twice = (torch.einsum("bRm,bRmd->bRd", w, _picked(self.bends, place)) for w in _weights(local))
        points, velocities = (_picked(a, place) for a in (self.points, self.velocities))
        h, t = _picked(self.durations, place), local.unsqueeze(2)
        return Pieces(
            joints,
            points + h * (t * velocities + h * twice),
            velocities + h * once,
            _interpolated(self.bends, self.joints, joints),
            self.target,
        )

    def away_from(self, other: "Pieces") -> Float[Tensor, " b"]:
        """The largest relative difference of the velocities at both ends, where collocation is most exact."""
        ours, theirs = (torch.stack([a.velocities[:, 0], a.ends[:, -1, 1]], 1) for a in (self, other))
        return ((ours - theirs).norm(dim=2) / ours.norm(dim=2)).amax(1)

    def moved(self, step: "Pieces", damping: Float[Tensor, " b"]) -> "Pieces":
        """The same with a part of a correction."""
        z, u, bends = (
            old + damping.view(-1, *[1] * (old.ndim - 1)) * new
            for old, new in _pairs(self, step, "points", "velocities", "bends")
        )
        return Pieces(self.joints, z, u, bends, self.target)

    def collocated(self, error: Float[Tensor, " b"]) -> "Collocated":
        """The curves with their errors, as they are returned."""
        z, u = (a.flatten(1, 2) for a in self.stages)
        z, u = torch.cat([self.points[:, :1], z], 1), torch.cat([self.velocities[:, :1], u], 1)
        even = torch.linspace(0, 1, self.joints.shape[1], dtype=z.dtype, device=z.device).expand_as(self.joints)
        nodes = torch.cat([self.at(even).points, self.target.unsqueeze(1)], 1)
        return Collocated(z, u, error, DiscreteCurve(nodes))

    def __getitem__(self, index: Tensor) -> "Pieces":
        return Pieces(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, index: Tensor, other: "Pieces") -> "Pieces":
        """Those of some pairs exchanged."""
        return Pieces(*(getattr(self, f.name).index_put((index,), getattr(other, f.name)) for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Slopes:
    """``∂Γ(u, u)/∂z`` and ``∂Γ(u, u)/∂u`` at Gauss's points, ``[out, in]``."""

    by_point: Float[Tensor, "b S s d d"]
    by_velocity: Float[Tensor, "b S s d d"]

    def between(self, joints: Float[Tensor, "b J"], others: Float[Tensor, "b K"]) -> "Slopes":
        """Those at the Gauss points of other pieces of the same curves, by interpolation."""
        return Slopes(*(_interpolated(a, joints, others) for a in (self.by_point, self.by_velocity)))

    def __getitem__(self, index: Tensor) -> "Slopes":
        return Slopes(self.by_point[index], self.by_velocity[index])

    def put(self, index: Tensor, other: "Slopes") -> "Slopes":
        """Those of some pairs exchanged."""
        return Slopes(
            self.by_point.index_put((index,), other.by_point), self.by_velocity.index_put((index,), other.by_velocity)
        )


@dataclass(frozen=True, eq=False)
class Collocated:
    """What collocation found.

    Attributes:
        points: on the curves, the first at the beginning; the other times are each curve's own.
        velocities: there.
        error: relative residual, or change with the last refinement if that is more; infinite where nothing was found.
        curve: the curves.
    """

    points: Float[Tensor, "b n d"]
    velocities: Float[Tensor, "b n d"]
    error: Float[Tensor, " b"]
    curve: DiscreteCurve


def collocate(connection: Connection, curve: DiscreteCurve) -> list[tuple[Tensor, Collocated]]:
    """The geodesics that discrete geodesics approximate, by Gauss collocation and Newton's method.

    On every piece ``z̈ = -Γ(ż, ż)`` holds at six Gauss points, and pieces meet with one velocity. All pieces of all
    pairs are solved for at once. Pairs whose velocities at the ends change with the number of pieces go on with half as
    many again, shorter where the curve bends, beginning with what was found and with its derivatives: 12 to 128 pieces.

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
    now, slopes, _ = _solve(connection, Pieces.through(connection, curve, PIECES), None)
    parts = []
    while len(index):
        pieces = min(MAX_PIECES, int(GROWTH * now.points.shape[1]))
        joints = now.finer_joints(pieces)
        finer, slopes, error = _solve(connection, now.at(joints), slopes.between(now.joints, joints))
        error = torch.maximum(error, finer.away_from(now)).nan_to_num(nan=torch.inf)
        done = error < torch.maximum(_attainable(finer) * SETTLED / TOL, torch.full_like(error, SETTLED))
        if pieces == MAX_PIECES:
            done = torch.ones_like(done)
        if bool(done.any()):
            parts.append((index[done], finer[done.nonzero().squeeze(1)].collocated(error[done])))
        rest = (~done).nonzero().squeeze(1)
        index, now, slopes = index[rest], finer[rest], slopes[rest]
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
        # what a fresh derivative does not mend needs a shorter step; at rounding error nothing helps any more
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
    inner, outer, c = (_like(a, at.bends) for a in (rule.inner, rule.outer, rule.points))
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
    return torch.cat([_defined(connection, *part) for part in parts]).reshape(u.shape)


def _defined(connection: Connection, z: Tensor, u: Tensor) -> Tensor:
    finite = torch.isfinite(z).all(1) & torch.isfinite(u).all(1)
    if not bool(finite.all()):
        turned = torch.full_like(z, torch.nan)
        return turned.index_put((finite,), _defined(connection, z[finite], u[finite])) if bool(finite.any()) else turned
    try:
        return connection(z, u, u)
    except (NonFiniteError, SingularMetricError):
        if len(z) == 1:
            return torch.full_like(z, torch.nan)
        halves = zip(z.tensor_split(2), u.tensor_split(2), strict=True)
        return torch.cat([_defined(connection, *half) for half in halves])


def _pairs(one: Pieces, other: Pieces, *names: str) -> list[tuple[Tensor, Tensor]]:
    return [(getattr(one, name), getattr(other, name)) for name in names]


def _located(joints: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """On which piece each time lies, and where on it, in [0, 1]."""
    place = (torch.searchsorted(joints.contiguous(), times.contiguous(), right=True) - 1).clamp(0, joints.shape[1] - 2)
    return place, (times - joints.gather(1, place)) / joints.diff(dim=1).gather(1, place)


def _picked(values: Float[Tensor, "b S *v"], place: Tensor) -> Float[Tensor, "b n *v"]:
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), place]


def _weights(t: Float[Tensor, "b n"]) -> list[Float[Tensor, "b n s"]]:
    """Of values at Gauss's points: for the value at t in [0, 1], and for the single and double integral up to it."""
    k = torch.arange(STAGES, dtype=t.dtype, device=t.device)
    monomials = t.unsqueeze(2) ** k
    once = monomials * t.unsqueeze(2) / (k + 1)
    twice = once * t.unsqueeze(2) / (k + 2)
    values = _like(_vandermonde(), t)
    return [a @ values for a in (monomials, once, twice)]


def _interpolated(values: Float[Tensor, "b S s *v"], joints: Tensor, others: Tensor) -> Float[Tensor, "b R s *v"]:
    """What is given at the Gauss points of some pieces, at those of others."""
    h = others.diff(dim=1).unsqueeze(2)
    times = (others[:, :-1, None] + h * _like(gauss(STAGES).points, others)).flatten(1)
    place, local = _located(joints, times)
    fine = torch.einsum("bnm,bnm...->bn...", _weights(local)[0], _picked(values, place))
    return fine.unflatten(1, (h.shape[1], STAGES))


@lru_cache
def _vandermonde() -> np.ndarray:
    """From values at Gauss's points to coefficients of monomials."""
    return np.linalg.inv(gauss(STAGES).points[:, None] ** np.arange(STAGES))


@lru_cache
def _legendre() -> np.ndarray:
    """From values at Gauss's points to coefficients of Legendre polynomials."""
    return np.linalg.inv(np.polynomial.legendre.legvander(2 * gauss(STAGES).points - 1, STAGES - 1))


def _like(value: np.ndarray, like: Tensor) -> Tensor:
    return torch.tensor(value, dtype=like.dtype, device=like.device)
