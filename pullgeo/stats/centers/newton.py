"""The search for the point that is nearest to many: one Newton system for it and for the curves that lead from it."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.manifold.base import Manifold
from pullgeo.stats.centers.star import Bundle, BundleExpansion, eliminate, expand

STALL = 1e6
"""Damping beyond which a step that does not help says that none will."""

MARGIN = 8.0
"""How far above the estimate of rounding errors a residual may still be nothing but rounding."""

LEAST_ENERGY = 1e-200
"""Energies below this count as this, so that the third power of their root has an inverse."""

Power = Literal[1, 2]


@dataclass(frozen=True, eq=False)
class Search:
    """Where the search for some groups' centres stands.

    Attributes:
        bundle: the centres and the curves from them.
        found: the curves' energies there.
        weights: of the curves.
        damping: of each group.
        steps: taken or tried, of each group.
        residual: of each group; see `residual`.
    """

    bundle: Bundle
    found: BundleExpansion
    weights: Float[Tensor, " n"]
    damping: Float[Tensor, " g"]
    steps: Int[Tensor, " g"]
    residual: Float[Tensor, " g"]

    def __getitem__(self, chosen: Bool[Tensor, " g"]) -> "Search":
        """Some of the groups."""
        curves = chosen[self.bundle.group]
        return Search(
            self.bundle[chosen],
            self.found[curves],
            self.weights[curves],
            self.damping[chosen],
            self.steps[chosen],
            self.residual[chosen],
        )


def search(
    space: Manifold, bundle: Bundle, weights: Float[Tensor, " n"], power: Power, tol: float, max_steps: int
) -> tuple[Bundle, Float[Tensor, " g"], Int[Tensor, " g"], Bool[Tensor, " g"]]:
    """Minimise ``Σ w E^(power/2)`` over the centres and the inner nodes of all curves.

    A damped Newton method with the exact Hessian: every curve's blocks are eliminated on their own, and what is left of
    all curves of a group adds up to a d x d system for its centre.

    Returns:
        The bundle, residuals, steps, and which groups no step improves any more.

    Cost: a step costs an expansion of the energies of all curves, as a step of N geodesics does, and a little more.
    """
    found = expand(space, bundle)
    zero = torch.zeros_like(bundle.p[:, 0])
    now = Search(bundle, found, weights, zero, zero.long(), residual(space, bundle, found, weights, power))
    index = torch.arange(len(zero), device=zero.device)
    p, inner = bundle.p.clone(), bundle.inner.clone()
    damping, steps, left = zero.clone(), zero.long(), zero.clone()
    curves = torch.arange(len(weights), device=zero.device)
    while True:
        done = (now.residual <= tol) | (now.steps >= max_steps) | (now.damping > STALL) | ~torch.isfinite(now.residual)
        size = now.residual
        stuck = done & ~(size <= tol)
        if bool(stuck.any()):
            # the estimate of rounding errors is doubted until no step helps
            excused = residual(space, now.bundle, now.found, now.weights, power, MARGIN) <= tol
            size = torch.where(stuck & excused, 0.0, size)
        gone = done[now.bundle.group]
        p[index[done]], inner[curves[gone]] = now.bundle.p[done], now.bundle.inner[gone]
        damping[index[done]], steps[index[done]], left[index[done]] = (
            now.damping[done],
            now.steps[done],
            size[done],
        )
        if bool(done.all()):
            break
        if bool(done.any()):
            index, curves, now = index[~done], curves[~gone], now[~done]
        now = _step(space, now, power)
    return Bundle(p, inner, bundle.z, bundle.group), left, steps, damping > STALL


def _step(space: Manifold, now: Search, power: Power) -> Search:
    bundle, found, group = now.bundle, now.found, now.bundle.group
    each = eliminate(found, now.damping[group])
    first, second = derivatives(found.at.energy, power)
    weights = now.weights
    if power == 1:
        # a point at which the centre is, and which cannot hold it, has no say in where it goes
        weights = torch.where(coincident(found), 0.0, weights)
    weight = weights * first
    slope = bundle.sum(_weighted(weight, each.slope))
    bend = bundle.sum(_weighted(weight, each.bend))
    unit = bundle.sum(_weighted(weight, found.at.damping[:, 0]))
    unit = unit.clamp(min=1e-12 * unit.amax(1, keepdim=True))
    bend = bend + (now.damping.unsqueeze(1) * unit).diag_embed()
    outer = each.slope.unsqueeze(2) * each.slope.unsqueeze(1)
    exact = bend - bundle.sum(_weighted(-weights * second, outer))
    # without the second derivative of the power, which is not above zero, this is Weiszfeld's step
    sound = torch.linalg.cholesky_ex(exact)[1] == 0
    lower, info = torch.linalg.cholesky_ex(torch.where(sound.view(-1, 1, 1), exact, bend))
    dp = -torch.cholesky_solve(slope.unsqueeze(2), lower).squeeze(2)
    sure = each.good & torch.isfinite(each.relax).flatten(1).all(1)
    good = (info == 0) & (bundle.most((~sure & (now.weights > 0)).double()) == 0) & torch.isfinite(dp).all(1)
    dp = torch.where(good.unsqueeze(1), dp, 0.0)
    dx = each.relax + torch.einsum("jnmi,nj->nmi", each.respond, dp[group])
    dx = torch.where((good[group] & sure).view(-1, 1, 1), dx, 0.0)
    trial = bundle.moved(dp, dx)
    new = expand(space, trial)
    before, after = (bundle.sum(_weighted(now.weights, e.at.energy.clamp(min=0) ** (power / 2))) for e in (found, new))
    noise = bundle.sum(_weighted(now.weights, _power_rounding(found, power)))
    size = residual(space, trial, new, now.weights, power)
    lower_ = (after < before - noise) | ((after <= before + noise) & (size < now.residual))
    taken = good & lower_ & torch.isfinite(size)
    less = torch.where(now.damping < 1e-8, 0.0, now.damping / 30)
    return Search(
        trial.where(taken, bundle),
        new.where(taken[group], found),
        now.weights,
        torch.where(taken, less, (8 * now.damping).clamp(min=1e-3)),
        now.steps + 1,
        torch.where(taken, size, now.residual),
    )


def residual(
    space: Manifold,
    bundle: Bundle,
    found: BundleExpansion,
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
    pull = bundle.sum(_weighted(weight, found.slope))
    size = bundle.sum(_weighted(share, length)) + bundle.sum(spare)
    # where the decoder is not finite there is no metric to ask for
    finite = bundle.most((counts & ~torch.isfinite(energy)).double()) == 0
    G = torch.zeros(*bundle.p.shape, bundle.p.shape[1], dtype=bundle.p.dtype, device=bundle.p.device)
    if bool(finite.any()):
        G[finite] = space.metric(bundle.p[finite]).dense()
    norm = (dual_norm(G, pull) - bundle.sum(spare)).clamp(min=0)
    norm = torch.where(norm <= margin * bundle.sum(_weighted(share, noise)), 0.0, norm)
    mean = torch.where(norm > 0, norm / size, 0.0)
    curve = torch.where(counts & ~(at.residual <= MARGIN * at.rounding), at.residual, 0.0)
    left = mean.maximum(bundle.most(torch.nan_to_num(curve, nan=torch.inf)))  # of which the largest is known
    return torch.where(finite, torch.nan_to_num(left, nan=torch.inf), torch.inf)


def dual_norm(G: Float[Tensor, "g d d"], covector: Float[Tensor, "g d"]) -> Float[Tensor, " g"]:
    """``√(cᵀ G⁻¹ c)``, without the directions in which the metric vanishes."""
    values, vectors = torch.linalg.eigh(G)
    seen = values > 1e-13 * values.amax(1, keepdim=True)
    along = torch.einsum("gik,gi->gk", vectors, covector).square()
    return torch.where(seen, along / torch.where(seen, values, 1.0), 0.0).sum(1).sqrt()


def rounding(found: BundleExpansion) -> Float[Tensor, " n"]:
    """Rounding errors of the curves' first velocities, in the unit of their lengths."""
    tiny = torch.finfo(found.at.energy.dtype).tiny
    return found.at.rounding * found.at.energy.clamp(min=tiny).sqrt()


def coincident(found: BundleExpansion) -> Bool[Tensor, " n"]:
    """Which curves are so short that rounding errors leave no direction to their ends."""
    return found.at.energy.clamp(min=0).sqrt() <= MARGIN * rounding(found)


def _power_rounding(found: BundleExpansion, power: Power) -> Float[Tensor, " n"]:
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
