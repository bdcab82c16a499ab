"""Metrics from data against loops over data, and what geodesics do under them."""

import pytest
import torch
from torch import Tensor

from pullgeo import MetricManifold, Newton
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic import StraightLine
from pullgeo.manifold import ConformalMetric, KernelDensity, LandMetric, RHVAEMetric
from pullgeo.testing.oracles.connection import christoffel

B, N, D = 3, 7, 2


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def land(z: Tensor, x: Tensor) -> Tensor:
    G = torch.zeros(D, D, dtype=torch.float64)
    for i in range(D):
        variance = 0.05
        for n in range(N):
            variance += float(torch.exp(-(x[n] - z).square().sum() / (2 * 0.7**2)) * (x[n, i] - z[i]) ** 2)
        G[i, i] = 1 / variance
    return G


def rhvae(z: Tensor, x: Tensor) -> Tensor:
    total = 0.1 * torch.eye(D, dtype=torch.float64)
    for c, L in zip(x, data(N, D, D, seed=1), strict=True):
        total = total + L @ L.T * torch.exp(-((z - c).norm() ** 2) / 0.8**2)
    return torch.linalg.inv(total)


def conformal(z: Tensor, x: Tensor) -> Tensor:
    h = sum(float(torch.exp(-((z - c).norm() ** 2) / (2 * 0.6**2))) for c in x) / N
    return (h + 0.02) ** -1.5 * torch.eye(D, dtype=torch.float64)


METRICS = {
    "LAND": (LandMetric(data(N, D), sigma=0.7, rho=0.05), land),
    "RHVAE": (RHVAEMetric(data(N, D), data(N, D, D, seed=1), temperature=0.8, regularisation=0.1), rhvae),
    "conformal": (ConformalMetric(KernelDensity(data(N, D), 0.6), epsilon=0.02, alpha=1.5), conformal),
}


@pytest.mark.parametrize("name", list(METRICS))
def test_metric_is_the_formula(name: str) -> None:
    metric, formula = METRICS[name]
    manifold, z = MetricManifold(metric), data(B, D, seed=2)
    torch.testing.assert_close(manifold.metric(z).dense(), torch.stack([formula(p, data(N, D)) for p in z]))
    v, w = data(2, B, D, seed=3)
    gamma = christoffel(lambda z: torch.stack([formula(p, data(N, D)) for p in z]), z, step=2e-3)
    for other in (v, w):
        turned = torch.einsum("bkij,bi,bj->bk", gamma, v, other)
        torch.testing.assert_close(manifold.connection(z, v, other), turned, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", list(METRICS))
def test_geodesics_converge_and_are_no_longer_than_the_line(name: str) -> None:
    manifold = MetricManifold(METRICS[name][0].float())
    a, b = data(B, D, seed=4), data(B, D, seed=5)
    solution = manifold.geodesic(a.float(), b.float(), Newton(segments=16, starts=(StraightLine(),)))
    assert bool(solution.converged.all())
    assert solution.length.dtype == torch.float32
    t = torch.linspace(0, 1, 401, dtype=torch.float64)[:, None, None]
    steps = ((1 - t) * a + t * b).diff(dim=0).flatten(0, 1)
    middle = ((1 - t[1:]) * a + t[1:] * b).flatten(0, 1)
    straight = manifold.in_double().norm(middle, steps).unflatten(0, (400, B)).sum(0)
    assert bool((solution.length <= straight * (1 + 1e-3)).all())
    METRICS[name][0].double()


def test_densities_may_be_distributions() -> None:
    prior = torch.distributions.MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double())
    metric = ConformalMetric(lambda z: prior.log_prob(z).exp(), epsilon=1e-3, alpha=2 / D)
    z = data(B, D)
    volume = MetricManifold(metric).log_volume(z)
    torch.testing.assert_close(volume, -(prior.log_prob(z).exp() + 1e-3).log())


def test_distance_differentiates_to_the_data() -> None:
    metric = LandMetric(data(N, D).requires_grad_(), sigma=0.7, rho=0.05)
    MetricManifold(metric).dist(data(B, D, seed=4), data(B, D, seed=5)).sum().backward()
    assert bool((metric.data.grad != 0).any())


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    with pytest.raises(ShapeError, match=r"LandMetric: expected data of shape \(n, d\)"):
        LandMetric(torch.zeros(3), 1.0, 1.0)
    with pytest.raises(OptionError, match="rho must be positive, got 0"):
        LandMetric(data(N, D), 1.0, 0.0)
    with pytest.raises(ShapeError, match="one square matrix for each centroid"):
        RHVAEMetric(data(N, D), data(N, D), 1.0, 1.0)
    with pytest.raises(OptionError, match="density must be a function"):
        ConformalMetric(3, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="one number per point"):
        MetricManifold(ConformalMetric(lambda z: z, 1.0)).metric(data(B, D))
