"""Exponentials, logarithms and transport in many dimensions and over long ways, and how much they cost."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold, Status
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.equation import Equation
from pullgeo.manifold.exponential import arrive, shoot
from pullgeo.numerics.gmres import gmres
from pullgeo.testing.charts import HalfPlane, PoincareBall, StereographicSphere


class Counted:
    """Calls of a manifold's connection and covariant derivatives, and the points in them."""

    def __init__(self, manifold: Manifold, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.points = self.connections = 0
        kind = type(manifold)

        def counted(method: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
            def call(this: Manifold, z: Tensor, *rest: Tensor) -> Tensor:
                self.calls += 1
                self.points += len(z)
                self.connections += len(z) if name == "connection" else 0
                return method(this, z, *rest)

            return call

        for name in ("connection", "lowered_derivative", "metric_matrix"):
            monkeypatch.setattr(kind, name, counted(getattr(kind, name), name))


def decoder(d: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 2 * d), nn.Tanh(), nn.Linear(2 * d, 2 * d + 3)).double()


def points(d: int, scale: float, b: int = 3) -> list[Tensor]:
    return list(scale * torch.randn(3, b, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)))


@pytest.mark.parametrize("space", ["sphere", "ball"])
def test_closed_forms_in_many_dimensions(space: str) -> None:
    d = 17
    chart = StereographicSphere(d) if space == "sphere" else PoincareBall(d)
    manifold = PullbackManifold(chart) if space == "sphere" else MetricManifold(chart)
    x, y, v = points(d, 0.1)
    close = {"rtol": 1e-8, "atol": 1e-9}
    with torch.no_grad():
        log = manifold.logarithm(x, y)
        torch.testing.assert_close(log.vector, chart.logmap(x, y), **close)
        torch.testing.assert_close(manifold.transp(x, y, v), chart.transp(x, y, v), **close)
        end, moved = manifold.expmap_transp(x, log.vector, v)
        torch.testing.assert_close(end, y, **close)
        torch.testing.assert_close(moved, chart.transp(x, y, v), **close)


@pytest.mark.parametrize("d", [5, 40])
def test_a_logarithm_costs_little_more_than_the_distance(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    manifold = PullbackManifold(decoder(d))
    x, y, v = points(d, 1.0, 1)
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        log = manifold.logarithm(x, y)
        assert log.status == (Status.CONVERGED,)
        assert count.connections == 0
        # derivatives of the equation, or products with them; and no metric at every point
        assert count.calls <= (16 if d == 5 else 50)
        assert count.points <= (1000 if d == 5 else 2600)
        count.points = 0
        manifold.transp(x, y, v)
        assert count.connections == 0
        assert count.points <= (2200 if d == 5 else 6500)


@pytest.mark.heavy
def test_gradients_in_many_dimensions() -> None:
    d = 13
    manifold = PullbackManifold(decoder(d))
    x, y, w = points(d, 0.5, 1)
    y.requires_grad_()
    slope = torch.autograd.grad((manifold.logmap(x, y) * w).sum(), y)[0]
    moved = torch.autograd.grad((manifold.transp(x, y, w) * w).sum(), y)[0]
    step = torch.randn(1, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    h = 1e-4
    with torch.no_grad():
        ends = torch.cat([y + h * step, y - h * step])
        logs, tangents = manifold.logmap(x, ends), manifold.transp(x, ends, w)
        for values, found in ((logs, slope), (tangents, moved)):
            ahead, behind = (values * w).sum(1)
            torch.testing.assert_close((found * step).sum(), (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-7)


def test_smooth_exponentials_take_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sphere = StereographicSphere(2)
    manifold = PullbackManifold(sphere)
    x, u = (a[:, :2] for a in points(20, 0.3, 20)[:2])
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        torch.testing.assert_close(manifold.expmap(x, u), sphere.expmap(x, u), rtol=1e-9, atol=1e-9)
    assert count.calls <= 26
    assert count.points <= 4200


def test_long_geodesics_of_the_half_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    manifold = MetricManifold(HalfPlane())
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    u = 20 * torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        end = manifold.expmap(x, u)
    # a half-circle of radius r around c, whose top lies asinh(c) ahead
    c = torch.tensor([0.8 / 0.6], dtype=torch.float64)
    r, after = (1 + c.square()).sqrt(), 20 - torch.asinh(c)
    torch.testing.assert_close(end[:, 0], c + r * torch.tanh(after), rtol=1e-9, atol=0)
    torch.testing.assert_close(end[:, 1], r / torch.cosh(after), rtol=1e-7, atol=0)
    assert count.calls <= 90


def test_tangents_that_turn_faster_than_the_curve() -> None:
    # a straight geodesic in a warped plane dx² + f(x)² dy²: ∂_y keeps its length, so it goes as 1/f
    def metric(z: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(z[:, 0]), (2 + (9 * z[:, 0]).sin()).square()], 1).diag_embed()

    x, y, v = torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]], [[0.3, 1.0]]], dtype=torch.float64)
    with torch.no_grad():
        moved = MetricManifold(metric).expmap_transp(x, y - x, v)[1]
    expected = torch.tensor([[0.3, 2 / (2 + torch.tensor(18.0).double().sin())]], dtype=torch.float64)
    torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-9)


