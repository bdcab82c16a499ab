"""Diagonals from random probes: right on average, by their own standard error, and reproducible."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import OptionError, ShapeError, SingularMetricError
from pullgeo.jacobian import linearize
from pullgeo.metric import (
    Dense,
    Diagonal,
    Estimate,
    GaussianProbe,
    Identity,
    LowRank,
    Metric,
    Probe,
    Rademacher,
    hutchinson_diag,
    monte_carlo_diag,
)
from pullgeo.testing import oracles

B, N = 3, 5


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, N)).double()


def metrics() -> list[Metric]:
    R = random(B, N, N)
    return [Identity(N), Diagonal(random(B, N).square()), Dense(R @ R.mT + torch.eye(N)), LowRank(random(N, 2))]


def truth(f: nn.Module, x: Tensor, M: Metric, wrt: str) -> Tensor:
    dense = M.dense().expand(B, -1, -1)
    return oracles.jTmjp(oracles.dense_jacobian(f, x, wrt), dense, to_diag=True)


def within(estimate: Estimate, expected: Tensor) -> None:
    """All entries lie within five of their standard errors, and the errors tell the spread."""
    value, error = estimate.value.detach(), estimate.standard_error.detach()
    assert value.shape == error.shape == expected.shape
    off = (value - expected).abs() / error.clamp(min=1e-12 * float(expected.abs().max()))
    assert float(off.max()) < 5
    # of standard normal numbers, the mean square is one
    spread = off[error > 1e-10].square().mean()
    assert not spread.isfinite() or 0.2 < float(spread) < 3


@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("probe", [Rademacher(), GaussianProbe()])
def test_estimates_are_unbiased_and_know_their_error(wrt: str, probe: Probe, generator: torch.Generator) -> None:
    f, x = network(), random(B, 2)
    J = linearize(f, x, wrt)[1]
    for M in metrics():
        expected = truth(f, x, M, wrt)
        within(monte_carlo_diag(J, M, 2000, generator, probe), expected)
        within(hutchinson_diag(J, M, 2000, generator, probe), expected)
    skew = Dense(random(B, N, N))
    within(hutchinson_diag(J, skew, 2000, generator, probe), truth(f, x, skew, wrt))


def test_sums_over_the_batch(generator: torch.Generator) -> None:
    f, x = network(), random(B, 2)
    J, M = linearize(f, x, "weight")[1], metrics()[2]
    expected = truth(f, x, M, "weight")
    within(monte_carlo_diag(J, M, 600, generator, reduction="sum"), expected.sum(0))
    within(monte_carlo_diag(J, M, 600, generator, reduction="mean"), expected.mean(0))


def test_the_standard_error_shrinks_with_the_root_of_the_samples(generator: torch.Generator) -> None:
    J, M = linearize(network(), random(B, 2))[1], metrics()[2]
    few, many = (monte_carlo_diag(J, M, samples, generator).standard_error.mean() for samples in (400, 6400))
    assert 3 < few.item() / many.item() < 5
    assert monte_carlo_diag(J, M, 2, generator).samples == 2


def test_signs_are_exact_where_the_metric_is_diagonal(generator: torch.Generator) -> None:
    J = linearize(nn.Tanh(), random(B, N))[1]
    estimate = hutchinson_diag(J, Identity(N), 2, generator)
    torch.testing.assert_close(estimate.value, J.derivative.square())
    assert estimate.standard_error.max().item() < 1e-12


def test_a_generator_decides_and_chunks_merge() -> None:
    J, M = linearize(network(), random(B, 2), "weight")[1], metrics()[2]

    def run(size: int | None) -> tuple[Tensor, Tensor]:
        estimate = monte_carlo_diag(J.in_chunks(size), M, 64, torch.Generator().manual_seed(3))
        return estimate.value, estimate.standard_error

    state = torch.random.get_rng_state()
    torch.testing.assert_close(run(None), run(None), rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(run(None), run(16), rtol=1e-9, atol=1e-12)  # the same draws, in four parts


def test_what_cannot_be_estimated_is_refused(generator: torch.Generator, without_type_checks: None) -> None:
    J = linearize(network(), random(B, 2))[1]
    for estimate in (hutchinson_diag, monte_carlo_diag):
        with pytest.raises(OptionError, match="at least 2"):
            estimate(J, Identity(N), 1, generator)
        with pytest.raises(ShapeError, match="J maps to dimension 5 and M lives in dimension 3"):
            estimate(J, Identity(3), 4, generator)
    with pytest.raises(OptionError, match='reduction="none"'):
        monte_carlo_diag(J, Identity(N), 4, generator, reduction="sum")
    with pytest.raises(OptionError, match="got 'all'"):
        monte_carlo_diag(J, Identity(N), 4, generator, reduction="all")
    with pytest.raises(SingularMetricError, match="negative"):
        monte_carlo_diag(J, Diagonal(-torch.ones(N).double()), 4, generator)
