"""The search for the point that is nearest to many: one Newton system for it and for the curves that lead from it."""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.manifold.base import Manifold
from pullgeo.numerics.damped_newton import Damping, Iterate, damped_newton
from pullgeo.stats.centers.star import Curves, Star, StarExpansion, eliminate, expand

DAMPING = Damping(first=0.0, growth=8.0, restart=1e-3, vanishing=1e-8)
"""In units of the Gauss-Newton diagonal; none as long as all goes well."""

MARGIN = 8.0
"""How far above the estimate of rounding errors a residual may still be nothing but rounding."""

LEAST_ENERGY = 1e-200
"""Energies below this count as this, so that the third power of their root has an inverse."""

Power = Literal[1, 2]

S = TypeVar("S", bound=Star)


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedCurves(Curves):
    """Curves in a search: their weights, their places among all, and the expansion of their energies."""

    weights: Float[Tensor, " n"]
    place: Int[Tensor, " n"]
    found: StarExpansion


@dataclass(frozen=True, eq=False, kw_only=True)
class Search(Star, Iterate):
    """Where the search for some groups' centres stands; see `residual`."""

    members: WeightedCurves
    residual: Float[Tensor, " g"]


def search(
    space: Manifold, star: S, weights: Float[Tensor, " n"], power: Power, tol: float, max_steps: int
) -> tuple[S, Float[Tensor, " g"], Int[Tensor, " g"], Bool[Tensor, " g"]]:
    """Minimise ``Σ w E^(power/2)`` over the centres and the inner nodes of all curves.

    A damped Newton method with the exact Hessian: every curve's blocks are eliminated on their own, and what is left of
    all curves of a group adds up to a d x d system for its centre.

    Returns:
        The star, residuals, steps, and which groups no step improves any more.

    Cost: a step costs an expansion of the energies of all curves, as a step of N geodesics does, and a little more.
    """
    found, curves = expand(space, star), star.members
    place = torch.arange(len(weights), device=weights.device)
    start = Search(
        p=star.p,
        members=WeightedCurves(inner=curves.inner, z=curves.z, weights=weights, place=place, found=found),
        group=star.group,
        residual=residual(space, star, found, weights, power),
        **DAMPING.begin(star.p[:, 0]),
    )
    end = damped_newton(_StarNewton(space, power, tol), start, DAMPING, max_steps)
    left = end.residual
    stuck = ~(left <= tol)
    if bool(stuck.any()):
        # the estimate of rounding errors is doubted until no step helps
        excused = residual(space, end, end.members.found, end.members.weights, power, MARGIN) <= tol
        left = torch.where(stuck & excused, 0.0, left)
    order = end.members.place.argsort()
    return star.through(end.p, end.members.inner[order]), left, end.steps, end.damping > DAMPING.limit


@dataclass(frozen=True, eq=False)
class _StarNewton:
    """Steps of centres, after the inner nodes of their curves are eliminated."""

    space: Manifold
    power: Power
    tol: float

    def done(self, now: Search) -> Bool[Tensor, " g"]:
        return (now.residual <= self.tol) | ~torch.isfinite(now.residual)

    def step(self, now: Search) -> tuple[Search, Tensor, Tensor]:
        found, group, power = now.members.found, now.group, self.power
        each = eliminate(found, now.damping[group])
        first, second = derivatives(found.at.energy, power)
        weights = now.members.weights
        if power == 1:
            # a point at which the centre is, and which cannot hold it, has no say in where it goes
            weights = torch.where(coincident(found), 0.0, weights)
        weight = weights * first
        slope = now.sum(_weighted(weight, each.slope))
        schur = now.sum(_weighted(weight, each.schur))
        unit = now.sum(_weighted(weight, found.at.damping[:, 0]))
        unit = unit.clamp(min=1e-12 * unit.amax(1, keepdim=True))
        schur = schur + (now.damping.unsqueeze(1) * unit).diag_embed()
        outer = each.slope.unsqueeze(2) * each.slope.unsqueeze(1)
        exact = schur - now.sum(_weighted(-weights * second, outer))
        # without the second derivative of the power, which is not above zero, this is Weiszfeld's step
        sound = torch.linalg.cholesky_ex(exact)[1] == 0
        lower, info = torch.linalg.cholesky_ex(torch.where(sound.view(-1, 1, 1), exact, schur))
        dp = -torch.cholesky_solve(slope.unsqueeze(2), lower).squeeze(2)
        sure = each.good & torch.isfinite(each.relax).flatten(1).all(1)
        weights = now.members.weights
        good = (info == 0) & (now.most((~sure & (weights > 0)).double()) == 0) & torch.isfinite(dp).all(1)
        dp = torch.where(good.unsqueeze(1), dp, 0.0)
        dx = each.relax + torch.einsum("jnmi,nj->nmi", each.respond, dp[group])
        dx = torch.where((good[group] & sure).view(-1, 1, 1), dx, 0.0)
        trial = now.through(now.p + dp, now.members.inner + dx)
        new = expand(self.space, trial)
        before, after = (now.sum(_weighted(weights, e.at.energy.clamp(min=0) ** (power / 2))) for e in (found, new))
        noise = now.sum(_weighted(weights, _power_rounding(found, power)))
        size = residual(self.space, trial, new, weights, power)
        falls = (after < before - noise) | ((after <= before + noise) & (size < now.residual))
        taken = good & falls & torch.isfinite(size)
        trial = replace(trial, residual=size, members=replace(trial.members, found=new))
        return trial.where(taken, now), taken, torch.full_like(size, 1 / 30)


