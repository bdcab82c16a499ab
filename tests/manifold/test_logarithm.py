"""Logarithms against scipy's integrator, which knows nothing of how they were found."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold, Status, datasets, zoo
from pullgeo.errors import GeometryError
from pullgeo.numerics.banded.block_tridiagonal import solve_tridiagonal
from pullgeo.numerics.ode.discontinuities import locate
from pullgeo.numerics.ode.dop853 import integrate
from pullgeo.testing.charts import Ellipsoid, HalfPlane, Paraboloid, PoincareBall, StereographicSphere, Torus
from pullgeo.testing.oracles import geodesic_ivp
from pullgeo.testing.oracles.curves import MetricFunction


def pairs(n: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    x, y = scale * torch.randn(2, n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return x, y


def arrives(metric: MetricFunction, x: Tensor, y: Tensor, v: Tensor, rtol: float) -> None:
    ends = geodesic_ivp(metric, x, v, rtol=1e-12)[0][:, 0]
    assert bool(((ends - y).norm(dim=1) <= rtol * v.norm(dim=1)).all())


def bent(layer: nn.Module, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An activation with its first and second derivative, written out."""
    if isinstance(layer, nn.Tanh):
        t = np.tanh(y)
        return t, 1 - t**2, -2 * t * (1 - t**2)
    s = 1 / (1 + np.exp(-y))
    if isinstance(layer, nn.Softplus):
        return np.logaddexp(0, y), s, s * (1 - s)
    return s, s * (1 - s), s * (1 - s) * (1 - 2 * s)


def followed(decoder: nn.Sequential, x: Tensor, v: Tensor) -> np.ndarray:
    """The end of one geodesic, by least squares ``J z̈ = -f''(ż, ż)`` in numpy."""
    weights = {m: (m.weight.detach().numpy(), m.bias.detach().numpy()) for m in decoder if isinstance(m, nn.Linear)}

    def field(_: float, state: np.ndarray) -> np.ndarray:
        y, J, second = state[:2], np.eye(2), np.zeros(2)
        for layer in decoder:
            if layer in weights:
                W, b = weights[layer]
                y, J, second = W @ y + b, W @ J, W @ second
            else:
                y, slope, curve = bent(layer, y)
                second = slope * second + curve * (J @ state[2:]) ** 2
                J = slope[:, None] * J
        return np.concatenate([state[2:], np.linalg.lstsq(J, -second, rcond=None)[0]])

    start = torch.cat([x, v]).detach().numpy()
    path = solve_ivp(field, (0.0, 1.0), start, method="DOP853", rtol=1e-12, atol=1e-12)
    assert path.success
    return path.y[:2, -1]


SURFACES = {
    "sphere": (StereographicSphere(2), 0.5),
    "torus": (Torus(3.0, 1.0), 0.7),
    "paraboloid": (Paraboloid(), 1.0),
    "ellipsoid": (Ellipsoid(1.0, 1.5, 2.0), 0.3),
}


@pytest.mark.parametrize("name", list(SURFACES))
def test_logarithms_on_surfaces(name: str) -> None:
    chart, scale = SURFACES[name]
    x, y = pairs(3, scale)
    if name == "ellipsoid":
        x, y = x + 1.2, y + 1.2
    arrives(chart.metric, x, y, PullbackManifold(chart).logmap(x, y), 1e-8)


@pytest.mark.parametrize("name", ["ball", "half-plane"])
def test_logarithms_of_hyperbolic_space(name: str) -> None:
    chart = PoincareBall(2) if name == "ball" else HalfPlane()
    x, y = (a.tanh() / 1.5 for a in pairs(5))
    if name == "half-plane":
        x, y = (torch.stack([a[:, 0], (3 * a[:, 1]).exp()], 1) for a in (x, y))
    torch.testing.assert_close(MetricManifold(chart).logmap(x, y), chart.logmap(x, y), rtol=1e-8, atol=1e-10)


def test_winding_geodesics_of_a_trained_decoder() -> None:
    # a discrete geodesic of 32 segments cuts their bends; windows of equal duration did not come to fit there
    vae = zoo.digits_vae()
    with torch.no_grad():
        z = vae.encode(datasets.digits().images[torch.randperm(1797, generator=torch.Generator().manual_seed(0))])
    x, y = z[[36, 49]].double(), z[[548, 561]].double()
    decoder = vae.decoder.double()
    v = PullbackManifold(decoder).logmap(x, y).detach()
    for begin, velocity, end in zip(x, v, y, strict=True):
        assert np.linalg.norm(followed(decoder, begin, velocity) - end.numpy()) <= 1e-7 * velocity.norm()


