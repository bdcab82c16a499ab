"""The search for a mean that finds every curve twice: once to come near, and once from there."""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.geodesic.descent.newton import Descent
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.single_precision import precision, single_precision
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.geodesic.solvers.search import Descend, LookCloser, Propose, Search, Stage
from pullgeo.geodesic.starts.base import Candidates
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.comparison import less
from pullgeo.stats.centers.found import Found, FoundCurves, known_geodesics, statuses
from pullgeo.stats.centers.newton import Ended, search
from pullgeo.stats.centers.star import Star, StarExpansion, expand

FINER = 3
"""Segments at the end for each segment before, which divide the discretisation error by 81."""

FINAL_STEPS = 3
"""Steps with these segments; they begin so near that one is enough as a rule."""

FINAL_TOL = 1e-2
"""Their tolerance, in units of the one that is asked for."""


@dataclass(frozen=True)
class ApproachSettings:
    """How a mean is approached.

    Attributes:
        segments: of the curves with which the neighbourhood of the mean is found, at the most.
        rough: residual at which a mean is near enough to search for all curves from it.
        rough_steps: bound on the steps until then.
        near: residual at which single precision has done what it can.
        steps: bound on the steps with second derivatives in single precision, when they are taken in double precision.
        moved: by how much a mean may still move after all curves have been searched for, relative to the root of the
            variance. Curves that have changed places since differ in length by no more than twice that.
        rounds: how often curves are searched for, from where the mean has moved to.
        smooth: by how much the length of a curve may change with half of its nodes, relatively, if finer curves are to
            be tried: with so few steps only what bends gently settles.
        same: how far apart the images of two curves may be, relative to their length, if a search that finds the one
            has found the other. Half of what tells paths of a `LatticeSearch` apart.
    """

    segments: int = 16
    rough: float = 5e-3
    rough_steps: int = 5
    near: float = 1e-4
    steps: int = 6
    moved: float = 1e-2
    rounds: int = 4
    smooth: float = 1e-4
    same: float = 0.1


SETTINGS = ApproachSettings()