def residual(
    space: Manifold,
    star: Star,
    found: StarExpansion,
    weights: Float[Tensor, " n"],
    power: Power,
    margin: float = 1.0,
) -> Float[Tensor, " g"]:
    """How far from stationary each group is, in a unit that no rescaling changes.

    The larger of two: the length of the mean tangent vector ``Σ w f'(E) log_p(z)`` over the mean length of those that
    it consists of, and the largest residual of a curve. Residuals that rounding errors account for are zero: mean
    tangents up to ``margin`` times the errors of their parts.
    """
    at, counts = found.at, weights > 0
    energy = at.energy.clamp(min=0)
    length, noise = energy.sqrt(), rounding(found)
    if power == 2:
        weight, share = weights, 2 * weights
        spare = torch.zeros_like(weights)
    else:
        # no direction is known to a point that cannot be told from the centre: it holds on to it with all its weight
        near = coincident(found)
        weight = torch.where(near, 0.0, weights / (2 * torch.where(near, 1.0, length)))
        share, spare = 2 * weight, torch.where(near, weights, 0.0)
    pull = star.sum(_weighted(weight, found.slope))
    size = star.sum(_weighted(share, length)) + star.sum(spare)
    # where the decoder is not finite there is no metric to ask for
    finite = star.most((counts & ~torch.isfinite(energy)).double()) == 0
    G = torch.zeros(*star.p.shape, star.p.shape[1], dtype=star.p.dtype, device=star.p.device)
    if bool(finite.any()):
        G[finite] = space.metric(star.p[finite]).dense()
    norm = (dual_norm(G, pull) - star.sum(spare)).clamp(min=0)
    norm = torch.where(norm <= margin * star.sum(_weighted(share, noise)), 0.0, norm)
    mean = torch.where(norm > 0, norm / size, 0.0)
    curve = torch.where(counts & ~(at.residual <= MARGIN * at.rounding), at.residual, 0.0)
    left = mean.maximum(star.most(torch.nan_to_num(curve, nan=torch.inf)))  # of which the largest is known
    return torch.where(finite, torch.nan_to_num(left, nan=torch.inf), torch.inf)


def dual_norm(G: Float[Tensor, "g d d"], covector: Float[Tensor, "g d"]) -> Float[Tensor, " g"]:
    """``√(cᵀ G⁻¹ c)``, without the directions in which the metric vanishes."""
    values, vectors = torch.linalg.eigh(G)
    seen = values > 1e-13 * values.amax(1, keepdim=True)
    along = torch.einsum("gik,gi->gk", vectors, covector).square()
    return torch.where(seen, along / torch.where(seen, values, 1.0), 0.0).sum(1).sqrt()


def rounding(found: StarExpansion) -> Float[Tensor, " n"]:
    """Rounding errors of the curves' first velocities, in the unit of their lengths."""
    tiny = torch.finfo(found.at.energy.dtype).tiny
    return found.at.rounding * found.at.energy.clamp(min=tiny).sqrt()


def coincident(found: StarExpansion) -> Bool[Tensor, " n"]:
    """Which curves are so short that rounding errors leave no direction to their ends."""
    return found.at.energy.clamp(min=0).sqrt() <= MARGIN * rounding(found)


def _power_rounding(found: StarExpansion, power: Power) -> Float[Tensor, " n"]:
    """Bounds on the rounding errors of ``E^(power/2)``."""
    length = found.at.energy.clamp(min=0).sqrt()
    eps = torch.finfo(length.dtype).eps
    relative = 4 * eps * length + MARGIN * rounding(found)
    return relative * length if power == 2 else relative / 2


def _weighted(weights: Float[Tensor, " n"], values: Float[Tensor, "n *rest"]) -> Float[Tensor, "n *rest"]:
    """``w v``; a point without weight says nothing, even where it says NaN."""
    weights = weights.view(-1, *[1] * (values.ndim - 1))
    return torch.where(weights > 0, weights * values, 0.0)


def derivatives(energy: Tensor, power: Power) -> tuple[Tensor, Tensor]:
    """Of ``E^(power/2)`` with respect to E."""
    if power == 2:
        return torch.ones_like(energy), torch.zeros_like(energy)
    # tight groups stand beside wide ones: what is small for one of them is not for another
    root = energy.clamp(min=LEAST_ENERGY).sqrt()
    return 1 / (2 * root), -1 / (4 * root**3)
