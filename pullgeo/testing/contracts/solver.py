"""What every solver of boundary-value problems must reach: distances that are known in closed form."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.metric_manifold import MetricManifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.testing import oracles
from pullgeo.testing.charts.flat import LinearChart, SwissRoll
from pullgeo.testing.charts.hyperbolic import HalfPlane
from pullgeo.testing.charts.information import BernoulliFisherRao
from pullgeo.testing.charts.spheres import StereographicSphere
from pullgeo.testing.contracts.judge import Judge


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """Pairs of points whose distance is known.

    Attributes:
        name: what to call them in messages.
        manifold: where they live.
        start: ``(b, d)``.
        end: ``(b, d)``.
        distance: ``(b,)``.
    """

    name: str
    manifold: Manifold
    start: Float[Tensor, "b d"]
    end: Float[Tensor, "b d"]
    distance: Float[Tensor, " b"]


def known_pairs() -> list[KnownPairs]:
    """A sphere, a plane in oblique coordinates, a rolled plane, Bernoulli variables and the half-plane."""
    start = torch.tensor([[0.3, 0.7], [0.5, 0.2], [0.1, 0.4]], dtype=torch.float64)
    end = torch.tensor([[0.8, 0.2], [0.4, 0.9], [0.6, 0.5]], dtype=torch.float64)
    oblique = LinearChart(torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype=torch.float64))
    maps = (StereographicSphere(2), oblique, SwissRoll(), BernoulliFisherRao())
    cases = [
        KnownPairs(type(chart).__name__, PullbackManifold(chart), start, end, chart.distance(start, end))
        for chart in maps
    ]
    half_plane = HalfPlane()
    cases.append(KnownPairs("HalfPlane", MetricManifold(half_plane), start, end, half_plane.distance(start, end)))
    return cases


def check_solver(solver: Solver, *, rtol: float = 1e-6, cases: list[KnownPairs] | None = None) -> None:
    """Check a solver on charts with closed-form distances.

    For every pair: it converges and says so; the length is the distance; the energy is the length squared; the curve
    starts and ends where it should, runs at uniform speed and is, evaluated finely, no longer than it says; the error
    estimate bounds the error; a pair of equal points has length zero; pairs do not depend on their neighbours in the
    batch; arguments are left alone.

    Args:
        solver: any value that `pullgeo.geodesic.solve` takes.
        rtol: relative error of the length that the solver is asked to reach.
        cases: pairs to try instead of `known_pairs`.

    Raises:
        AssertionError: a check fails; the text names the case, the check, the largest error and its place.

    Example:
        >>> from pullgeo.geodesic import Newton
        >>> check_solver(Newton(), cases=known_pairs()[1:2])
    """
    for case in known_pairs() if cases is None else cases:
        judge = Judge(f"check_solver({type(solver).__name__}) on {case.name}")
        with judge.unchanged("end points", case.start, case.end):
            solution = solve(BoundaryValue(case.manifold, case.start, case.end), solver)
        _check_solution(judge, case, solution, rtol)
        _check_batch(judge, case, solution, solver, rtol)


def _check_solution(judge: Judge, case: KnownPairs, solution: Solution, rtol: float) -> None:
    b = len(case.start)
    judge.require(solution.converged.shape == (b,), "converged", f"expected shape ({b},)")
    statuses = ", ".join(sorted({str(status) for status in solution.status}))
    judge.require(bool(solution.converged.all()), "converged", f"statuses: {statuses}")
    judge.close("length", solution.length, case.distance, like=case.start, rtol=rtol)
    error = (solution.length - case.distance).abs()
    honest = bool((error <= 10 * solution.error_estimate + 1e-9 * case.distance).all())
    judge.require(
        honest,
        "error_estimate",
        f"true errors {error.tolist()} are far above the estimates {solution.error_estimate.tolist()}",
    )
    judge.close("energy = length²", solution.energy, case.distance**2, like=case.start, rtol=max(1e-2, rtol))
    for name in ("residual", "iterations", "error_estimate"):
        value = getattr(solution, name)
        judge.require(value.shape == (b,) and bool((value >= 0).all()), name, "expected a number ≥ 0 for each pair")
    t = torch.linspace(0, 1, 65, dtype=case.start.dtype, device=case.start.device)
    nodes = solution.curve(t)
    judge.close("curve: ends", nodes[:, [0, -1]], torch.stack([case.start, case.end], dim=1), like=case.start)
    length = oracles.metric_length(lambda z: case.manifold.metric(z).dense(), nodes, segments=256)
    judge.close("length of the curve, finely", length, case.distance, rtol=max(1e-3, rtol))
    first, second = (
        oracles.metric_length(lambda z: case.manifold.metric(z).dense(), half, segments=128)
        for half in (nodes[:, :33], nodes[:, 32:])
    )
    judge.close("uniform speed: two halves of the curve", first, second, rtol=1e-2)


def _check_batch(judge: Judge, case: KnownPairs, solution: Solution, solver: Solver, rtol: float) -> None:
    alone = solve(BoundaryValue(case.manifold, case.start[1:2], case.end[1:2]), solver)
    judge.close("a pair by itself", alone.length, solution.length[1:2], rtol=rtol)
    still = solve(BoundaryValue(case.manifold, case.start, case.start), solver)
    judge.require(bool(still.converged.all()), "equal end points", "expected to converge at once")
    judge.close("equal end points", still.length, torch.zeros_like(case.distance), scale=float(case.distance.max()))
