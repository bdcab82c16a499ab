"""Quadratures at Gauss's points, and polynomials given by their values there, against monomials."""

import numpy as np
import pytest
import torch

from pullgeo.numerics.ode.gauss_legendre import gauss
from pullgeo.numerics.ode.piecewise import interpolated, resampled, weights


@pytest.mark.parametrize("stages", [1, 2, 6, 16])
def test_polynomials_are_integrated_exactly(stages: int) -> None:
    rule = gauss(stages)
    t = torch.rand(2, 5, dtype=torch.float64)
    value, once, twice = weights(t, stages)
    for p in range(stages):
        values = rule.points**p
        np.testing.assert_allclose(rule.inner @ values, rule.points ** (p + 1) / (p + 1), rtol=0, atol=1e-13)
        for w, exact in ((value, t**p), (once, t ** (p + 1) / (p + 1)), (twice, t ** (p + 2) / (p + 1) / (p + 2))):
            torch.testing.assert_close(w @ torch.as_tensor(values), exact, rtol=0, atol=1e-13)
    for p in range(2 * stages):
        np.testing.assert_allclose(rule.outer @ rule.points**p, 1 / (p + 1), rtol=1e-13)


def test_polynomials_keep_their_values_on_other_points_and_pieces() -> None:
    def cubic(t: torch.Tensor) -> torch.Tensor:
        return torch.stack([t**3 - t, 2 * t**2], -1)

    def at(joints: torch.Tensor, stages: int) -> torch.Tensor:
        return cubic(joints[:, :-1, None] + joints.diff(dim=1).unsqueeze(2) * torch.as_tensor(gauss(stages).points))

    joints, others = (torch.rand(3, n, dtype=torch.float64).cumsum(1) for n in (4, 6))
    joints, others = ((a - a[:, :1]) / (a[:, -1:] - a[:, :1]) for a in (joints, others))
    torch.testing.assert_close(resampled(at(joints, 5), 11), at(joints, 11))
    torch.testing.assert_close(interpolated(at(joints, 5), joints, others), at(others, 5))
