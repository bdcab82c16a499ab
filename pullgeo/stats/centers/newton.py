"""The search for the point that is nearest to many: one Newton system for it and for the curves that lead from it."""

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.descent.newton import Descent, descend
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.damped_newton import Damping, Iterate, damped_newton
from pullgeo.stats.centers.star import (
    Curves,
    Eliminated,
    Star,
    StarExpansion,
    beside,
    eliminate,
    expand,
    measured,
)

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


@dataclass(frozen=True)
class RelaxSettings:
    """How curves follow a step of their centre, each at its own pace, before the step is judged.

    Attributes:
        share: residual of a curve, in units of its group's, above which it is relaxed. Below, the next step of the
            centre takes the curve along as well as its residual is small.
        simplified: the same where second derivatives are kept: what they bring down is not relaxed.
        largest: residual above which a curve is relaxed in any case: its second derivatives say little.
        steps: bound on the steps of one curve. What is not relaxed then is judged as it is.
        damping: with which they begin: curves come from where damping was not needed.
    """

    share: float = 0.5
    simplified: float = 1e-2
    largest: float = 3e-2
    steps: int = 8
    damping: float = 1e-9


RELAX = RelaxSettings()


@dataclass(frozen=True, eq=False)
class Ended:
    """How a search for centres ended.

    Attributes:
        members: the curves, in the order in which they were given, with their expansions.
        residual: of each group.
        steps: of each group.
        stalled: which groups no step improves any more.
    """

    members: WeightedCurves
    residual: Float[Tensor, " g"]
    steps: Int[Tensor, " g"]
    stalled: Bool[Tensor, " g"]


def search(
    space: DiscreteEnergy,
    exact: Manifold,
    star: S,
    weights: Float[Tensor, " n"],
    power: Power,
    tol: float,
    max_steps: int,
    known: StarExpansion | None = None,
    curves: bool = True,
) -> tuple[S, Ended]:
    """Minimise ``Σ w E^(power/2)`` over the centres and the inner nodes of all curves.

    A damped Newton method with the exact Hessian: every curve's blocks are eliminated on their own, and what is left of
    all curves of a group adds up to a d x d system for its centre. Curves that do not follow a step of their centre go
    on by themselves, each with its own damping, so that one of them that bends sharply does not hold up the others.

    Args:
        space: where the curves live, perhaps in single precision.
        exact: the same in double precision, for the metric at the centres.
        star: where to begin.
        weights: of the curves.
        power: of the distances.
        tol: bound on the residual.
        max_steps: bound on the steps.
        known: the expansion where the search begins, to few digits perhaps. If it is given, second derivatives are not
            computed any more: these steps are simplified Newton steps, of which each costs a gradient, and of which few
            will do or none.
        curves: whether the residuals of curves count, or that of the centre alone.

    Cost: a step costs an expansion of the energies of all curves, as a step of N geodesics does, and a little more.
    """
    given = star.members
    place = torch.arange(len(weights), device=weights.device)
    problem = _StarNewton(space, exact, power, tol, known is not None, curves)
    found = expand(space, star) if known is None else known
    start = Search(
        p=star.p,
        members=WeightedCurves(inner=given.inner, z=given.z, weights=weights, place=place, found=found),
        group=star.group,
        residual=problem.residual(star, found, weights),
        **DAMPING.begin(star.p[:, 0]),
    )
    if known is not None:
        # a step by what is known costs nothing
        if max_steps:
            able = ~problem.done(start)
            start = replace(problem.moved(start)[0].where(able, start), steps=start.steps + able)
        found = measured(space, start, known)
        left = problem.residual(start, found, weights)
        start = replace(start, members=replace(start.members, found=found), residual=left)
    end = damped_newton(problem, start, DAMPING, max_steps)
    left = end.residual
    stuck = ~(left <= tol)
    if bool(stuck.any()):
        # the estimate of rounding errors is doubted until no step helps
        excused = problem.residual(end, end.members.found, end.members.weights, MARGIN) <= tol
        left = torch.where(stuck & excused, 0.0, left)
    members = end.members[end.members.place.argsort()]
    return star.through(end.p, members.inner), Ended(members, left, end.steps, end.damping > DAMPING.limit)