@pytest.mark.heavy
def test_connections_that_jump_are_followed_by_shooting() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 7), nn.ELU(), nn.Linear(7, 5)).double()
    x, y = pairs(1)
    manifold = PullbackManifold(decoder)
    log = manifold.logarithm(x, y)
    assert log.status == (Status.CONVERGED,)
    assert bool((log.error < 1e-9).all())
    torch.testing.assert_close(manifold.expmap(x, log.vector), y, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(manifold.norm(x, log.vector), manifold.dist(x, y), rtol=1e-4, atol=0)


@pytest.mark.quick(2)
@pytest.mark.parametrize("what", ["expmap", "logmap", "transport"])
def test_derivatives_across_jumps_are_refused(what: str) -> None:
    """Forwards both are right; what autograd makes of the steps is not, as differences show."""
    torch.manual_seed(0)
    elu = nn.Sequential(nn.Linear(2, 7), nn.ELU(), nn.Linear(7, 5)).double()
    silu = nn.Sequential(elu[0], nn.SiLU(), elu[2])
    x, y = pairs(1)
    u = (y - x).requires_grad_()
    calls: dict[str, Callable[[PullbackManifold], Tensor]] = {
        "expmap": lambda m: m.expmap(x, u),
        "logmap": lambda m: m.logmap(x, x + u),
        "transport": lambda m: m.expmap_transp(x.clone().requires_grad_(), u.detach(), u.detach())[1],
    }
    refused = calls[what](PullbackManifold(elu)).sum()
    with pytest.raises(GeometryError, match=r"derivative of (expmap|logmap): 1 of 1 .* jumps"):
        refused.backward()
    calls[what](PullbackManifold(silu)).sum().backward()
    PullbackManifold(elu).dist(x, x + u).sum().backward()


@pytest.mark.heavy
def test_a_logarithm_tells_for_each_pair_why_there_is_none() -> None:
    def decoder(z: Tensor) -> Tensor:
        return torch.cat([z, 2 * z[:, :1].relu(), z[:, :1].relu() * z[:, 1:]], 1)

    x = torch.tensor([[-1.0, 0.5], [-1.0, 0.5], [0.3, 1.0]], dtype=torch.float64)
    y = torch.tensor([[-2.0, 1.5], [1.0, 1.5], [0.3, 1.0]], dtype=torch.float64)
    log = PullbackManifold(decoder).logarithm(x.requires_grad_(), y)
    assert log.status == (Status.CONVERGED, Status.KINKED, Status.COINCIDENT)
    assert log.converged.tolist() == [s.converged for s in log.status]
    assert bool((log.vector.isnan().any(1) == ~log.converged).all())
    assert bool((log.error.isinf() == ~log.converged).all())
    torch.testing.assert_close(log.vector[0], (y - x)[0])
    assert not log.vector[2].any()
    assert "1 KINKED" in repr(log)
    assert len(log) == 3
    squashed = PullbackManifold(lambda z: 0 * z).logarithm(x, y)
    assert squashed.status == (Status.SINGULAR, Status.SINGULAR, Status.COINCIDENT)
    assert squashed.vector.isnan().any(1).tolist() == [True, True, False]


def test_the_shape_of_a_logarithm_is_that_of_the_pairs() -> None:
    x, y = pairs(3, 0.3)
    manifold = PullbackManifold(Paraboloid())
    log = manifold.logarithm(x[:, None], y[None, :2])
    assert log.vector.shape == (3, 2, 2)
    assert log.error.shape == log.converged.shape == (3, 2)
    assert len(log.status) == 6
    torch.testing.assert_close(log.vector[2, 1], manifold.logmap(x[2], y[1]), rtol=1e-8, atol=1e-9)
    single = manifold.logarithm(x[0].float(), y[0].float())
    assert single.vector.dtype == torch.float32
    assert single.error.shape == ()
    assert manifold.logarithm(x[:0], y[:0]).vector.shape == (0, 2)


def test_metrics_that_jump_a_little_have_no_logarithm() -> None:
    # the straight line is almost as long as the shortest curve, and yet solves another problem
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.999), nn.Linear(16, 5)).double()
    x, y = pairs(6, 2.0)
    manifold = PullbackManifold(decoder)
    within = (decoder[0](x).sign() == decoder[0](y).sign()).all(1)
    v = manifold.logmap(x, y)
    assert bool((v.isnan().any(1) == ~within).all())
    near = x + 1e-3 * y
    same = (decoder[0](x).sign() == decoder[0](near).sign()).all(1)
    assert bool(same.any())
    torch.testing.assert_close(manifold.logmap(x[same], near[same]), near[same] - x[same])


