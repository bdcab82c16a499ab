"""Distances between points down to one unit in the last place, with their derivatives, against closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import Manifold, MetricManifold, Newton, PullbackManifold, Status
from pullgeo.geodesic import CollocationBVP, EnergyMinimizer, GaussNewton, Georce, GraphPath, Shooting, Solver
from pullgeo.testing.charts import PoincareBall, StereographicSphere

X = torch.tensor([[0.7, -0.3], [0.2, 0.5], [-0.4, 0.1]], dtype=torch.float64)
AWAY = torch.tensor([[1.0, 0.5], [0.3, -0.8], [0.0, 1.0]], dtype=torch.float64)
LADDER = (1e-5, 1e-6, 3e-7, 1e-7, 1e-8, 1e-10, 1e-12, 1e-14, 1e-15, 0.0)
"""The last step stands for one unit in the last place."""


def near(x: Tensor, step: float) -> Tensor:
    return x + step * AWAY.to(x) if step else torch.nextafter(x, torch.full_like(x, 9.0))


def on_sphere(x: Tensor, y: Tensor) -> Tensor:
    """From the difference of the points, which is exact: nothing cancels."""
    x, y = x.double(), y.double()
    return 2 * ((y - x).norm(dim=1) / ((1 + x.square().sum(1)) * (1 + y.square().sum(1))).sqrt()).asin()


def in_ball(x: Tensor, y: Tensor) -> Tensor:
    return 2 * ((y - x).norm(dim=1) / ((1 - x.square().sum(1)) * (1 - y.square().sum(1))).sqrt()).asinh()


def metric_in_output(y: Tensor) -> Tensor:
    return torch.eye(3, dtype=y.dtype).expand(len(y), 3, 3) + 0 * y.sum()


SPHERE = StereographicSphere(2)
MANIFOLDS: dict[str, tuple[Manifold, Callable]] = {
    "chords": (PullbackManifold(SPHERE), on_sphere),
    "segments in the output": (PullbackManifold(SPHERE, metric_in_output), on_sphere),
    "segments": (MetricManifold(PoincareBall(2).metric), in_ball),
}
SOLVERS: list[Solver] = [
    Newton(segments=8),
    Newton(),
    GaussNewton(segments=8),
    Georce(segments=8),
    EnergyMinimizer(segments=8, max_steps=30),
    Shooting(segments=8),
    CollocationBVP(segments=8),
    GraphPath(X, neighbours=2, segments=8),
]


@pytest.mark.quick(8)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{type(s).__name__}-{s.segments}")
@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_ladder(name: str, solver: Solver) -> None:
    manifold, closed = MANIFOLDS[name]
    steps = LADDER[{Georce: 4, EnergyMinimizer: 2, GraphPath: 2}.get(type(solver), 0) :]
    x = X.repeat(len(steps), 1)
    y = torch.cat([near(X, step) for step in steps])
    solution = manifold.geodesic(x, y, solver)
    exact = closed(x, y)
    error = (solution.length - exact).abs()
    assert bool((error <= 2e-9 * exact).all())
    assert bool((error <= solution.error_estimate + 1e-11 * exact).all())
    assert bool((error / exact)[-15:].amax() <= 1e-13)
    assert bool((solution.error_estimate / exact)[-15:].amax() <= 1e-12)
    torch.testing.assert_close(solution.energy, exact.square(), rtol=4e-9, atol=0)
    if not isinstance(solver, GraphPath | Shooting):
        assert set(solution.status) <= {Status.CONVERGED, Status.ROUNDING}


@pytest.mark.parametrize("name", MANIFOLDS)
def test_the_gradient_is_of_unit_length(name: str) -> None:
    manifold, closed = MANIFOLDS[name]
    for step in LADDER:
        x, y = X.clone().requires_grad_(), near(X, step).requires_grad_()
        found = torch.autograd.grad(manifold.dist(x, y).sum(), (x, y))
        expected = torch.autograd.grad(closed(x, y).sum(), (x, y))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_weights_take_part() -> None:
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    manifold = PullbackManifold(lambda z: scale * SPHERE(z))
    for step in (1e-3, 1e-9, 1e-15):
        y = near(X, step)
        (slope,) = torch.autograd.grad(manifold.dist(X, y).sum(), scale)
        assert float(slope) == pytest.approx(float(on_sphere(X, y).sum()), rel=1e-8)


def test_float32_decoders_and_points() -> None:
    x = X.float()
    for step in (1e-4, 1e-6, 0.0):
        y = near(x, step)
        solution = PullbackManifold(StereographicSphere(2)).geodesic(x, y)
        torch.testing.assert_close(solution.length, on_sphere(x, y).float(), rtol=3e-7, atol=0)
    net = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5))
    y = near(X, 0.0)
    u = (y - X).double()
    for manifold in (PullbackManifold(net), PullbackManifold(lambda z: net(z))):
        squared = manifold.in_double().metric(X).inner(u, u).detach()
        torch.testing.assert_close(manifold.geodesic(X, y).energy.detach(), squared, rtol=1e-9, atol=0)


def test_without_matrices() -> None:
    net = nn.Sequential(nn.Linear(151, 7), nn.Tanh(), nn.Linear(7, 200)).double()
    manifold = PullbackManifold(net)
    x = 0.1 * torch.randn(3, 151, dtype=torch.float64)
    for step in (1e-7, 1e-12, 1e-15):
        y = (x + step * torch.randn(3, 151, dtype=torch.float64)).requires_grad_()
        solution = manifold.geodesic(x, y)
        u = (y - x).detach()
        squared = manifold.metric((x + y.detach()) / 2).inner(u, u).detach()
        torch.testing.assert_close(solution.energy.detach(), squared, rtol=1e-9, atol=0)
        (gradient,) = torch.autograd.grad(solution.length.sum(), y)
        expected = manifold.metric(x).apply(u).detach() / squared.sqrt().unsqueeze(1)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5)
        assert set(solution.status) <= {Status.CONVERGED, Status.ROUNDING}


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: f"{type(s).__name__}-{s.segments}")
def test_constant_decoders_tell_no_points_apart(solver: Solver, value: float) -> None:
    manifold = PullbackManifold(lambda z: 0 * z + value)
    for y in (X + 1, near(X, 1e-12)):
        solution = manifold.geodesic(X, y, solver)
        solves_equations = isinstance(solver, Shooting | CollocationBVP)
        assert set(solution.status) == {Status.SINGULAR if solves_equations else Status.DEGENERATE}
        assert not bool(solution.length.any())


def test_what_the_line_does_not_tell_is_left_to_the_energies() -> None:
    ring = PullbackManifold(lambda z: z.square().sum(1, keepdim=True))
    x, y = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).double(), torch.tensor([[-1.0, 0.0], [-0.8, 0.6]]).double()
    solution = ring.geodesic(x, y)  # along the ring nothing changes, along the line much does
    assert set(solution.status) == {Status.DEGENERATE}
    assert solution.residual.tolist() == len(solution) * [0.0]  # no infinity beside a status that counts as converged
    assert bool((solution.length < 1e-12).all())
    kinked = PullbackManifold(lambda z: torch.cat([z + 3, 2 * z[:, :1].relu()], 1))
    for step in (1e-8, 1e-10):
        x = step * torch.tensor([[-0.3, 0.0], [-0.5, 0.0], [-0.9, 0.0]], dtype=torch.float64)
        y = x + step * torch.tensor([1.0, 0.0], dtype=torch.float64)
        solution = kinked.geodesic(x, y)
        exact = x[:, 0].abs() + 5**0.5 * y[:, 0]
        assert bool(((solution.length - exact).abs() <= 3 * solution.error_estimate).all())
        torch.testing.assert_close(solution.length, exact, rtol=1e-2, atol=0)


def test_directions_that_cancel_vanish() -> None:
    W = torch.tensor([[1.0, 2.0], [0.5, 1.0], [-1.5, -3.0]], dtype=torch.float64) / 3
    manifold = PullbackManifold(lambda z: (z @ W.T).tanh())
    for step in (1e-3, 1e-9, 1e-12):
        u = step * torch.tensor([2.0, -1.0], dtype=torch.float64)
        solution = manifold.geodesic(X, X + u)
        assert Status.CONVERGED not in solution.status
        assert bool((solution.length <= 1e-15 * (1 + step)).all())
        assert manifold.geodesic(X, X + u.flip(0)).converged.all()


def test_an_energy_that_rounding_alone_makes_has_no_infinite_residual():
    """A network saturated at both ends, as hard tanh is, whose outputs differ by rounding errors."""
    flat = PullbackManifold(lambda z: torch.nn.functional.hardtanh(50 * z - 40).cumsum(1) / 3 + 0.1)
    z0, z1 = torch.tensor([[2.0], [3.0], [5.0]]).double(), torch.tensor([[4.0], [7.5], [2.5]]).double()
    for solver in (Newton(), Newton(candidates="all"), Newton(segments=8)):
        solution = flat.geodesic(z0, z1, solver)
        assert set(solution.status) == {Status.DEGENERATE}
        assert solution.residual.tolist() == 3 * [0.0]
        assert solution.length.tolist() == 3 * [0.0]