def test_generalised_minimal_residuals() -> None:
    n = 11
    torch.manual_seed(0)
    A = torch.eye(n, dtype=torch.float64) + 0.4 * torch.randn(5, n, n, dtype=torch.float64)
    A[1] = 3 * torch.eye(n)
    A[4] = torch.nan
    right = torch.randn(5, n, dtype=torch.float64)
    right[2] = 0
    asked: list[list[int]] = []

    def product(v: Tensor, index: Tensor) -> Tensor:
        asked.append(index.tolist())
        return (A[index] @ v.unsqueeze(2)).squeeze(2)

    x, left = gmres(product, right, torch.full((5,), 1e-11, dtype=torch.float64), n)
    torch.testing.assert_close(x[:2], torch.linalg.solve(A[:2], right[:2]), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(x[3], torch.linalg.solve(A[3], right[3]), rtol=1e-8, atol=1e-9)
    assert not x[2].any()
    assert not x[4].any()
    assert left[4] == 1
    assert asked[0] == [0, 1, 3, 4]
    assert asked[1] == [0, 3]


def test_lowered_derivatives_are_connections_lowered() -> None:
    sphere = StereographicSphere(2)
    ambients = (None, lambda y: torch.diag_embed(1 + y.square()), PullbackManifold(lambda y: torch.cat([y, y**2], 1)))
    manifolds = [PullbackManifold(sphere, ambient) for ambient in ambients] + [MetricManifold(HalfPlane())]
    x, u, w = (a[:, :2] for a in points(7, 0.3))
    x = x + torch.tensor([0.0, 1.5], dtype=torch.float64)
    rate = w.flip(0)
    for manifold in manifolds:
        for other in (u, w):
            expected = manifold.metric(x).apply(rate + manifold.connection(x, u, other))
            torch.testing.assert_close(manifold.lowered_derivative(x, u, other, rate), expected)
            torch.testing.assert_close(Manifold.lowered_derivative(manifold, x, u, other, rate), expected)
        torch.testing.assert_close(manifold.metric_matrix(x), manifold.metric(x).dense())


def test_geodesics_through_the_neighbourhood_of_infinity_take_few_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    sphere = StereographicSphere(2)
    manifold = PullbackManifold(sphere)
    x, u = (scale * a[:, :2] for scale, a in zip((1.0, 3.0), points(20, 1.0, 20)[:2], strict=True))
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        ends = manifold.expmap(x, u)
    assert count.calls <= 200
    there = sphere.embed(ends) - sphere.embed(sphere.expmap(x, u))
    assert float(there.norm(dim=1).max()) < 1e-8


@pytest.mark.parametrize("d", [2, 8])
def test_an_exponential_of_a_decoder_takes_few_calls(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    manifold = PullbackManifold(decoder(d))
    x, u = points(d, 0.4)[:2]
    equation = Equation(manifold)
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        steps = shoot(manifold.connection, x, u)
        calls = count.calls
        count.calls = count.points = 0
        whole = arrive(equation, x, u)
    for ours, theirs in zip(whole, steps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    assert count.calls <= calls / 4
    assert count.points <= (420 if d == 2 else 1200)


def test_a_long_geodesic_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    manifold = MetricManifold(HalfPlane())
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(8, 2).contiguous()
    u = torch.tensor([[0.6, 0.8]], dtype=torch.float64) * torch.tensor([1.0] * 7 + [30.0]).double().unsqueeze(1)
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        ends = manifold.expmap(x, u)
        together, count.points = count.points, 0
        torch.testing.assert_close(ends[7:], manifold.expmap(x[7:], u[7:]), rtol=1e-9, atol=0)
        torch.testing.assert_close(ends[:7], manifold.expmap(x[:7], u[:7]), rtol=1e-9, atol=0)
        assert together <= 1.05 * count.points


@pytest.mark.heavy
def test_what_is_not_smooth_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    manifold = PullbackManifold(nn.Sequential(nn.Linear(2, 16), nn.ELU(), nn.Linear(16, 5)).double())
    x, u = (a[:, :2] for a in points(4, 1.0)[:2])
    count = Counted(manifold, monkeypatch)
    with torch.no_grad():
        shoot(manifold.connection, x, u)
        steps, count.calls = count.calls, 0
        arrive(Equation(manifold), x, u)
    assert count.calls <= steps + 60
