"""Principal directions, regression and normal distributions against closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import Newton, PullbackManifold, Status
from pullgeo.errors import OptionError, ShapeError, SingularMetricError
from pullgeo.geodesic import StraightLine
from pullgeo.stats import LAND, fit_land, geodesic_regression, tangent_pca
from pullgeo.testing.charts import StereographicSphere

CHART = StereographicSphere(2)


class Sphere(PullbackManifold):
    """Exponential and logarithm in closed form: what is checked is what is computed from them."""

    def __init__(self) -> None:
        super().__init__(CHART)

    def in_double(self) -> PullbackManifold:
        return self

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return CHART.expmap(x.expand_as(u), u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return CHART.logmap(x.expand_as(y), y)


SPHERE = Sphere()
QUICK = Newton(segments=8, starts=(StraightLine(),))
BASE = torch.tensor([0.2, 0.1], dtype=torch.float64)


def spread(n: int, seed: int = 0) -> Tensor:
    """Points around the base, three times as far along one direction."""
    v = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v = v * torch.tensor([0.3, 0.1], dtype=torch.float64)
    return CHART.expmap(BASE.expand(n, 2), v)


def test_tangent_pca_on_a_sphere():
    z, w = spread(13), torch.linspace(0.5, 1.5, 13, dtype=torch.float64)
    found = tangent_pca(SPHERE, z, w, base=BASE)
    scale = CHART.metric(BASE)[0, 0].sqrt()  # conformal
    v = scale * CHART.logmap(BASE.expand_as(z), z)
    covariance = v.mT @ (w[:, None] * v) / w.sum()
    values = torch.linalg.eigvalsh(covariance).flip(0)
    torch.testing.assert_close(found.variances, values)
    torch.testing.assert_close(found.directions @ found.directions.mT * scale**2, torch.eye(2).double())
    torch.testing.assert_close(found.coordinates, v @ found.directions.mT * scale, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.project(z.numpy()), found.coordinates)
    torch.testing.assert_close(found.points(found.coordinates), z, rtol=1e-7, atol=1e-8)
    assert float(found.ratios.sum()) == pytest.approx(1)
    t = torch.tensor([-0.4, 0.0, 0.7], dtype=torch.float64)
    line = found.principal_geodesic(0, t)
    torch.testing.assert_close(CHART.distance(BASE.expand(3, 2), line), t.abs(), rtol=0, atol=1e-8)
    first = tangent_pca(SPHERE, z, components=1, solver=QUICK)
    assert first.directions.shape == (1, 2)
    assert first.coordinates.mean().abs() < 1e-5  # seen from the mean


def test_points_that_cannot_be_reached_are_left_out():
    class Partly(Sphere):
        def logmap(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.where(y[:, :1] < 0.35, super().logmap(x, y), torch.nan)

    z = spread(7)
    found = tangent_pca(Partly(), z, base=BASE)
    assert torch.equal(found.found, z[:, 0] < 0.35)
    assert 0 < int(found.found.sum()) < 7
    torch.testing.assert_close(found.variances, tangent_pca(SPHERE, z[found.found], base=BASE).variances)
    assert bool(found.coordinates[~found.found].isnan().all())


def test_regression_finds_a_geodesic_again():
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    velocity = torch.tensor([0.5, -0.3], dtype=torch.float64)
    z = CHART.expmap(BASE.expand(5, 2), t[:, None] * velocity)
    found = geodesic_regression(SPHERE, 2 * t + 3, z, solver=Newton(segments=32, starts=(StraightLine(),)))
    assert found.status is Status.CONVERGED
    assert (found.first, found.last) == (3, 5)
    torch.testing.assert_close(found.begin, BASE, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.velocity, velocity / 2, rtol=0, atol=1e-5)
    assert found.r_squared == pytest.approx(1)
    beyond = torch.tensor([2.0, 6.0], dtype=torch.float64)
    expected = CHART.expmap(BASE.expand(2, 2), (beyond - 3)[:, None] * velocity / 2)
    torch.testing.assert_close(found.predict(beyond), expected, rtol=0, atol=1e-4)


def test_regression_is_stationary():
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    z, w = spread(5), torch.tensor([1.0, 2.0, 0.0, 1.0, 1.5], dtype=torch.float64)
    found = geodesic_regression(SPHERE, t, z, w, solver=Newton(segments=16, starts=(StraightLine(),)))
    assert found.status is Status.CONVERGED
    ends = found.curve.curve.nodes[0, [0, -1]].clone().requires_grad_()
    p, q = CHART(ends)
    angle = torch.acos(p @ q)
    s = t.unsqueeze(1)
    there = (((1 - s) * angle).sin() * p + (s * angle).sin() * q) / angle.sin()  # the great circle through both
    total = (w * torch.acos((there * CHART(z)).sum(1).clamp(max=1)).square()).sum() / w.sum()
    (gradient,) = torch.autograd.grad(total, ends)
    assert gradient.norm() < 1e-5
    assert 0 < found.r_squared < 1


def test_the_normalisation_of_a_round_normal_distribution():
    sigma = 0.6
    covariance = sigma**2 / CHART.metric(BASE)[0, 0] * torch.eye(2, dtype=torch.float64)
    found = LAND.of(SPHERE, BASE, covariance, generator=torch.Generator().manual_seed(0), samples=2000)
    r = np.linspace(0, math.pi, 2001)
    constant = np.trapezoid(2 * math.pi * np.exp(-(r**2) / (2 * sigma**2)) * np.sin(r), r)
    assert 0 < found.normalizer_error < 0.01
    assert found.log_normalizer == pytest.approx(math.log(constant), abs=4 * found.normalizer_error)
    z = spread(3)
    squared = CHART.distance(BASE.expand_as(z), z).square() / sigma**2
    torch.testing.assert_close(found.log_prob(z), -squared / 2 - found.log_normalizer, rtol=1e-7, atol=0)


def test_a_fitted_distribution_has_the_moments_of_the_points():
    z = spread(17)
    generator = torch.Generator().manual_seed(0)
    found = fit_land(SPHERE, z, generator=generator, samples=5000, solver=QUICK)
    assert found.status is Status.CONVERGED
    v = CHART.logmap(found.mean.expand_as(z), z)
    # on a sphere the volume falls with distance, so the normal is a little wider than the points are
    second = v.mT @ v / len(v)
    ratio = torch.linalg.eigvals(torch.linalg.solve(found.covariance, second)).real
    assert bool(((ratio > 0.8) & (ratio < 1.0)).all())
    drawn = found.sample(4000, generator)
    u = CHART.logmap(found.mean.expand_as(drawn), drawn)
    torch.testing.assert_close(u.mT @ u / 4000, second, rtol=0, atol=0.006)
    torch.testing.assert_close(u.mean(0), v.mean(0), rtol=0, atol=0.02)
    # whichever way it is moved, the likelihood falls
    others = [(found.mean + 0.1, found.covariance), (found.mean, 1.5 * found.covariance), (found.mean, second / 1.5)]
    for mean, covariance in others:
        other = LAND.of(SPHERE, mean, covariance, generator=generator, samples=5000)
        assert found.log_prob(z).mean() > other.log_prob(z).mean() + 0.02


@pytest.mark.usefixtures("without_type_checks")
def test_errors():
    z = spread(3)
    generator = torch.Generator()
    with pytest.raises(OptionError, match="components must be a whole number, between 1 and 2"):
        tangent_pca(SPHERE, z, components=3)
    with pytest.raises(ShapeError, match=r"base must have shape \(2,\)"):
        tangent_pca(SPHERE, z, base=z)
    with pytest.raises(SingularMetricError, match="floor"):
        tangent_pca(PullbackManifold(lambda x: x[:, :1]), z, base=z[0])
    with pytest.raises(OptionError, match="component must be"):
        tangent_pca(SPHERE, z, base=BASE).principal_geodesic(2, z[0])
    with pytest.raises(OptionError, match="all times are"):
        geodesic_regression(SPHERE, torch.ones(3), z)
    with pytest.raises(ShapeError, match="3 finite numbers"):
        geodesic_regression(SPHERE, torch.ones(2), z)
    with pytest.raises(SingularMetricError, match="not positive definite"):
        LAND.of(SPHERE, BASE, -torch.eye(2).double(), generator=generator)
    with pytest.raises(OptionError, match="samples must be a whole number, at least 2"):
        LAND.of(SPHERE, BASE, torch.eye(2).double(), generator=generator, samples=1)
    with pytest.raises(ShapeError, match="covariance"):
        LAND.of(SPHERE, BASE, torch.eye(3).double(), generator=generator)


def test_a_regression_of_points_that_are_all_the_same_stays_there():
    manifold = PullbackManifold(StereographicSphere(2))
    z = torch.tensor([[0.3, -0.2]], dtype=torch.float64).expand(4, 2)
    fit = geodesic_regression(manifold, np.arange(4.0), z)
    assert fit.status.converged
    torch.testing.assert_close(fit.predict(np.array([1.5])), z[:1])


def test_principal_geodesics_take_arrays_and_refuse_numbers():
    z = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 5
    pca = tangent_pca(PullbackManifold(StereographicSphere(2)), z)
    assert pca.principal_geodesic(0, np.linspace(-0.1, 0.1, 3)).shape == (3, 2)
    with pytest.raises(ShapeError, match="principal_geodesic"):
        pca.principal_geodesic(0, torch.tensor(0.1))
    torch.testing.assert_close(pca.points(pca.coordinates.numpy()), z)
    with pytest.raises(ShapeError, match="coordinates"):
        pca.points(pca.coordinates[0])