def test_states_that_run_to_infinity_are_given_up_soon() -> None:
    calls = []

    def field(state: Tensor) -> Tensor:  # infinite at t = 1, and rough far out, as where a metric is nearly singular
        calls.append(len(state))
        return state.square() * (1 + 1e-14 * state**3 * (1e6 * state).sin())

    start = torch.tensor([[[1.0]], [[0.1]]], dtype=torch.float64)
    end = integrate(field, start, lambda state: state.abs().amax(2), duration=1.5)
    assert bool(end[0].isnan())
    torch.testing.assert_close(end[1], torch.full_like(end[1], 1 / 8.5), rtol=1e-9, atol=0)
    assert len(calls) < 12 * 400


def test_jumps_of_a_field_are_found() -> None:
    jumps_at = torch.tensor([0.1, 0.15, 0.9], dtype=torch.float64)
    calls = []

    def field(state: Tensor) -> Tensor:  # x' = 1, and y' = x² with jumps
        calls.append(len(state))
        x = state[:, :, :1]
        return torch.cat([torch.ones_like(x), x.square() + (x > jumps_at).to(x).sum(2, keepdim=True)], 2)

    start = torch.tensor([[[0.0, 0.0]], [[0.12, 0.0]], [[0.95, 0.0]]], dtype=torch.float64)
    end = integrate(field, start, lambda state: 1 + state.abs().amax(2))
    x = start[:, 0, :1]
    expected = ((1 + x) ** 3 - x**3) / 3 + (1 + x - torch.maximum(x, jumps_at)).sum(1, keepdim=True)
    torch.testing.assert_close(end[:, 0, 1:], expected, rtol=1e-9, atol=0)
    assert len(calls) < 600  # 1900 if steps are only made shorter


def test_where_a_field_jumps() -> None:
    def field(state: Tensor) -> Tensor:
        return 1 + state.square() + 0.1 * (state > 0.3)

    start = torch.tensor([[[0.29]], [[0.31]], [[0.0]]], dtype=torch.float64)
    tolerance = torch.full((3, 1), 1e-10, dtype=torch.float64)
    jumps = locate(field, start, field(start), torch.full((3,), 0.1, dtype=torch.float64), tolerance)
    assert jumps.found.tolist() == [True, False, False]
    time = float(np.arctan(0.3) - np.arctan(0.29))
    assert float(jumps.before[0]) <= time <= float(jumps.after[0]) <= time + 1e-4


def test_points_that_rounding_hardly_tells_apart() -> None:
    x, w = pairs(3)
    y = x + torch.tensor([[1e-8], [1e-9], [1e-10]], dtype=torch.float64) * w
    v = PullbackManifold(StereographicSphere(2)).logmap(x, y)
    torch.testing.assert_close(v, y - x, rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("n", [1, 5, 47])
def test_tridiagonal_systems(n: int) -> None:
    d = 3
    torch.manual_seed(0)
    diagonal = torch.randn(2, n, d, d, dtype=torch.float64) + 4 * torch.eye(d, dtype=torch.float64)
    lower, upper = torch.randn(2, 2, n - 1, d, d, dtype=torch.float64)
    right = torch.randn(2, n, d, dtype=torch.float64)
    full = torch.zeros(2, n, d, n, d, dtype=torch.float64)
    for i in range(n):
        full[:, i, :, i] = diagonal[:, i]
        if i:
            full[:, i, :, i - 1], full[:, i - 1, :, i] = lower[:, i - 1], upper[:, i - 1]
    expected = torch.linalg.solve(full.reshape(2, n * d, n * d), right.flatten(1)).reshape(2, n, d)
    torch.testing.assert_close(solve_tridiagonal(lower, diagonal, upper, right), expected)
