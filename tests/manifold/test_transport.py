"""Transport along curves, neighbouring geodesics, and derivatives of the logarithm."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.curve import DiscreteCurve
from pullgeo.errors import GeometryError, NonFiniteError, OptionError, ShapeError
from pullgeo.numerics.ode.dop853 import integrate
from pullgeo.testing import oracles
from pullgeo.testing.charts import AngularSphere, HalfPlane, LinearChart, PoincareBall, StereographicSphere

B = 3


def sample(d: int, k: int = 3, seed: int = 0) -> list[Tensor]:
    return list(0.25 * torch.randn(k, B, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def decoder(d: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 7), nn.Tanh(), nn.Linear(7, 5)).double()


@pytest.mark.parametrize("manifold", [PullbackManifold(AngularSphere(2.0)), MetricManifold(AngularSphere(2.0).metric)])
def test_holonomy_of_circles_of_latitude(manifold: PullbackManifold | MetricManifold) -> None:
    # once around the latitude θ a tangent turns by 2π cos θ, whatever the radius
    theta = torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64)

    def circles(t: Tensor) -> Tensor:
        return torch.stack([theta.unsqueeze(1).expand(-1, len(t)), 2 * torch.pi * t.expand(B, -1)], -1)

    turned = manifold.parallel_transport(circles, torch.tensor([1.0, 0.0], dtype=torch.float64))
    angle = 2 * torch.pi * theta.cos()
    torch.testing.assert_close(turned, torch.stack([angle.cos(), -angle.sin() / theta.sin()], 1), rtol=1e-8, atol=1e-8)


def test_transport_along_given_curves_is_an_isometry_and_can_be_undone() -> None:
    manifold = PullbackManifold(decoder())
    (u, v), nodes = sample(2, 2), torch.stack(sample(2, 5, seed=1), 1)
    curve, back = DiscreteCurve(nodes), DiscreteCurve(nodes.flip(1))
    moved_u, moved_v = manifold.parallel_transport(curve, u), manifold.parallel_transport(curve, v)
    torch.testing.assert_close(
        manifold.inner(curve.end, moved_u, moved_v), manifold.inner(curve.begin, u, v), rtol=1e-8, atol=1e-9
    )
    torch.testing.assert_close(manifold.parallel_transport(back, moved_u), u, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(manifold.parallel_transport(lambda t: curve(t), u), moved_u, rtol=1e-7, atol=1e-8)


def test_transport_against_an_integrator() -> None:
    chart = HalfPlane()

    def curve(t: Tensor) -> Tensor:
        return torch.stack([0.3 * (2 * t).sin(), 1 + 0.4 * t**2], -1).unsqueeze(0)

    v = torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    expected = oracles.parallel_transport(
        chart.metric, lambda t: curve(torch.tensor(t, dtype=torch.float64))[0], v[0], rtol=1e-8
    )
    moved = MetricManifold(chart).parallel_transport(curve, v)
    torch.testing.assert_close(moved[0], expected, rtol=1e-7, atol=1e-8)


def test_transport_along_a_geodesic_is_transp() -> None:
    chart = PoincareBall(2)
    manifold = MetricManifold(chart)
    x, y, v = sample(2)
    velocity = chart.logmap(x, y)

    def curve(t: Tensor) -> Tensor:
        return torch.stack([chart.expmap(x, s * velocity) for s in t], 1)

    expected = chart.transp(x, y, v)
    torch.testing.assert_close(manifold.parallel_transport(curve, v), expected, rtol=1e-8, atol=1e-9)
    sphere = StereographicSphere(2)
    found = PullbackManifold(sphere).geodesic(x, y).curve
    expected = sphere.transp(x, y, v)
    torch.testing.assert_close(PullbackManifold(sphere).parallel_transport(found, v), expected, rtol=1e-6, atol=1e-7)
    single = PullbackManifold(sphere).parallel_transport(found.to(torch.float32), v.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


def test_transport_differentiates() -> None:
    manifold = PullbackManifold(decoder())
    nodes = torch.stack(sample(2, 3, seed=1), 1)[:1].requires_grad_()
    v = sample(2)[0][:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda n, w: manifold.parallel_transport(DiscreteCurve(n), w), (nodes, v))


@pytest.mark.full
@pytest.mark.heavy
def test_exponentials_differentiate_twice_and_keep_no_steps() -> None:
    net = decoder()
    manifold = PullbackManifold(net)
    x, u, w = (a[:1].requires_grad_() for a in sample(2))
    weight = net[0].weight
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ends = manifold.expmap_transp(x, u, w)
    assert all(end.requires_grad for end in ends)
    assert sum(t.numel() for t in kept) < 20 * sum(p.numel() for p in net.parameters())
    h = 1e-4

    def loss(x: Tensor, u: Tensor) -> Tensor:
        end, carried = manifold.expmap_transp(x, u, w)
        return (end.sin() + carried).sum()

    # the velocity may be computed from the point
    found = torch.autograd.grad(loss(x, 2 * x + u), (x, weight), create_graph=True)
    step = torch.tensor([[0.3, -0.8]], dtype=torch.float64)
    with torch.no_grad():
        truth = (loss(x + h * step, 2 * (x + h * step) + u) - loss(x - h * step, 2 * (x - h * step) + u)) / (2 * h)
    torch.testing.assert_close((found[0] * step).sum(), truth, rtol=1e-6, atol=1e-7)
    second = torch.autograd.grad((found[0] * step).sum(), u)[0]

    def slope(u: Tensor) -> Tensor:
        return (torch.autograd.grad(loss(x, 2 * x + u), x)[0] * step).sum()

    ahead, behind = slope((u + h * step).detach()), slope((u - h * step).detach())
    torch.testing.assert_close((second * step).sum(), (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        before = weight[0, 0].clone()
        values = []
        for sign in (1, -1):
            weight[0, 0] = before + sign * h
            values.append(loss(x, 2 * x + u))
        weight[0, 0] = before
    torch.testing.assert_close(found[1][0, 0], (values[0] - values[1]) / (2 * h), rtol=1e-5, atol=1e-6)


def test_logarithms_at_points_that_weights_move() -> None:
    net = decoder()
    manifold, weight = PullbackManifold(net), net[0].weight
    x, y, _ = (a[:1] for a in sample(2))

    def loss() -> Tensor:  # the point depends on a weight that the metric depends on as well
        return manifold.logmap(x + weight[0], y).sin().sum()

    found = torch.autograd.grad(loss(), weight)[0][0, 0]
    h = 1e-4
    with torch.no_grad():
        before = weight[0, 0].clone()
        values = []
        for sign in (1, -1):
            weight[0, 0] = before + sign * h
            values.append(loss())
        weight[0, 0] = before
    torch.testing.assert_close(found, (values[0] - values[1]) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("without_type_checks")
def test_mistakes_in_transport() -> None:
    manifold = PullbackManifold(decoder())
    v = sample(2)[0]
    with pytest.raises(ShapeError, match=r"for tangents \(3, 2\) it must give"):
        manifold.parallel_transport(DiscreteCurve(torch.zeros(2, 5, 2).double()), v)
    with pytest.raises(GeometryError, match="Cut a curve at its corners"):
        # a zigzag with ever more corners near one point
        manifold.parallel_transport(lambda t: 4 * (3e3 * t).sin().abs().reshape(1, -1, 1).expand(B, -1, 2) ** 0.5, v)


@pytest.mark.parametrize("sign", [1, -1])
def test_jacobi_fields_of_space_forms(sign: int) -> None:
    # orthogonal to a unit speed geodesic: J = (J₀ cos t + J₁ sin t) E, with cosh and sinh where K = -1
    chart = StereographicSphere(3) if sign == 1 else PoincareBall(3)
    manifold = PullbackManifold(chart) if sign == 1 else MetricManifold(chart)
    x, u, w = sample(3)
    u = u / manifold.norm(x, u, keepdim=True)
    w = w - manifold.inner(x, u, w, keepdim=True) * u
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    with torch.no_grad():
        field = manifold.jacobi_field(x, u, 2 * w, 3 * w, t)
    cos, sin = (t.cos(), t.sin()) if sign == 1 else (t.cosh(), t.sinh())
    points = torch.stack([chart.expmap(x, s * u) for s in t], 1)
    carried = torch.stack([w if s == 0 else chart.transp(x, chart.expmap(x, s * u), w) for s in t], 1)
    close = {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(field.points, points, **close)
    torch.testing.assert_close(field.values, (2 * cos + 3 * sin)[:, None] * carried, **close)
    torch.testing.assert_close(field.derivatives, (3 * cos - sign * 2 * sin)[:, None] * carried, **close)


def test_differential_of_the_exponential() -> None:
    # by differences of exponentials, and Gauss's lemma: radial lengths are kept
    manifold = PullbackManifold(decoder())
    x, u, w = sample(2)
    with torch.no_grad():
        moved = manifold.exp_differential(x, u, w)
        h = 1e-4
        ends = manifold.expmap(x, torch.stack([u + h * w, u - h * w, u + 2 * h * w, u - 2 * h * w]))
        slope = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)
        torch.testing.assert_close(moved, slope, rtol=1e-6, atol=1e-7)
        end, velocity = manifold.expmap_transp(x, u, u)
        torch.testing.assert_close(manifold.exp_differential(x, u, u), velocity, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(manifold.inner(end, velocity, moved), manifold.inner(x, u, w), rtol=1e-8, atol=1e-9)


def test_logarithm_differentiates_to_points_and_weights() -> None:
    net = decoder()
    x, y, w = sample(2)
    moves = [w, w.flip(0)]
    weights = list(net.parameters())
    moves += [torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(1)) for p in weights]
    log = PullbackManifold(net).logmap(x.requires_grad_(), y.requires_grad_())
    slopes = torch.autograd.grad((log * w).sum(), (x, y, *weights), allow_unused=True)
    along = [(g * m).sum() if g is not None else 0.0 for g, m in zip(slopes, moves, strict=True)]

    @torch.no_grad()
    def value(h: float, k: float) -> Tensor:
        """Points moved by h, weights by k."""
        moved = copy.deepcopy(net)
        for p, m in zip(moved.parameters(), moves[2:], strict=True):
            p.add_(k * m)
        ends = torch.cat([x + h * moves[0], x]), torch.cat([y, y + h * moves[1]])
        logs = PullbackManifold(moved).logmap(*ends) if h else PullbackManifold(moved).logmap(x, y)
        return (logs.reshape(-1, B, 2) * w).flatten(1).sum(1)

    points = (value(1e-4, 0.0) - value(-1e-4, 0.0)) / 2e-4
    torch.testing.assert_close(torch.stack(along[:2]), points, rtol=1e-6, atol=1e-8)
    weight = (value(0.0, 1e-4) - value(0.0, -1e-4)) / 2e-4
    torch.testing.assert_close(sum(along[2:]), weight[0], rtol=1e-6, atol=1e-8)


def test_logarithm_of_the_flat_plane_and_of_coincident_points() -> None:
    manifold = PullbackManifold(LinearChart(torch.randn(5, 2, dtype=torch.float64)))
    x, y, w = sample(2)
    y[1] = x[1]
    x, y = x.requires_grad_(), y.requires_grad_()
    log = manifold.logmap(x, y)
    torch.testing.assert_close(log, y - x)
    to_x, to_y = torch.autograd.grad((log * w).sum(), (x, y))
    torch.testing.assert_close(to_x, -w)
    torch.testing.assert_close(to_y, w)


@pytest.mark.full
@pytest.mark.heavy
def test_a_geodesic_that_leaves_the_chart_is_named_and_spoils_no_other() -> None:
    class Floor(nn.Module):
        """A cone's metric that ends at y = 0."""

        def forward(self, z: Tensor) -> Tensor:
            scale = torch.where(z[:, 1] > 0, 1 + z[:, 0] ** 2, torch.full_like(z[:, 1], torch.nan))
            return scale[:, None, None] * torch.eye(2, dtype=z.dtype)

    manifold = MetricManifold(Floor())
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    u = torch.tensor([[0.5, 0.1], [0.0, -3.0]], dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="1 of 2 geodesics, the first at index 1, left the region"):
        manifold.expmap(x, u)
    # the step that would have overshot is taken back: hyperbolic geodesics that stay inside are followed to their end
    half_plane = HalfPlane()
    down = torch.tensor([[0.0, -3.0]], dtype=torch.float64)
    end = MetricManifold(half_plane).expmap(x[:1], down)
    torch.testing.assert_close(end, torch.tensor([[0.0, math.exp(-3)]]).double(), rtol=0, atol=1e-8)


