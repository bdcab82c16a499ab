"""Operations of learned manifolds against surfaces whose geometry is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.testing.charts import HalfPlane, LinearChart, Paraboloid, PoincareBall, StereographicSphere, Torus
from pullgeo.testing.oracles.connection import christoffel

B = 5


def points(d: int, scale: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(d)
    return scale * torch.randn(B, d, dtype=torch.float64, generator=generator)


SPACES = {
    "sphere 2": (PullbackManifold(StereographicSphere(2)), StereographicSphere(2), 2),
    "sphere 3 of radius 2": (PullbackManifold(StereographicSphere(3, 2.0)), StereographicSphere(3, 2.0), 3),
    "Poincare ball": (MetricManifold(PoincareBall(2)), PoincareBall(2), 2),
    "half-plane": (MetricManifold(HalfPlane()), HalfPlane(), 2),
    "sphere by its metric": (MetricManifold(StereographicSphere(2).metric), StereographicSphere(2), 2),
}


def sample(name: str, d: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y, v = points(d, 0.2), points(d, 0.2).flip(0) + 0.1, points(d, 0.3).roll(1, 0)
    if name == "half-plane":
        shift = torch.tensor([0.0, 1.5], dtype=torch.float64)
        return x + shift, y + shift, v
    return x, y, v


@pytest.mark.parametrize("name", list(SPACES))
def test_metric_connection_and_volume(name: str) -> None:
    manifold, chart, d = SPACES[name]
    x, _, v = sample(name, d)
    G = chart.metric(x)
    torch.testing.assert_close(manifold.metric(x).dense(), G)
    torch.testing.assert_close(manifold.log_volume(x), torch.linalg.det(G).log() / 2)
    torch.testing.assert_close(manifold.inner(x, v), torch.einsum("bi,bij,bj->b", v, G, v))
    gamma = christoffel(chart.metric, x)
    torch.testing.assert_close(manifold.christoffel(x), gamma, rtol=1e-6, atol=1e-8)
    w = v.roll(1, 1)
    torch.testing.assert_close(
        manifold.connection(x, v, w), torch.einsum("bkij,bi,bj->bk", gamma, v, w), rtol=1e-6, atol=1e-8
    )


# the other spheres have the same connection as these: integrating it again would only take time
@pytest.mark.parametrize("name", ["sphere 3 of radius 2", "Poincare ball", "half-plane"])
def test_exponential_logarithm_and_transport(name: str) -> None:
    manifold, chart, d = SPACES[name]
    x, y, v = sample(name, d)
    there = chart.expmap(x, v)
    # what belongs to different problems goes through one integration
    logs = manifold.logmap(x.repeat(2, 1), torch.cat([y, there]))
    log = logs[: len(x)]
    close = {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(logs, torch.cat([chart.logmap(x, y), v]), **close)
    ends, carried = manifold.expmap_transp(x.repeat(2, 1), torch.cat([v, log]), torch.cat([v, v]))
    torch.testing.assert_close(ends, torch.cat([there, y]), **close)
    torch.testing.assert_close(carried, torch.cat([chart.transp(x, there, v), chart.transp(x, y, v)]), **close)
    torch.testing.assert_close(manifold.transp(x, y, v), chart.transp(x, y, v), **close)
    distance = manifold.dist(x, y)
    torch.testing.assert_close(distance, chart.distance(x, y), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(manifold.norm(x, log), chart.distance(x, y), **close)
    torch.testing.assert_close(manifold.norm(y, carried[len(x) :]), manifold.norm(x, v), **close)


@pytest.mark.parametrize("d", [2, 10])
def test_sphere_distance_to_seven_digits(d: int) -> None:
    chart = StereographicSphere(d)
    x, y = -torch.linspace(0, 1, d, dtype=torch.float64), torch.full((d,), 0.5, dtype=torch.float64)
    solution = PullbackManifold(chart).geodesic(x, y)
    exact = chart.distance(x, y)
    assert bool(solution.converged.all())
    assert abs(float(solution.length / exact) - 1) < 1e-7
    assert abs(float(solution.length) - float(exact)) <= 10 * float(solution.error_estimate)


def test_flat_space_is_flat() -> None:
    W = torch.randn(7, 3, dtype=torch.float64)
    manifold = PullbackManifold(LinearChart(W))
    x, y, v = points(3), points(3).flip(0), points(3).roll(1, 0)
    torch.testing.assert_close(manifold.dist(x, y), ((y - x) @ W.mT).norm(dim=1))
    torch.testing.assert_close(manifold.expmap(x, v), x + v)
    torch.testing.assert_close(manifold.transp(x, y, v), v)


def test_values_from_the_literature() -> None:
    ball = MetricManifold(PoincareBall(2))
    a, b = torch.zeros(2, dtype=torch.float64), torch.full((2,), 0.5, dtype=torch.float64)
    assert abs(float(ball.dist(a, b)) - 1.7627471740) < 1e-6
    corner = torch.full((1, 2), -2.0, dtype=torch.float64)
    assert float(PullbackManifold(Paraboloid()).log_volume(corner)) == pytest.approx(math.log(33) / 2, abs=1e-12)


def test_clairaut_constant_and_speed_are_conserved_on_the_torus() -> None:
    torus = Torus(3.0, 1.0)
    manifold = PullbackManifold(torus)
    x, v = points(2), 2 * points(2).flip(0)
    end, velocity = manifold._follow("test", x, v)
    torch.testing.assert_close(torus.clairaut(end, velocity), torus.clairaut(x, v), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(manifold.norm(end, velocity), manifold.norm(x, v), rtol=1e-8, atol=1e-8)


def test_reparametrising_the_latent_space_changes_no_distance() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    twist = nn.Linear(2, 2).double()
    x, y = points(2), points(2).flip(0) + 0.3
    there = PullbackManifold(decoder).dist(twist(x), twist(y))
    torch.testing.assert_close(PullbackManifold(nn.Sequential(twist, decoder)).dist(x, y), there, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(SPACES))
def test_distance_is_symmetric(name: str) -> None:
    manifold, _, d = SPACES[name]
    x, y, _ = sample(name, d)
    torch.testing.assert_close(manifold.dist(x, y), manifold.dist(y, x), rtol=1e-8, atol=1e-10)
