"""Volume and the Laplacian: totals over whole surfaces, harmonics whose eigenvalues are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.errors import ShapeError
from pullgeo.testing.charts import HalfPlane, LinearChart, StereographicSphere, Torus

B = 3


def points(d: int, seed: int = 0) -> Tensor:
    return 0.4 * torch.randn(B, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_area_and_total_curvature_of_the_torus() -> None:
    # the trapezoidal rule is exact to rounding for smooth periodic functions; nothing depends on φ
    chart = Torus(3.0, 2.0)
    manifold = PullbackManifold(chart)
    n = 96
    theta = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
    grid = torch.stack([theta, torch.full_like(theta, 0.4)], 1)
    element = manifold.log_volume(grid).exp() * (2 * torch.pi) ** 2 / n
    assert float(element.sum()) == pytest.approx(4 * math.pi**2 * 3 * 2, rel=1e-12)
    K = manifold.scalar_curvature(grid) / 2
    assert abs(float((K * element).sum())) < 1e-12
    assert float((K.abs() * element).sum()) == pytest.approx(8 * math.pi, rel=1e-3)


def test_total_curvature_of_an_ellipsoid_is_that_of_a_sphere() -> None:
    from pullgeo.testing.charts import Ellipsoid

    manifold = PullbackManifold(Ellipsoid(1.5, 1.2, 1.0))
    nodes, weights = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(24))
    u, weights = torch.pi / 2 * (nodes + 1), torch.pi / 2 * weights
    v = torch.arange(32, dtype=torch.float64) * (2 * torch.pi / 32)
    grid = torch.cartesian_prod(u, v)
    with torch.no_grad():
        density = manifold.log_volume(grid).exp() * manifold.scalar_curvature(grid) / 2
    total = (density.reshape(24, 32).sum(1) * 2 * torch.pi / 32 * weights).sum()
    assert float(total) == pytest.approx(4 * math.pi, rel=1e-9)


def test_condition_number() -> None:
    W = torch.diag(torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64))[:, :2]
    z = points(2)
    torch.testing.assert_close(PullbackManifold(LinearChart(W)).condition_number(z), torch.full((B,), 9.0).double())
    squashed = PullbackManifold(LinearChart(torch.ones(5, 2, dtype=torch.float64)))
    assert bool(torch.isinf(squashed.condition_number(z)).all())
    assert bool((squashed.log_volume(z) < -15).all())


def test_log_volume_and_condition_number_differentiate() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    manifold = PullbackManifold(net)

    def local(z: Tensor, *weights: Tensor) -> Tensor:
        return manifold.log_volume(z) + manifold.condition_number(z).log()

    assert torch.autograd.gradcheck(local, (points(2).requires_grad_(), *net.parameters()))
    assert torch.autograd.gradgradcheck(lambda z: manifold.log_volume(z), (points(2)[:1].requires_grad_(),))


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_harmonics_of_the_sphere(radius: float) -> None:
    # coordinates are harmonics of degree 1, products of two different ones of degree 2: Δ = -k (k + d - 1)/r²
    chart = StereographicSphere(3, radius)
    z = points(3)
    for manifold in (PullbackManifold(chart), MetricManifold(chart.metric)):
        for degree, harmonic in ((1, lambda p: chart.embed(p)[:, 1]), (2, lambda p: chart.embed(p)[:, 0:3:2].prod(1))):
            expected = -degree * (degree + 2) / radius**2 * harmonic(z)
            torch.testing.assert_close(manifold.laplace_beltrami(harmonic, z), expected, rtol=1e-9, atol=1e-10)


def test_laplacian_of_simple_functions() -> None:
    z = points(2) + torch.tensor([0.0, 1.5]).double()
    half_plane = MetricManifold(HalfPlane())
    # Δ y^s = s (s - 1) y^s
    torch.testing.assert_close(half_plane.laplace_beltrami(lambda p: p[:, 1] ** 3, z), 6 * z[:, 1] ** 3)
    torus, angles = Torus(3.0, 2.0), points(2)
    # a linear function still has a Laplacian where the chart is curved: Δθ = -sin θ / (r ρ)
    exact = -angles[:, 0].sin() / (2 * torus.axis_distance(angles))
    torch.testing.assert_close(PullbackManifold(torus).laplace_beltrami(lambda p: p[:, 0], angles), exact)
    torch.testing.assert_close(
        half_plane.laplace_beltrami(lambda p: torch.ones(len(p)).double(), z), torch.zeros(B).double()
    )
    grid = half_plane.laplace_beltrami(lambda p: p[:, 1] ** 3, z.reshape(1, B, 2))
    torch.testing.assert_close(grid, 6 * z[:, 1].unsqueeze(0) ** 3)
    with pytest.raises(ShapeError, match="Return one number per point"):
        half_plane.laplace_beltrami(lambda p: p, z)


def test_laplacian_differentiates() -> None:
    manifold = PullbackManifold(Torus())
    z = points(2)[:2].requires_grad_()
    assert torch.autograd.gradcheck(lambda p: manifold.laplace_beltrami(lambda q: (q[:, 0] * q[:, 1]).sin(), p), (z,))
