"""Centres that have been found, and the geodesics from them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.geodesic.descent.newton import Descent
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solver import SearchResult
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.geodesic.starts.base import InitialCurve
from pullgeo.manifold.base import Manifold
from pullgeo.stats.centers.star import Curves, Star, StarExpansion


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


def followed(manifold: Manifold, star: Star, tol: float) -> Solution:
    """Geodesics near the curves of the star."""
    given = InitialCurve(DiscreteCurve(star.nodes))
    solver = Newton(tol=tol, segments=star.nodes.shape[1] - 1, starts=(given,))
    return manifold.geodesic(star.p[star.group], star.members.z, solver)


def known_geodesics(manifold: Manifold, star: Star, found: StarExpansion, tol: float, solver: Newton) -> Solution:
    """Curves that a search in double precision has left, as geodesics; those not yet there are followed.

    Cost: of all curves, the error estimate alone.
    """
    nodes, at = star.nodes, found.at
    result = Descent.of(nodes, at, 0.0).result(tol)
    rest = (~result.converged).nonzero().squeeze(1)
    known = _Known(result, rest, tol, solver)
    return manifold.geodesic(star.p[star.group], star.members.z, known)


@dataclass(frozen=True, eq=False)
class _Known:
    """A solver that knows the curves already, but for some that it still follows."""

    result: SearchResult
    rest: Int[Tensor, " r"]
    tol: float
    solver: Newton

    @property
    def rtol(self) -> float | None:
        return self.solver.rtol

    @property
    def max_segments(self) -> int:
        return self.solver.max_segments

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        found, rest = self.result, self.rest
        if not len(rest):
            return found
        given = InitialCurve(DiscreteCurve(found.nodes[rest]))
        solver = Newton(tol=self.tol, segments=found.nodes.shape[1] - 1, starts=(given,))
        return found.put(rest, solver.minimise(space, single, z0[rest], z1[rest]))

    def refined(self, space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> SearchResult:
        return self.solver.refined(space, nodes)


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