@dataclass(frozen=True, eq=False)
class _StarNewton:
    """Steps of centres, after the inner nodes of their curves are eliminated."""

    space: DiscreteEnergy
    exact: Manifold
    power: Power
    tol: float
    simplified: bool
    curves: bool

    def done(self, now: Search) -> Bool[Tensor, " g"]:
        return (now.residual <= self.tol) | ~torch.isfinite(now.residual)

    def residual(
        self, star: Star, found: StarExpansion, weights: Float[Tensor, " n"], margin: float = 1.0
    ) -> Float[Tensor, " g"]:
        """See the function of this name."""
        return residual(self.exact, star, found, weights, self.power, margin, self.curves)

    def step(self, now: Search) -> tuple[Search, Tensor, Tensor]:
        found, weights, power = now.members.found, now.members.weights, self.power
        trial, good = self.moved(now)
        trial, new = self.followed(now, trial)
        before, after = (now.sum(_weighted(weights, e.at.energy.clamp(min=0) ** (power / 2))) for e in (found, new))
        noise = now.sum(_weighted(weights, _power_rounding(found, power)))
        size = self.residual(trial, new, weights)
        falls = (after < before - noise) | ((after <= before + noise) & (size < now.residual))
        taken = good & falls & torch.isfinite(size)
        trial = replace(trial, residual=size, members=replace(trial.members, found=new))
        return trial.where(taken, now), taken, torch.full_like(size, 1 / 30)

    def moved(self, now: Search) -> tuple[Search, Bool[Tensor, " g"]]:
        """The centres after a damped step, the curves after they have responded to it, and for which there is one."""
        found, group, power = now.members.found, now.group, self.power
        each = eliminate(found, torch.zeros_like(now.members.weights))
        sure = each.good & torch.isfinite(each.relax).flatten(1).all(1) & torch.isfinite(each.schur).flatten(1).all(1)
        each = _assumed(each, found, sure)
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
        good = (info == 0) & torch.isfinite(dp).all(1)
        dp = torch.where(good.unsqueeze(1), dp, 0.0)
        dx = each.relax + torch.einsum("jnmi,nj->nmi", each.respond, dp[group])
        dx = torch.where((good[group] & torch.isfinite(dx).flatten(1).all(1)).view(-1, 1, 1), dx, 0.0)
        return now.through(now.p + dp, now.members.inner + dx), good

    def followed(self, now: Search, trial: Search) -> tuple[Search, StarExpansion]:
        """The curves after they have followed a step, each at its own pace, and their expansions.

        Cost: an expansion of all curves, or a gradient where second derivatives are kept; and of those that are behind,
        an expansion for each step of their own.
        """
        nodes, before = trial.nodes, now.members.found
        if self.simplified:
            found = measured(self.space, trial, before)
            at = found.at
            # that of the group may be none, where rounding errors in single precision account for it
            goal = RELAX.simplified * now.residual.maximum(now.most(before.at.residual))[now.group]
        else:
            at = self.space.expand_energy(nodes)
            goal = (RELAX.share * now.residual).clamp(max=RELAX.largest)[now.group]
        goal = goal.clamp(min=self.tol)
        behind = (at.residual > goal) & ~(at.residual <= MARGIN * at.rounding) & torch.isfinite(at.energy)
        rest = behind.nonzero().squeeze(1)
        if len(rest):
            there = self.space.expand_energy(nodes[rest]) if self.simplified else at[rest]
            least = self.tol if self.simplified else float(goal.min())
            end = descend(self.space, Descent.of(nodes[rest], there, RELAX.damping), least, RELAX.steps)
            trial = trial.through(trial.p, trial.members.inner.index_put((rest,), end.nodes[:, 1:-1]))
            if self.simplified:
                return trial, found.put(rest, beside(self.space, end.nodes, end.at))
            at, nodes = at.put(rest, end.at), trial.nodes
        return trial, found if self.simplified else beside(self.space, nodes, at)


def _assumed(each: Eliminated, found: StarExpansion, sure: Bool[Tensor, " n"]) -> Eliminated:
    """The same, where curves of which no minimum is near are taken for straight lines in a flat space."""
    if bool(sure.all()):
        return each
    unsure = ~sure
    segments = found.at.gradient.shape[1] + 1
    m = torch.linspace(1, 0, segments + 1, dtype=found.slope.dtype, device=found.slope.device)[1:-1]
    eye = torch.eye(found.slope.shape[1], dtype=m.dtype, device=m.device)
    fading = (m[:, None, None] * eye).permute(2, 0, 1).unsqueeze(1).expand_as(each.respond)
    return Eliminated(
        good=each.good,
        slope=torch.where(unsure.unsqueeze(1), found.slope, each.slope),
        # the Gauss-Newton diagonal next to the centre is about 4 T G, and a squared distance has 2 G
        schur=torch.where(unsure.view(-1, 1, 1), (found.at.damping[:, 0] / (2 * segments)).diag_embed(), each.schur),
        respond=torch.where(unsure.view(1, -1, 1, 1), fading, each.respond),
        relax=torch.where(unsure.view(-1, 1, 1), 0.0, each.relax),
    )


def residual(
    exact: Manifold,
    star: Star,
    found: StarExpansion,
    weights: Float[Tensor, " n"],
    power: Power,
    margin: float = 1.0,
    curves: bool = True,
) -> Float[Tensor, " g"]:
    """How far from stationary each group is, in a unit that no rescaling changes.

    The larger of two: the length of the mean tangent vector ``Σ w f'(E) log_p(z)`` over the mean length of those that
    it consists of, and the largest residual of a curve. Residuals that rounding errors account for are zero: mean
    tangents up to ``margin`` times the errors of their parts. Without ``curves`` it is the first of the two.
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
        G[finite] = exact.metric(star.p[finite]).dense()
    norm = (dual_norm(G, pull) - star.sum(spare)).clamp(min=0)
    norm = torch.where(norm <= margin * star.sum(_weighted(share, noise)), 0.0, norm)
    mean = torch.where(norm > 0, norm / size, 0.0)
    if not curves:
        return torch.where(finite, torch.nan_to_num(mean, nan=torch.inf), torch.inf)
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
