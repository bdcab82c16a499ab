"""The average length of Gaussian vectors, against the non-central Nakagami mean, quadrature and samples."""

import math

import mpmath
import pytest
import torch
from scipy.integrate import dblquad
from torch import Tensor

from pullgeo.numerics.expected_norm import expected_norm


def nakagami(mean: Tensor, s: float) -> float:
    """``s √2 Γ((D+1)/2)/Γ(D/2) ₁F₁(-½; D/2; -‖m‖²/(2s²))``."""
    half = mpmath.mpf(len(mean)) / 2
    series = mpmath.hyp1f1(-0.5, half, -float(mean.square().sum()) / (2 * s**2))
    return float(s * mpmath.sqrt(2) * mpmath.gammaprod([half + 0.5], [half]) * series)


@pytest.mark.parametrize("D", [1, 2, 3, 17, 784])
@pytest.mark.parametrize("s", [1e-3, 0.1, 1.0, 10.0])
def test_equal_deviations_are_nakagami(D: int, s: float) -> None:
    generator = torch.Generator().manual_seed(D)
    mean = torch.randn(3, D, dtype=torch.float64, generator=generator)
    mean = torch.cat([mean / mean.norm(dim=1, keepdim=True), torch.zeros(1, D).double()])
    found = expected_norm(mean, torch.full_like(mean, s))
    for m, value in zip(mean, found.tolist(), strict=True):
        assert value == pytest.approx(nakagami(m, s), rel=1e-12)


def test_different_deviations_against_quadrature() -> None:
    m, s = [0.3, -0.8], [0.9, 0.05]

    def integrand(y: float, x: float) -> float:
        return math.hypot(m[0] + s[0] * x, m[1] + s[1] * y) * math.exp(-(x * x + y * y) / 2) / (2 * math.pi)

    expected = dblquad(integrand, -9, 9, -9, 9, epsabs=1e-11, epsrel=1e-11)[0]
    found = expected_norm(torch.tensor([m], dtype=torch.float64), torch.tensor([s], dtype=torch.float64))
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_different_deviations_against_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.randn(2, 5, 7, dtype=torch.float64, generator=generator)
    drawn = mean + deviation * torch.randn(100_000, 5, 7, dtype=torch.float64, generator=generator)
    lengths = drawn.norm(dim=-1)
    error = lengths.std(0) / len(lengths) ** 0.5
    found = expected_norm(mean, deviation)
    assert float(((lengths.mean(0) - found) / error).abs().max()) < 3
    torch.testing.assert_close(expected_norm(mean.float(), deviation.float()), found.float())


def test_limits_and_scales() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(expected_norm(mean, 0 * deviation), mean.norm(dim=1), rtol=1e-14, atol=0)
    found = expected_norm(mean, deviation)
    for c in (1e-140, 1e-9, 1e9, 1e140):
        torch.testing.assert_close(expected_norm(c * mean, c * deviation), c * found, rtol=1e-13, atol=0)
    assert expected_norm(mean[:0], deviation[:0]).shape == (0,)
    # one entry, without a mean: |ε| has the mean √(2/π)
    one = expected_norm(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    assert float(one) == pytest.approx(math.sqrt(2 / math.pi), rel=1e-14)


def test_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(expected_norm, (mean, deviation))
    assert torch.autograd.gradgradcheck(expected_norm, (mean, deviation))
    zero = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(expected_norm(zero, zero).sum(), zero)
    assert bool((slope == 0).all())
