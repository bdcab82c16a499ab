"""Random motion: laws that are known, and the same law whatever the chart."""

import pytest
import torch
from scipy.special import iv
from torch import Tensor

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.testing import oracles
from pullgeo.testing.charts import HalfPlane, LinearChart, StereographicSphere


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def height(chart: StereographicSphere, z: Tensor) -> Tensor:
    """The cosine of the angle from the chart's centre."""
    return -chart.embed(z)[..., -1]


def test_brownian_motion_decays_to_the_uniform_law() -> None:
    # E cos θ = exp(-d t/2) on the unit sphere, as cos θ is an eigenfunction of ½ Δ
    chart = StereographicSphere(3)
    start = torch.tensor([[0.3, 0.5, -0.4], [0.0, 0.1, 0.2]], dtype=torch.float64)
    walks = PullbackManifold(chart).random_walk(start.repeat_interleave(2500, 0), 12, 0.03, generator())
    assert walks.shape == (5000, 13, 3)
    torch.testing.assert_close(walks[:, 0], start.repeat_interleave(2500, 0))
    cosine = (chart.embed(walks) * chart.embed(start).repeat_interleave(2500, 0).unsqueeze(1)).sum(-1)
    t = 0.03 * torch.arange(13, dtype=torch.float64)
    for part in cosine.split(2500):
        torch.testing.assert_close(part.mean(0), (-1.5 * t).exp(), rtol=0, atol=0.03)


def test_one_step_has_the_covariance_and_the_drift_of_the_chart() -> None:
    def metric(z: Tensor) -> Tensor:
        x, y = z.unbind(1)
        return torch.stack([1 + x**2, 0.3 * x, 0.3 * x, 2 + (x * y).sin()], 1).reshape(-1, 2, 2)

    manifold = MetricManifold(metric)
    z, h, n = torch.tensor([[0.7, -0.4]], dtype=torch.float64), 0.04, 200_000
    steps = manifold.random_walk(z.expand(n, -1), 1, h, generator()).diff(dim=1).squeeze(1)
    inverse = torch.linalg.inv(metric(z))[0]
    drift = -h / 2 * torch.einsum("ij,kij->k", inverse, oracles.christoffel(metric, z)[0])
    torch.testing.assert_close(steps.mT.cov() / h, inverse, rtol=0.05, atol=0.01)
    noise = float((h * inverse.diagonal().max() / n).sqrt())
    assert float(drift.norm()) > 10 * noise
    torch.testing.assert_close(steps.mean(0), drift, rtol=0, atol=5 * noise)


def test_samples_have_the_density_with_respect_to_the_volume() -> None:
    # von Mises and Fisher's law exp(κ cos θ) on S³ has E cos θ = I₂(κ)/I₁(κ); without the volume it would be another
    chart = StereographicSphere(3)
    kappa = 3.0
    chains = PullbackManifold(chart).sample(
        lambda z: kappa * height(chart, z), torch.zeros(500, 3).double(), 40, 0.5, generator(), burn_in=15, thin=2
    )
    assert chains.points.shape == (500, 40, 3)
    torch.testing.assert_close(chains.log_density, kappa * height(chart, chains.points))
    assert 0.2 < float(chains.acceptance_rate.mean()) < 0.9
    expected = float(iv(2, kappa) / iv(1, kappa))
    assert float(height(chart, chains.points).mean()) == pytest.approx(expected, abs=0.02)


def test_a_flat_chart_samples_a_normal_law_of_its_image() -> None:
    W = torch.tensor([[2.0, 1.0], [0.0, 0.5], [1.0, 0.0]], dtype=torch.float64)
    chart = LinearChart(W)
    chains = PullbackManifold(chart).sample(
        lambda z: -chart(z).square().sum(1) / 2, torch.zeros(400, 2).double(), 40, 0.5, generator(), burn_in=15
    )
    moved = chains.points.reshape(-1, 2)
    torch.testing.assert_close(moved.mT.cov(), torch.linalg.inv(W.mT @ W), rtol=0.15, atol=0.03)


def test_proposals_outside_the_domain_are_rejected() -> None:
    # exp(-d²/2 s²)-like law on the half-plane, in the coordinate that is the signed distance from a line
    def log_density(z: Tensor) -> Tensor:
        inside = z[:, 1] > 0
        y = torch.where(inside, z[:, 1], 1.0)
        return torch.where(inside, -2 * (z[:, 0].square() + y.log().square()), -torch.inf)

    start = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(50, -1)
    chains = MetricManifold(HalfPlane()).sample(log_density, start, 30, 0.8, generator())
    assert bool((chains.points[..., 1] > 0).all())
    assert bool(torch.isfinite(chains.log_density).all())
    assert bool((chains.acceptance_rate < 1).any())


def test_the_same_generator_gives_the_same_path() -> None:
    manifold = PullbackManifold(StereographicSphere(2))
    z = torch.zeros(2, 3, 2)
    one, two = (manifold.random_walk(z, 4, 0.1, generator(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (2, 3, 5, 2)
    assert one.dtype == torch.float32
    assert not torch.equal(one, manifold.random_walk(z, 4, 0.1, generator(8)))


@pytest.mark.usefixtures("without_type_checks")
def test_mistakes_in_sampling() -> None:
    manifold = PullbackManifold(StereographicSphere(2))
    z = torch.zeros(3, 2)
    with pytest.raises(OptionError, match="step_size must be positive"):
        manifold.random_walk(z, 3, 0.0, generator())
    with pytest.raises(OptionError, match="steps must be an integer >= 1"):
        manifold.sample(lambda z: z.sum(1), z, 0, 0.1, generator())
    with pytest.raises(ShapeError, match="Return one number per point"):
        manifold.sample(lambda z: z, z, 2, 0.1, generator())
    with pytest.raises(NonFiniteError, match="not finite at 3 of 3 starting points"):
        manifold.sample(lambda z: z[:, 0].log(), z, 2, 0.1, generator())