@dataclass(frozen=True, eq=False)
class Approach:
    """What a mean is sought with.

    Attributes:
        manifold: where the points live.
        space: the same in double precision.
        near: the same in single precision, if it has that.
        solver: how curves are found.
        tol: bound on the residual.
        max_steps: bound on the steps.
    """

    manifold: Manifold
    space: Manifold
    near: DiscreteEnergy
    solver: Newton
    tol: float
    max_steps: int

    @staticmethod
    def to(manifold: Manifold, z: Tensor, solver: Newton, tol: float, max_steps: int) -> "Approach":
        """The points z."""
        space = manifold.in_double()
        return Approach(manifold, space, single_precision(manifold, space, z), solver, tol, max_steps)

    def means(
        self, p: Float[Tensor, "g d"], z: Float[Tensor, "n d"], group: Int[Tensor, " n"], w: Tensor, finish: bool
    ) -> list[Found]:
        """Means of groups, in two parts if those of some are found with finer curves and those of others are not.

        Args:
            p: where to begin.
            z: the points.
            group: which points belong together.
            w: weights.
            finish: try the last steps with finer curves.
        """
        goal = max(self.tol, SETTINGS.near)
        star = self._curves(Star.of(p, z[:, None], z, group), min(SETTINGS.segments, self.solver.segments), None)
        rough = max(self.tol, SETTINGS.rough)
        few = min(self.max_steps, SETTINGS.rough_steps)
        star, end = search(self.near, self.space, star, w, 2, rough, few, curves=False)
        steps = end.steps
        for _ in range(SETTINGS.rounds):
            before = star.p
            star = self._curves(star, self.solver.segments, star)
            star, end = search(self.near, self.space, star, w, 2, goal, self._left(steps))
            steps = steps + end.steps
            moving = self._moved(before, star, end, w)
            if not bool(moving.any()):
                break
        place = torch.arange(len(z), device=z.device)
        number = torch.arange(len(p), device=z.device)
        rest = torch.ones_like(number, dtype=torch.bool)
        parts: list[Found] = []
        chosen = self._smooth(star, w) if finish else ~rest
        if bool(chosen.any()):
            member = chosen[star.group]
            finer = replace(star[chosen], members=star.members[member])
            curves = DiscreteCurve(finer.nodes).resample(FINER * self.solver.segments)
            finer = finer.through(finer.p, curves.nodes[:, 1:-1])
            known = expand(self.near, finer)
            given = w[member], FINAL_TOL * self.tol, FINAL_STEPS, place[member], number[chosen], steps[chosen]
            tried = self._settled(finer, known, *given, moving[chosen])
            parts.append(tried[tried.converged])
            rest = rest.index_fill(0, parts[0].number, False)
        if bool(rest.any()):
            member = rest[star.group]
            part = replace(star[rest], members=star.members[member])
            known = end.members.found[member]
            last = w[member], self.tol, self._left(steps), place[member], number[rest], steps[rest], moving[rest]
            parts.append(self._settled(part, known, *last))
        return [part for part in parts if len(part)]

    def _left(self, steps: Int[Tensor, " g"]) -> int:
        return max(self.max_steps - int(steps.max()), 0)

    def _curves(self, star: Star, segments: int, known: Star | None) -> Star:
        """Curves from the centres near minimisers, as the solver's search finds them, or those known if shorter."""
        solver, p, z = self.solver, star.p[star.group], star.members.z
        goal = max(self.tol, SETTINGS.near)
        search = Propose(solver.starts, segments)(Search(self.near, self.near, p, z))
        follow: Stage = Descend(goal, solver.max_steps, solver.race_steps)
        others = [straight_line(p, z, segments).nodes]
        if known is not None:
            others.append(DiscreteCurve(known.nodes).resample(segments).nodes)
            follow = follow >> LookCloser(solver.starts, segments, goal, solver.max_steps, solver.race_steps)
            candidates = self._beside(cast(Candidates, search.candidates), others[1])
            search = replace(search, candidates=candidates)
        descent = cast(Descent, follow(search).descent)
        nodes, energy = descent.nodes, descent.at.energy
        for other in others:
            found = self.near.energy(other)
            better = less(found, energy)
            nodes = torch.where(better.view(-1, 1, 1), other, nodes)
            energy = torch.where(better, found, energy)
        return star.through(star.p, nodes[:, 1:-1])

    def _beside(self, proposed: Candidates, nodes: Float[Tensor, "n k d"]) -> Candidates:
        """The candidates; where the best of them leads the way that a known curve leads, this curve."""
        if self.solver.race_steps != 0:
            return proposed
        best = proposed.shortest(len(nodes))
        layers = torch.stack([best.nodes, nodes], 2).flatten(0, 1).unsqueeze(2)
        apart = self.near.chord_lengths(layers).reshape(len(nodes), -1).amax(1)
        return replace(
            best, nodes=torch.where((apart <= SETTINGS.same * best.length).view(-1, 1, 1), nodes, best.nodes)
        )

    def _smooth(self, star: Star, w: Tensor) -> Bool[Tensor, " g"]:
        """Which groups have curves whose lengths change little with half of their nodes."""
        fine, coarse = (self.near.energy(nodes).clamp(min=0).sqrt() for nodes in (star.nodes, star.nodes[:, ::2]))
        rough = ~((fine - coarse).abs() <= SETTINGS.smooth * fine) & (w > 0)
        return star.most(rough.double()) == 0

    def _moved(self, before: Float[Tensor, "g d"], star: Star, end: Ended, w: Tensor) -> Bool[Tensor, " g"]:
        """Which centres have moved farther than is allowed."""
        # where the decoder is not finite there is no metric to ask for, and no way to go
        known = torch.isfinite(end.residual)
        square = torch.zeros_like(end.residual)
        step = (star.p - before)[known]
        square[known] = self.space.metric(star.p[known]).quadratic(step.unsqueeze(0)).squeeze(0)
        energy = torch.where(w > 0, end.members.found.at.energy, 0.0)
        return known & (square > SETTINGS.moved**2 * star.sum(w * energy) / star.sum(w))

    def _settled(
        self,
        star: Star,
        found: StarExpansion,
        w: Tensor,
        tol: float,
        left: int,
        place: Tensor,
        number: Tensor,
        steps: Tensor,
        moving: Tensor,
    ) -> Found:
        """The last steps, in double precision; with second derivatives in single precision where these are enough."""
        scale = precision(self.space) / precision(self.near)
        known = replace(found, at=replace(found.at, rounding=scale * found.at.rounding))
        star, end = search(self.space, self.space, star, w, 2, tol, min(SETTINGS.steps, left), known)
        steps = steps + end.steps
        if bool((end.residual > self.tol).any()) and left > int(end.steps.max()):
            star, end = search(self.space, self.space, star, w, 2, tol, left - int(end.steps.max()))
            steps = steps + end.steps
        geodesics = known_geodesics(self.manifold, star, end.members.found, self.tol, self.solver)
        # where a curve has needed more segments to be measured, the mean is taken with as many
        while geodesics.curve.segments > star.nodes.shape[1] - 1:
            star = star.through(star.p, geodesics.curve.nodes[:, 1:-1].detach().to(star.p))
            star, end = search(self.space, self.space, star, w, 2, tol, left)
            steps = steps + end.steps
            geodesics = known_geodesics(self.manifold, star, end.members.found, self.tol, self.solver)
        residual = torch.where(moving, torch.inf, end.residual)
        return Found(
            p=star.p,
            group=star.group,
            members=FoundCurves(inner=star.members.inner, z=star.members.z, place=place, geodesics=geodesics),
            number=number,
            status=statuses(star, geodesics, w, residual, end.stalled, self.tol),
            residual=residual,
            iterations=steps,
        )
