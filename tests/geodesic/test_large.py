"""Many dimensions: steps without matrices, and their derivatives."""

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, Newton, PullbackManifold, Status
from pullgeo.geodesic import GaussNewton, StraightLine
from pullgeo.geodesic.descent import newton_cg
from pullgeo.testing.charts import LinearChart, PoincareBall, StereographicSphere

B = 3


@pytest.fixture
def without_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("descent.newton_cg", "implicit_diff", "descent.assess", "solvers.newton"):
        monkeypatch.setattr(importlib.import_module(f"pullgeo.geodesic.{name}"), "LARGE", 2)


def decoder(d: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 11), nn.Tanh(), nn.Linear(11, 13)).double()


def pairs(d: int) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, B, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
    return z[0], z[1]


@pytest.mark.parametrize("d", [50, 100, 1000])
def test_spheres_of_many_dimensions(d: int) -> None:
    chart = StereographicSphere(d)
    x, y = -torch.linspace(0, 1, d, dtype=torch.float64), torch.full((d,), 0.5, dtype=torch.float64)
    with torch.no_grad():
        solution = PullbackManifold(chart).geodesic(x, y)
    exact = float(chart.distance(x, y))
    assert bool(solution.converged.all())
    assert abs(float(solution.length) / exact - 1) < 1e-7
    assert abs(float(solution.length) - exact) <= float(solution.error_estimate)


@pytest.mark.usefixtures("without_matrices")
def test_the_same_solutions_and_statuses_with_and_without_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = {
        "map": (PullbackManifold(decoder(5)), pairs(5)),
        "metric": (MetricManifold(PoincareBall(3)), tuple(0.2 * z for z in pairs(3))),
        "flat": (PullbackManifold(LinearChart(torch.randn(7, 3, dtype=torch.float64))), pairs(3)),
    }
    for name, (manifold, (x, y)) in spaces.items():
        y = torch.where(torch.arange(B)[:, None] == 1, x, y)
        with torch.no_grad():
            free = manifold.geodesic(x, y, Newton(segments=8, rtol=None))
            with monkeypatch.context() as patched:
                patched.setattr(importlib.import_module("pullgeo.geodesic.solvers.newton"), "LARGE", 1000)
                dense = manifold.geodesic(x, y, Newton(segments=8, rtol=None))
        assert free.status == dense.status == (Status.CONVERGED, Status.COINCIDENT, Status.CONVERGED), name
        torch.testing.assert_close(free.length, dense.length, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(free.curve.nodes, dense.curve.nodes, rtol=0, atol=1e-6)
        assert bool((free.residual <= 1e-8).all())


@pytest.mark.usefixtures("without_matrices")
@pytest.mark.heavy
def test_derivatives_without_matrices() -> None:
    net = decoder(2)
    z0, z1 = (z.requires_grad_() for z in pairs(2))

    def ends(z0: Tensor, z1: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        solution = PullbackManifold(net).geodesic(
            z0, z1, Newton(segments=4, starts=(StraightLine(),), rtol=None, tol=1e-11)
        )
        return solution.length, solution.curve.nodes[:, 2]

    assert torch.autograd.gradcheck(ends, (z0[:2], z1[:2], net[0].bias), atol=1e-5)
    assert torch.autograd.gradgradcheck(lambda *x: ends(*x)[0], (z0[:1], z1[:1]), atol=1e-5)


@pytest.mark.usefixtures("without_matrices")
def test_what_does_not_converge_is_told() -> None:
    (x, y), net = pairs(2), decoder(2)

    def holed(z: Tensor) -> Tensor:
        return torch.where(z[:, :1] > 5, torch.nan, net(z))

    y = torch.cat([y[:2], torch.tensor([[11.0, 0.0]]).double()])
    with torch.no_grad():
        solution = PullbackManifold(holed).geodesic(x, y, Newton(segments=8, starts=(StraightLine(),)))
        hurried = PullbackManifold(net).geodesic(x, y, Newton(max_steps=1, tol=1e-12, starts=(StraightLine(),)))
        unsolved = PullbackManifold(net).geodesic(x, y, GaussNewton(max_steps=1))
    assert solution.status == (Status.CONVERGED, Status.CONVERGED, Status.NON_FINITE)
    assert set(hurried.status) == set(unsolved.status) == {Status.MAX_STEPS}


def nearly_singular(d: int) -> nn.Module:
    """A network whose metric has eigenvalues over eight orders of magnitude."""
    net = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, 2 * d)).double()
    U, S, V = torch.linalg.svd(net[0].weight.detach())
    sizes = 3 * 10 ** torch.linspace(0, -4, len(S), dtype=torch.float64)
    net[0].weight = nn.Parameter(U @ torch.diag(sizes) @ V)
    return net