@pytest.mark.usefixtures("without_type_checks")
def test_mistakes_in_times() -> None:
    manifold = PullbackManifold(decoder())
    x, u, w = sample(2)
    for times in ([0.5, 0.2], [-0.1], [1.5]):
        with pytest.raises(OptionError, match=r"times must increase within \[0, 1\]"):
            manifold.jacobi_field(x, u, w, w, torch.tensor(times))


def test_kinks_are_no_geodesics_sold_as_such() -> None:
    torch.manual_seed(0)
    manifold = PullbackManifold(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 5)).double())
    x, y = 4 * sample(2, 2)[0], 4 * sample(2, 2, seed=1)[1]
    near = x + 1e-6 * y
    torch.testing.assert_close(manifold.norm(x, manifold.logmap(x, near)), manifold.dist(x, near), rtol=1e-6, atol=0)
    assert bool(manifold.geodesic(x, y).converged.all())
    assert bool(manifold.logmap(x, y).isnan().all())
    assert bool(manifold.transp(x, y, y).isnan().all())
    with pytest.raises(GeometryError, match=r"3 of 3 geodesics.*metric jumps.*smooth activation"):
        manifold.expmap(x, y - x)


def test_nothing_leads_nowhere() -> None:
    manifold, nothing = PullbackManifold(decoder()), torch.zeros(0, 2, dtype=torch.float64)
    for end in (manifold.expmap(nothing, nothing), manifold.transp(nothing, nothing, nothing)):
        assert end.shape == (0, 2)
    assert manifold.logmap(nothing, nothing).shape == manifold.expmap(nothing, nothing).shape


def test_a_start_without_a_slope_is_lost_at_once() -> None:
    calls = []

    def field(state: Tensor) -> Tensor:
        calls.append(len(state))
        return torch.where(state > 0, state, torch.nan)

    start = torch.tensor([[[1.0]], [[-1.0]]], dtype=torch.float64)
    end = integrate(field, start, lambda state: state.abs().amax(2))
    torch.testing.assert_close(end[0], torch.full_like(end[0], math.e), rtol=1e-9, atol=0)
    assert bool(end[1].isnan().all())
    assert calls.count(2) < 20
