"""Centres that have been found, and the last steps with finer curves, which take the discretisation error away."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.geodesic.starts.base import InitialCurve
from pullgeo.manifold.base import Manifold
from pullgeo.stats.centers.newton import Power, search
from pullgeo.stats.centers.star import Curves, Star

FINER = 3
"""Segments at the end for each segment before, which divide the discretisation error by 81."""

FINAL_STEPS = 3
"""Steps with these segments; they begin so near that one is enough as a rule."""

FINAL_TOL = 1e-2
"""Their tolerance, in units of the one that is asked for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FoundCurves(Curves):
    """Curves that a search has left.

    Attributes:
        place: of each curve's point, among all.
        geodesics: the same curves as geodesics, with their statuses.
    """

    place: Int[Tensor, " n"]
    geodesics: Solution


@dataclass(frozen=True, eq=False, kw_only=True)
class Found(Star):
    """Centres of some groups, and the curves that lead from them.

    Attributes:
        number: of each of the groups, among all.
        status: how the search ended for each group.
        residual: of each group.
        iterations: steps taken for each group.
    """

    members: FoundCurves
    number: Int[Tensor, " g"]
    status: tuple[Status, ...]
    residual: Float[Tensor, " g"]
    iterations: Int[Tensor, " g"]

    @property
    def converged(self) -> Bool[Tensor, " g"]:
        """For which groups the search did."""
        return torch.tensor([end.converged for end in self.status], dtype=torch.bool, device=self.number.device)


def finished(
    manifold: Manifold, space: Manifold, found: Found, w: Float[Tensor, " n"], power: Power, tol: float
) -> list[Found]:
    """The groups in two parts: those whose centres converge with finer curves too, and the others as they were.

    Args:
        manifold: where the points live.
        space: the same in float64.
        found: all groups; those that have converged are tried.
        w: weights of all points.
        power: of the distances.
        tol: that was asked for.

    Cost: up to three steps with three times the segments.
    """
    ready = found.converged
    if not bool(ready.any()):
        return [found]
    before = found[ready]
    weights = w[before.members.place]
    curves = DiscreteCurve(before.nodes).resample(FINER * (before.nodes.shape[1] - 1))
    star = before.through(before.p, curves.nodes[:, 1:-1])
    star, residual, more, stalled = search(space, star, weights, power, FINAL_TOL * tol, FINAL_STEPS)
    tried = ready.nonzero().flatten()
    found = replace(found, iterations=found.iterations.index_add(0, tried, more))
    geodesics = followed(manifold, star, tol)
    after = replace(
        star,
        members=replace(star.members, geodesics=geodesics),
        status=statuses(star, geodesics, weights, residual, stalled, tol),
        residual=residual,
        iterations=before.iterations + more,
    )
    good = after.converged
    rest = torch.ones_like(ready).index_fill(0, tried[good], False)
    return [part for part in (after[good], found[rest]) if len(part)]


def followed(manifold: Manifold, star: Star, tol: float) -> Solution:
    """Geodesics near the curves of the star."""
    given = InitialCurve(DiscreteCurve(star.nodes))
    solver = Newton(tol=tol, segments=star.nodes.shape[1] - 1, starts=(given,))
    return manifold.geodesic(star.p[star.group], star.members.z, solver)


def statuses(
    star: Star, geodesics: Solution, w: Tensor, residual: Tensor, stalled: Tensor, tol: float
) -> tuple[Status, ...]:
    """For each group how its worst part ended."""
    failed: dict[int, Status] = {}
    for number, weight, end in zip(star.group.tolist(), w.tolist(), geodesics.status, strict=True):
        if weight > 0 and not end.converged:
            failed.setdefault(number, end)
    found = []
    for g, (left, stuck) in enumerate(zip(residual.tolist(), stalled.tolist(), strict=True)):
        own = Status.CONVERGED if left <= tol else Status.STALLED if stuck else Status.MAX_STEPS
        found.append(failed.get(g, own))
    return tuple(found)
