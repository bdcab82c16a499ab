"""Solvers beside the default one: what they find, and that they never claim more."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from pullgeo import BoundaryValue, MetricManifold, Newton, PullbackManifold, Status, solve
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic import (
    CollocationBVP,
    EnergyMinimizer,
    GaussNewton,
    Georce,
    GraphPath,
    InitialCurve,
    LatticeSearch,
    Race,
    Shooting,
    Solver,
    StraightLine,
)
from pullgeo.geodesic.energy.left_endpoint import LeftEndpoint
from pullgeo.testing import check_solver
from pullgeo.testing.charts import HalfPlane, LinearChart, StereographicSphere
from pullgeo.testing.contracts.solver import KnownPairs, known_pairs

B = 3


def smooth(d: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 11), nn.Tanh(), nn.Linear(11, 7), nn.Softplus()).double()


def pairs(d: int = 2) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, B, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    return z[0], z[1]


def hill(z: Tensor) -> Tensor:
    return torch.cat([z, 6 * torch.exp(-2 * z.square().sum(1, keepdim=True))], 1)


def across_the_hill() -> tuple[Tensor, Tensor]:
    return torch.tensor([[-2.0, 0.0], [-2.0, 1.0]]).double(), torch.tensor([[2.0, 0.0], [-1.0, 1.0]]).double()


def named(*names: str) -> list[KnownPairs]:
    return [case for case in known_pairs() if case.name in names]


@pytest.mark.heavy
def test_every_solver_keeps_the_contract() -> None:
    check_solver(GaussNewton(starts=(StraightLine(),)), cases=named("StereographicSphere", "HalfPlane"))
    check_solver(Shooting(starts=(StraightLine(),)), cases=named("StereographicSphere"))
    check_solver(CollocationBVP(tol=1e-7, starts=(StraightLine(),)), cases=named("SwissRoll"))


@pytest.mark.parametrize(
    "solver",
    [
        GaussNewton(starts=(LatticeSearch(),)),
        EnergyMinimizer(segments=16),
        EnergyMinimizer(segments=16, knots=6),
        EnergyMinimizer(optimizer=lambda p: torch.optim.Adam(p, lr=3e-3), segments=8, knots=4, tol=1e-2, max_steps=400),
        Shooting(starts=(StraightLine(),)),
        CollocationBVP(starts=(StraightLine(),)),
    ],
    ids=lambda solver: type(solver).__name__,
)
@pytest.mark.heavy
def test_solvers_agree_within_their_error_estimates(solver: Solver) -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    with torch.no_grad():
        exact = manifold.geodesic(z0, z1, Newton(segments=64)).length
        solution = manifold.geodesic(z0, z1, solver)
    assert bool(solution.converged.all())
    assert bool(((solution.length - exact).abs() <= 3 * solution.error_estimate + 1e-9 * exact).all())
    torch.testing.assert_close(solution.length, exact, rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    "solver",
    [
        GaussNewton(max_steps=1, starts=(StraightLine(),)),
        EnergyMinimizer(max_steps=1, optimizer=lambda p: torch.optim.SGD(p, lr=1e-9)),
        Georce(max_steps=1, segments=8),
        Shooting(max_steps=1),
        CollocationBVP(max_nodes=33, tol=1e-12),
        GraphPath(torch.zeros(1, 2), neighbours=1),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_no_solver_claims_what_it_has_not_reached(solver: Solver) -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    with torch.no_grad():
        exact = manifold.geodesic(z0, z1).length
        solution = manifold.geodesic(z0, z1, solver)
    failed = ~solution.converged
    assert bool(failed.any())
    assert {status for status in solution.status if not status.converged} <= {
        Status.MAX_STEPS,
        Status.MISSED,
        Status.UPPER_BOUND,
    }
    # what has not converged knows how far it may be from the end
    assert bool(((solution.length - exact).abs() <= 3 * solution.error_estimate)[failed].all())


@pytest.mark.heavy
def test_one_bad_pair_does_not_lose_the_others() -> None:
    f = smooth()

    def holed(z: Tensor) -> Tensor:
        return torch.where((z[:, :1] > 5) & (z[:, :1] < 6), torch.nan, f(z))

    z0, z1 = pairs()
    z0, z1 = torch.cat([z0, torch.zeros(1, 2).double()]), torch.cat([z1, torch.tensor([[11.0, 0.0]]).double()])
    line = (StraightLine(),)
    with torch.no_grad():
        for solver in (
            GaussNewton(starts=line),
            EnergyMinimizer(tol=1e-4),
            Georce(segments=16, tol=1e-4, max_steps=100),
            Shooting(segments=8, starts=line),
            CollocationBVP(starts=line, tol=1e-4),
        ):
            solution = PullbackManifold(holed).geodesic(z0, z1, solver)
            assert solution.status[:B] == (Status.CONVERGED,) * B, solver
            assert not solution.converged[B], solver


def test_where_the_metric_is_singular_the_equation_is_not_solved() -> None:
    both = torch.tensor([[1.0, 1.0]]).double()
    f = smooth(1)
    z0, z1 = pairs()
    with torch.no_grad():
        for solver in (
            Shooting(segments=4, starts=(StraightLine(),)),
            CollocationBVP(segments=4, starts=(StraightLine(),)),
        ):
            solution = PullbackManifold(lambda z: f(z @ both.T)).geodesic(z0, z1, solver)
            assert set(solution.status) <= {Status.SINGULAR, Status.MISSED, Status.MAX_STEPS}


def test_georce_solves_its_own_problem_whose_error_is_of_first_order() -> None:
    chart = StereographicSphere(3)
    manifold = PullbackManifold(chart)
    x, y = torch.tensor([[-0.8, 0.1, 0.2]]).double(), torch.tensor([[0.5, 0.6, 0.1]]).double()
    exact = float(chart.distance(x, y))
    with torch.no_grad():
        found = [manifold.geodesic(x, y, Georce(segments=n, tol=1e-8)) for n in (32, 64, 128)]
        errors = [float(s.length) - exact for s in found]
        # the same stationary curve as Newton's on the same energy
        left = LeftEndpoint(manifold)
        newton = solve(BoundaryValue(left, x, y), Newton(segments=32, starts=(InitialCurve(found[0].curve),)))
    assert all(bool(s.converged.all()) for s in found)
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.15)
    assert all(abs(e) <= 2 * float(s.error_estimate) for e, s in zip(errors, found, strict=True))
    torch.testing.assert_close(newton.energy, found[0].energy, rtol=1e-9, atol=0)
    torch.testing.assert_close(newton.curve.nodes, found[0].curve.nodes, rtol=0, atol=1e-6)


def test_georce_takes_any_metric() -> None:
    chart = HalfPlane()
    x, y = torch.tensor([[0.3, 0.7], [0.5, 0.2]]).double(), torch.tensor([[0.8, 0.2], [0.4, 0.9]]).double()
    with torch.no_grad():
        solution = MetricManifold(chart).geodesic(x, y, Georce())
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.length, chart.distance(x, y), rtol=2e-2, atol=0)
    flat = LinearChart(torch.randn(5, 2, dtype=torch.float64))
    torch.testing.assert_close(PullbackManifold(flat).geodesic(x, y, Georce()).length, flat.distance(x, y))


def test_a_graph_leads_around_what_the_line_crosses() -> None:
    manifold, (z0, z1) = PullbackManifold(hill), across_the_hill()
    grid = GraphPath.grid(torch.tensor([-3.0, -3.0]), torch.tensor([3.0, 3.0]), 9)
    with torch.no_grad():
        shortest = manifold.geodesic(z0, z1).length
        path = manifold.geodesic(z0, z1, grid)
        polished = manifold.geodesic(z0, z1, Newton(starts=(grid,)))
        over = manifold.geodesic(z0, z1, Newton(starts=(StraightLine(),))).length
    assert path.status == (Status.UPPER_BOUND,) * 2
    assert bool(((path.length >= shortest * (1 - 1e-3)) & (path.length < 1.15 * shortest)).all())
    assert float(over[0]) > 1.3 * float(shortest[0])
    assert bool(polished.converged.all())
    torch.testing.assert_close(polished.length, shortest)


def test_a_path_does_not_depend_on_the_company_or_need_a_connected_graph() -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    points = torch.randn(2, 7, 2, dtype=torch.float64)
    islands = torch.cat([points[0] / 10, 50 + points[1] / 10])
    graph = GraphPath(islands, neighbours=2)
    with torch.no_grad():
        together = manifold.geodesic(z0, z1, graph)
        alone = manifold.geodesic(z0[1:2], z1[1:2], graph)
    torch.testing.assert_close(together.length[1:2], alone.length)
    assert bool(torch.isfinite(together.length).all())


def test_distinct_minima_are_counted() -> None:
    manifold, (z0, z1) = PullbackManifold(hill), across_the_hill()
    with torch.no_grad():
        default = manifold.geodesic(z0, z1)
        all_of_them = manifold.geodesic(z0, z1, Newton(candidates="all", starts=(StraightLine(), LatticeSearch())))
    assert default.minima.tolist() == [1, 1]
    # both ways around, and the way over the top, on which steps from the line may stay; the other pair has one way
    assert int(all_of_them.minima[0]) in (2, 3)
    assert int(all_of_them.minima[1]) == 1
    torch.testing.assert_close(all_of_them.length, default.length)


def test_segments_are_doubled_until_the_estimate_is_small_enough() -> None:
    chart = StereographicSphere(2)
    x = torch.tensor([[-0.8, 0.1], [0.3, 0.3], [0.0, 0.0]]).double()
    y = torch.tensor([[3.0, 2.0], [0.3, 0.31], [0.0, 0.0]]).double().requires_grad_()
    manifold = PullbackManifold(chart)
    once = manifold.geodesic(x, y, Newton(segments=8))
    solution = manifold.geodesic(x, y, Newton(segments=8, rtol=1e-9))
    assert float(once.error_estimate[0]) > 1e-5
    assert solution.curve.segments > 32
    assert bool((solution.error_estimate <= 1e-9 * solution.length).all())
    assert bool(solution.converged.all())
    exact = chart.distance(x, y)
    torch.testing.assert_close(solution.length, exact, rtol=1e-9, atol=1e-12)
    (found,) = torch.autograd.grad(solution.length[:2].sum(), y)
    (expected,) = torch.autograd.grad(exact[:2].sum(), y)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_an_accuracy_out_of_reach_is_told() -> None:
    solution = PullbackManifold(smooth()).geodesic(*pairs(), Newton(segments=4, rtol=1e-12, max_segments=8))
    assert set(solution.status) == {Status.COARSE}
    assert not bool(solution.converged.any())
    assert "rtol" in str(Status.COARSE)


@pytest.mark.usefixtures("without_type_checks")
def test_errors_say_what_to_do() -> None:
    manifold, (z0, z1) = PullbackManifold(smooth()), pairs()
    for make in (GaussNewton, EnergyMinimizer, Georce, Shooting, CollocationBVP):
        for wrong in ({"tol": 0.0}, {"segments": 5}, {"starts": ()}):
            with pytest.raises(OptionError, match=f"{make.__name__}: {next(iter(wrong))}"):
                make(**wrong)
    for make, wrong in (
        (EnergyMinimizer, {"knots": 1}),
        (EnergyMinimizer, {"optimizer": None}),
        (Shooting, {"substeps": 0}),
        (CollocationBVP, {"max_nodes": 3}),
        (Newton, {"candidates": "none"}),
        (Newton, {"rtol": 0.0}),
    ):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            make(**wrong)
    for wrong, text in (
        ({"points": torch.zeros(5)}, r"\(n, d\)"),
        ({"points": torch.zeros(5, 2), "neighbours": 6}, "neighbours"),
        ({"points": torch.zeros(5, 2), "neighbours": 1, "segments": 3}, "segments"),
    ):
        with pytest.raises((OptionError, ShapeError), match=text):
            GraphPath(**wrong)
    with pytest.raises(OptionError, match="a million"):
        GraphPath.grid(torch.zeros(9), torch.ones(9), 10)
    with pytest.raises(ShapeError, match="another dimension"):
        manifold.geodesic(z0, z1, GraphPath(torch.zeros(5, 3), neighbours=1))
    for solver, text in ((GaussNewton(), "gauss_newton"), (Shooting(), "connection"), (CollocationBVP(), "connection")):
        with pytest.raises(OptionError, match=text):
            solve(BoundaryValue(LeftEndpoint(manifold), z0, z1), solver)


@pytest.mark.parametrize("solver", ["newton", Newton, 8], ids=str)
def test_what_is_no_solver_is_named(solver: object, without_type_checks: None) -> None:
    problem = BoundaryValue(PullbackManifold(smooth()), *pairs())
    for call in (lambda: solve(problem, solver), lambda: problem.manifold.geodesic(*pairs(), solver)):
        with pytest.raises(OptionError, match=r"solver must be a solver with its options, such as Newton"):
            call()


@pytest.mark.parametrize(("race", "candidates"), [(0, "shortest"), (None, "all"), (3, Race(3))], ids=str)
def test_the_former_option_of_newton_warns(race: int | None, candidates: object) -> None:
    with pytest.warns(DeprecationWarning, match="now called candidates"):
        solver = Newton(race=race)
    assert solver.candidates == candidates
