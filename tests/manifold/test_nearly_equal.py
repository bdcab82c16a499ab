"""Logarithms and transport of points that are nearly equal: first order is all that counts there, at every distance."""

import mpmath
import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold, Status
from pullgeo.manifold import Ensemble, LandMetric
from pullgeo.manifold.base import Manifold
from pullgeo.testing.charts import HalfPlane, LinearChart, StereographicSphere

X = torch.tensor([[0.7, -0.3]], dtype=torch.float64)


def sphere_log(x: Tensor, y: Tensor) -> Tensor:
    """Of the unit sphere in its stereographic chart, with 60 digits; the points are taken as they are."""
    with mpmath.workdps(60):
        a, b = ([mpmath.mpf(float(c)) for c in p] for p in (x, y))
        A, B, ab = (mpmath.fsum(s * t for s, t in zip(p, q, strict=True)) for p, q in ((a, a), (b, b), (a, b)))
        # the rotation that takes a to the origin, where geodesics are straight
        turned = [((1 + A) * t - (1 + 2 * ab - B) * s) / (1 + 2 * ab + A * B) for s, t in zip(a, b, strict=True)]
        size = mpmath.sqrt(mpmath.fsum(t * t for t in turned))
        return torch.tensor([float((1 + A) * mpmath.atan(size) * t / size) for t in turned], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_ladder_of_distances_on_the_sphere(dtype: torch.dtype) -> None:
    way = torch.tensor([0.6, 0.8], dtype=torch.float64)
    steps = 10.0 ** -torch.arange(0, 17, dtype=torch.float64)
    x = X.to(dtype)
    y = (x.double() + steps.unsqueeze(1) * way).to(dtype)
    y = torch.cat([y[(y != x).any(1)], torch.nextafter(x, torch.ones_like(x))])
    sphere = StereographicSphere(2)
    log = PullbackManifold(sphere).logarithm(x, y)
    assert log.status == (Status.CONVERGED,) * len(y)
    exact = torch.stack([sphere_log(x[0], end) for end in y])
    wrong = (log.vector.double() - exact).norm(dim=1) / exact.norm(dim=1)
    assert bool((wrong <= log.error).all())
    assert bool((log.error <= 1e-9 + torch.finfo(dtype).eps).all())
    v = torch.tensor([[0.3, 1.0]], dtype=dtype)
    moved = PullbackManifold(sphere).transp(x, y, v)
    expected = sphere.transp(x.double().expand(len(y), -1), y.double(), v.double().expand(len(y), -1))
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=32 * torch.finfo(dtype).eps)


def net(seed: int = 0, *, single: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    decoder = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 3))
    return decoder if single else decoder.double()


DATA = torch.randn(11, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

MANIFOLDS: dict[str, Manifold] = {
    "decoder": PullbackManifold(net()),
    "decoder in float32": PullbackManifold(net(single=True)),
    "outputs far from zero": PullbackManifold(lambda z: torch.cat([1e7 + z, 1e7 + z.square()], 1)),
    "ELU": PullbackManifold(nn.Sequential(nn.Linear(2, 7), nn.ELU(), nn.Linear(7, 3)).double()),
    "plane": PullbackManifold(LinearChart(torch.tensor([[1.0, 2.0], [0.0, 3.0], [1.0, 1.0]], dtype=torch.float64))),
    "on the sphere": PullbackManifold(
        StereographicSphere(2), ambient=PullbackManifold(LinearChart(torch.eye(3).double()))
    ),
    "metric of the output": PullbackManifold(
        net(), ambient=lambda y: torch.diag_embed(1 + y.square()) + 0.1 * torch.ones(3, 3, dtype=y.dtype)
    ),
    "half-plane": MetricManifold(HalfPlane()),
    "land": MetricManifold(
        LandMetric(torch.randn(11, 2, generator=torch.Generator().manual_seed(0)).double(), 0.7, 0.1)
    ),
    "ensemble": PullbackManifold(Ensemble([net(1), net(2), net(3)])),
}


@pytest.mark.parametrize("name", list(MANIFOLDS))
def test_first_order_on_every_kind_of_manifold(name: str) -> None:
    manifold = MANIFOLDS[name]
    x = torch.tensor([[0.7, 0.6]], dtype=torch.float64)
    step = torch.tensor([[1e-7], [1e-9], [1e-11], [1e-13], [1e-15]], dtype=torch.float64)
    y = x + step * torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    y = torch.cat([y, torch.nextafter(x, 2 * x), x])
    w = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        log = manifold.logarithm(x, y)
        moved = manifold.transp(x, y, w)
        there = manifold.expmap(x, log.vector)
    assert log.status == (Status.CONVERGED,) * 6 + (Status.COINCIDENT,)
    distance = (y - x).norm(dim=1)
    assert bool(((log.vector - (y - x)).norm(dim=1) <= 10 * distance.square() + 1e-15 * distance).all())
    assert bool(((moved - w).norm(dim=1) <= 10 * distance + 1e-14).all())
    assert bool(((there - y).abs() <= 2e-16 * (1 + 1e9 * distance.unsqueeze(1).square())).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_flow_to_the_mean_arrives_and_stays(dtype: torch.dtype) -> None:
    manifold = PullbackManifold(StereographicSphere(2))
    z = X.to(dtype) + torch.tensor([[0.0, 0.0], [0.02, 0.0], [0.0, 0.03]], dtype=dtype)
    p = X.to(dtype) + 0.2
    for _ in range(4):
        p = manifold.expmap(p, manifold.logmap(p, z[:1]))
    torch.testing.assert_close(p, z[:1], rtol=torch.finfo(dtype).eps, atol=0)
    sizes = []
    for _ in range(8):
        log = manifold.logarithm(p, z)
        assert bool(log.converged.all())
        mean = log.vector.mean(0, keepdim=True)
        sizes.append(float(mean.norm()))
        p = manifold.expmap(p, mean)
    assert max(sizes[-2:]) < 4 * torch.finfo(dtype).eps


def test_derivatives_of_nearly_equal_points() -> None:
    # log_x(y) = y - x to first order
    x, y = X.clone().requires_grad_(), (X + 1e-12).requires_grad_()
    log = PullbackManifold(StereographicSphere(2)).logmap(x, y)
    w = torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    to_x, to_y = torch.autograd.grad((log * w).sum(), (x, y))
    torch.testing.assert_close(to_x, -w, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(to_y, w, rtol=1e-9, atol=1e-9)


def test_where_the_metric_is_singular_there_is_no_logarithm_at_any_distance() -> None:
    collapsed = PullbackManifold(lambda z: torch.cat([z[:, :1], z[:, :1] ** 2], 1))
    x = torch.zeros(4, 2, dtype=torch.float64)
    y = torch.tensor([[1.0, 1.0], [1e-3, 1.0], [0.0, 1e-9], [1e-300, 0.0]], dtype=torch.float64)
    log = collapsed.logarithm(x, y)
    assert log.status == (Status.SINGULAR,) * 4
    assert bool(log.vector.isnan().all())
