"""Derivatives of every order at end points that coincide, and at those that rounding errors hardly tell apart."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from pullgeo import Manifold, MetricManifold, Newton, PullbackManifold, Status
from pullgeo.geodesic import (
    CollocationBVP,
    EnergyMinimizer,
    GaussNewton,
    Georce,
    GraphPath,
    Shooting,
    Solver,
)
from pullgeo.metric import Dense
from pullgeo.testing.charts import PoincareBall, StereographicSphere

X = torch.tensor([[0.3, -0.2], [0.2, 0.5], [-0.4, 0.1]], dtype=torch.float64)
APART = torch.tensor([[0.0, 0.0], [0.2, 0.1], [0.0, 0.0]], dtype=torch.float64)
"""The second pair of three does not coincide."""


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).to(dtype)


def weighted() -> Dense:
    W = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Dense(W @ W.mT)


MANIFOLDS: dict[str, Callable[[], Manifold]] = {
    "chords": lambda: PullbackManifold(network()),
    "chords in float32": lambda: PullbackManifold(network(torch.float32)),
    "chords in a constant metric": lambda: PullbackManifold(network(), weighted()),
    "segments": lambda: MetricManifold(PoincareBall(2).metric),
    "segments in the output": lambda: PullbackManifold(
        network(), lambda y: (1 + y.square().sum(1))[:, None, None] * torch.eye(5, dtype=y.dtype)
    ),
    "collapsed": lambda: PullbackManifold(lambda z: torch.cat([z[:, :1], z[:, :1] ** 2], 1)),
    "the same twice": lambda: PullbackManifold(lambda z: torch.cat([z.sum(1, True), z.sum(1, True).sin()], 1)),
    "constant": lambda: PullbackManifold(lambda z: torch.ones(len(z), 3, dtype=z.dtype)),
    "constant with a graph": lambda: PullbackManifold(lambda z: 1 + 0 * z),
}

SOLVERS: list[Solver] = [
    Newton(candidates="all", segments=8),
    GaussNewton(segments=8),
    Georce(segments=8),
    Shooting(segments=8),
    CollocationBVP(segments=8),
    EnergyMinimizer(segments=8, max_steps=2),
    EnergyMinimizer(segments=8, max_steps=2, knots=4),
    GraphPath(X, neighbours=2, segments=8),
]


def check_hessians(manifold: Manifold, solver: Solver | None) -> None:
    G = manifold.in_double().metric(X).dense().detach().expand(3, 2, 2)
    coincide = [0, 1, 4, 5]
    expected = 2 * torch.block_diag(*G)[coincide][:, coincide]
    for quantity in ("energy", "length"):

        def total(x: Tensor, y: Tensor, quantity: str = quantity) -> Tensor:
            found: Tensor = getattr(manifold.geodesic(x, y, solver), quantity)
            return found.sum() if quantity == "energy" else found.square().sum()

        (own, mixed), (_, other) = (
            [block.reshape(6, 6)[coincide][:, coincide] for block in row] for row in hessian(total, (X, X + APART))
        )
        for block, sign in ((own, 1), (mixed, -1), (other, 1)):
            torch.testing.assert_close(block, sign * expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_hessians_at_equal_points_are_twice_the_metric(name: str) -> None:
    check_hessians(MANIFOLDS[name](), None)


@pytest.mark.quick(11)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("name", ["chords", "segments", "collapsed", "constant"])
def test_hessians_at_equal_points_whatever_the_solver(name: str, solver: Solver) -> None:
    check_hessians(MANIFOLDS[name](), solver)


@pytest.mark.parametrize("origin", [False, True])
def test_hessians_at_equal_points_of_many_dimensions(origin: bool) -> None:
    manifold = PullbackManifold(StereographicSphere(151))
    x = torch.zeros(2, 151, dtype=torch.float64) if origin else 0.05 * torch.randn(2, 151, dtype=torch.float64)
    y, v = x.clone().requires_grad_(), torch.randn(2, 151, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(manifold.dist(x, y).square().sum(), y, create_graph=True)
    (product,) = torch.autograd.grad((gradient * v).sum(), y)
    torch.testing.assert_close(product, 2 * manifold.metric(x).apply(v.unsqueeze(0)).squeeze(0), rtol=1e-9, atol=1e-9)


SPHERE = PullbackManifold(StereographicSphere(2))
POINT = torch.tensor([[0.7, -0.3]], dtype=torch.float64)
NEAR = {
    "equal": POINT,
    "ulp": torch.nextafter(POINT, torch.full_like(POINT, 9.0)),
    "1e-12": POINT + 1e-12,
    "1e-9": POINT + 1e-9,
}
EVEN: dict[str, Callable[[Tensor], Tensor]] = {
    "square": lambda d: d**2,
    "product": lambda d: d * d,
    "gaussian": lambda d: -2 * torch.exp(-(d**2) / 2),
    "cosh": lambda d: 2 * torch.cosh(d),
    "cos": lambda d: -2 * torch.cos(d),
}


@pytest.mark.parametrize("distance", NEAR)
@pytest.mark.parametrize("function", EVEN)
def test_even_functions_of_nearly_vanishing_distances(function: str, distance: str) -> None:
    found = hessian(lambda y: EVEN[function](SPHERE.dist(POINT, y)).sum(), NEAR[distance])
    torch.testing.assert_close(found.reshape(2, 2), 2 * SPHERE.metric(POINT).dense()[0], rtol=1e-7, atol=1e-7)
    assert float(hessian(lambda y: SPHERE.dist2(POINT, y).sum(), NEAR[distance]).reshape(2, 2)[0, 0]) > 3.2


def test_a_vanishing_distance_has_the_gradient_in_the_middle() -> None:
    y = POINT.clone().requires_grad_()
    for create_graph in (False, True):
        distance = SPHERE.dist(POINT, y)
        assert float(distance.detach()) == 0
        (gradient,) = torch.autograd.grad(distance, y, create_graph=create_graph)
        assert not bool(gradient.detach().any())
    (second,) = torch.autograd.grad(gradient.sum(), y)
    assert not bool(second.any())


def test_a_vanishing_distance_in_float32() -> None:
    x = POINT.float()
    for y in (x, torch.nextafter(x, torch.full_like(x, 9.0))):
        found = hessian(lambda y: SPHERE.dist(x, y).square().sum(), y).reshape(2, 2)
        torch.testing.assert_close(found, 2 * SPHERE.metric(x).dense()[0], rtol=1e-5, atol=1e-5)


def test_the_sum_of_squares_at_one_of_the_points() -> None:
    chart = StereographicSphere(2)
    others = torch.tensor([[0.1, 0.2], [0.5, 0.5], [-0.3, 0.1]], dtype=torch.float64)
    points = torch.cat([others[:1], POINT, others[1:]])
    found = hessian(lambda y: SPHERE.dist(points, y.expand(4, 2)).square().sum(), POINT).reshape(2, 2)
    rest = hessian(lambda y: chart.distance(others, y.expand(3, 2)).square().sum(), POINT).reshape(2, 2)
    torch.testing.assert_close(found, rest + 2 * chart.metric(POINT)[0], rtol=0, atol=2e-6)


def test_the_metric_that_two_derivatives_leave_depends_on_the_weights() -> None:
    net = network()
    manifold = PullbackManifold(net)
    y, v = POINT.clone().requires_grad_(), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(manifold.dist2(POINT, y).sum(), y, create_graph=True)
    weights = [net[0].weight, net[0].bias, net[2].weight]
    mixed = torch.autograd.grad((gradient * v).sum(), weights, retain_graph=True)
    assert max(float(change.abs().max()) for change in mixed) < 1e-12
    (product,) = torch.autograd.grad((gradient * v).sum(), y, create_graph=True)
    found = torch.autograd.grad((product * v).sum(), weights)
    expected = torch.autograd.grad(2 * manifold.metric(POINT).inner(v, v).sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.quick(2)
@pytest.mark.parametrize("away", [0.0, 1e-6, 1e-3, 0.4])
def test_second_derivatives_near_and_far_are_those_of_the_values(away: float) -> None:
    x = POINT.clone().requires_grad_()
    y = (POINT + away * torch.tensor([[1.0, 0.8]], dtype=torch.float64)).requires_grad_()
    times = torch.tensor([0.3, 0.6], dtype=torch.float64)
    solver = Newton(segments=8)
    check = torch.autograd.gradgradcheck
    assert check(lambda x, y: SPHERE.geodesic(x, y, solver).energy, (x, y), atol=1e-6)
    assert check(lambda x, y: SPHERE.geodesic(x, y, solver).length.square(), (x, y), atol=1e-6)
    assert check(lambda x, y: SPHERE.geodesic(x, y, solver).curve(times), (x, y), atol=1e-6)


def test_curves_between_equal_points_are_the_points() -> None:
    x = torch.randn(101, 2, dtype=torch.float64)
    solution = SPHERE.geodesic(x, x.clone())
    assert set(solution.status) == {Status.COINCIDENT}
    assert torch.equal(solution.curve.nodes, x.unsqueeze(1).expand_as(solution.curve.nodes))
    assert not bool(solution.energy.any() or solution.length.any() or solution.error_estimate.any())