@pytest.mark.usefixtures("without_matrices")
def test_systems_of_nearly_singular_metrics_take_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    manifold, (x, y) = PullbackManifold(nearly_singular(17)), pairs(17)
    taken: list[int] = []
    solved = newton_cg.conjugate_gradients

    def counted(*args: Any) -> Any:
        found = solved(*args)
        taken.extend(found[3].tolist())
        return found

    monkeypatch.setattr(newton_cg, "conjugate_gradients", counted)
    monkeypatch.setattr(newton_cg, "SETTINGS", replace(newton_cg.SETTINGS, memory=0))  # to the end without matrices
    solver = Newton(segments=8, rtol=None)
    with torch.no_grad():
        free = manifold.geodesic(x, y, solver)
        monkeypatch.setattr(importlib.import_module("pullgeo.geodesic.solvers.newton"), "LARGE", 1000)
        dense = manifold.geodesic(x, y, solver)
    assert bool(free.converged.all())
    # where the metric is nearly singular, residuals of 1e-8 leave so much
    torch.testing.assert_close(free.length, dense.length, rtol=1e-7, atol=0)
    assert max(taken) < newton_cg.SETTINGS.rounds


@pytest.mark.usefixtures("without_matrices")
def test_curves_whose_systems_are_not_solved_go_on_with_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    manifold, (x, y) = PullbackManifold(nearly_singular(7)), pairs(7)
    with torch.no_grad():
        usual = manifold.geodesic(x, y)
        monkeypatch.setattr(newton_cg, "SETTINGS", replace(newton_cg.SETTINGS, rounds=2))
        hasty = manifold.geodesic(x, y)
        monkeypatch.setattr(newton_cg, "SETTINGS", replace(newton_cg.SETTINGS, memory=0))
        stuck = manifold.geodesic(x, y, Newton(max_steps=5))
    assert bool(hasty.converged.all())
    torch.testing.assert_close(hasty.length, usual.length, rtol=1e-7, atol=0)
    assert set(stuck.status) == {Status.MAX_STEPS}


def test_conjugate_gradients_solve_each_system_and_see_negative_curvature() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(B, 14, 14, dtype=torch.float64, generator=generator)
    H = root @ root.mT + torch.eye(14, dtype=torch.float64)
    H[1] -= 30 * torch.eye(14, dtype=torch.float64)
    right = torch.randn(B, 7, 2, dtype=torch.float64, generator=generator)

    def product(v: Tensor) -> Tensor:
        return (H @ v.reshape(B, 14, 1)).reshape(v.shape)

    goal = torch.full((B,), 1e-12, dtype=torch.float64)
    x, bent, image, rounds = newton_cg.conjugate_gradients(product, lambda v: v, right, goal)
    assert bent.tolist() == [False, True, False]
    assert all(0 < count < newton_cg.SETTINGS.rounds for count in rounds.tolist())
    torch.testing.assert_close(image, product(x))
    good = ~bent
    torch.testing.assert_close(product(x)[good], right[good])
    assert float((x[1] * right[1]).sum()) > 0  # still a direction of descent
