"""check_solver passes the default solver and fails solutions that are wrong in one respect."""

import functools
from dataclasses import replace

import pytest
import torch

from pullgeo import BoundaryValue, Newton, Solution, Status, solve
from pullgeo.curve import DiscreteCurve
from pullgeo.testing.contracts import KnownPairs, check_solver, known_pairs
from pullgeo.testing.contracts import solver as contract


def sphere() -> KnownPairs:
    return known_pairs()[0]


@pytest.mark.parametrize("case", known_pairs(), ids=lambda case: case.name)
def test_newton_passes(case):
    check_solver(Newton(), cases=[case])


def test_too_few_steps_are_reported():
    with pytest.raises(AssertionError, match="converged: statuses: MAX_STEPS"):
        check_solver(Newton(max_steps=1), cases=[sphere()])


@functools.cache
def solved() -> Solution:
    """The right solution, from which the broken ones are derived."""
    case = sphere()
    return solve(BoundaryValue(case.manifold, case.start, case.end), Newton())


def long(solution: Solution) -> Solution:
    return replace(solution, length=solution.length * (1 + 1e-4))


def overconfident(solution: Solution) -> Solution:
    return replace(solution, length=solution.length * (1 + 2e-7), error_estimate=solution.error_estimate * 0)


def unsquared(solution: Solution) -> Solution:
    return replace(solution, energy=solution.energy / 2)


def single(solution: Solution) -> Solution:
    return replace(solution, length=solution.length.float())


def moved(solution: Solution) -> Solution:
    return replace(solution, curve=DiscreteCurve(solution.curve.nodes + 1e-6))


def straight(solution: Solution) -> Solution:
    nodes = solution.curve.nodes
    t = torch.linspace(0, 1, nodes.shape[1], dtype=nodes.dtype)[:, None]
    return replace(solution, curve=DiscreteCurve(nodes[:, :1] + t * (nodes[:, -1:] - nodes[:, :1])))


def uneven(solution: Solution) -> Solution:
    times = torch.linspace(0, 1, 129, dtype=torch.float64) ** 2
    return replace(solution, curve=DiscreteCurve(solution.curve(times)))


def negative(solution: Solution) -> Solution:
    return replace(solution, residual=solution.residual - 1)


def undecided(solution: Solution) -> Solution:
    return replace(solution, status=tuple(Status.STALLED for _ in solution.status))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (long, "length: max error"),
        (overconfident, "error_estimate: true errors"),
        (unsquared, "energy = length²: max error"),
        (single, r"length: expected dtype torch\.float64"),
        (moved, "curve: ends: max error"),
        (straight, "length of the curve, finely: max error"),
        (uneven, "uniform speed"),
        (negative, "residual: expected a number"),
        (undecided, "converged: statuses: STALLED"),
    ],
)
def test_a_broken_solution_fails(broken, message, monkeypatch):
    monkeypatch.setattr(contract, "solve", lambda problem, solver: broken(solved()))
    with pytest.raises(AssertionError, match=rf"check_solver\(Newton\) on StereographicSphere: {message}"):
        check_solver(Newton(), cases=[sphere()])


def test_pairs_that_depend_on_their_batch_fail(monkeypatch):
    def coupled(problem, solver):
        solution = solve(problem, solver)
        return solution if len(solution) > 1 else replace(solution, length=2 * solution.length)

    monkeypatch.setattr(contract, "solve", coupled)
    with pytest.raises(AssertionError, match="a pair by itself: max error"):
        check_solver(Newton(), cases=[sphere()])


def test_equal_end_points_must_have_length_zero(monkeypatch):
    def restless(problem, solver):
        solution = solve(problem, solver)
        same = bool((problem.z0 == problem.z1).all())
        return replace(solution, length=solution.length + 1e-3) if same else solution

    monkeypatch.setattr(contract, "solve", restless)
    with pytest.raises(AssertionError, match="equal end points: max error"):
        check_solver(Newton(), cases=[sphere()])


def test_end_points_must_be_left_alone(monkeypatch):
    def pushy(problem, solver):
        problem.z0.mul_(1)
        return solve(problem, solver)

    monkeypatch.setattr(contract, "solve", pushy)
    with pytest.raises(AssertionError, match="end points: argument 0 was changed in place"):
        check_solver(Newton(), cases=[sphere()])
