"""Jumps of a metric are told from steep places."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pullgeo import PullbackManifold
from pullgeo.stats.kinks import jumps


def at(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def found(ridge: Callable[[Tensor], Tensor]) -> list[bool]:
    """Of lines that cross x = 0.37, and of one that does not."""
    manifold = PullbackManifold(lambda z: torch.cat([z, z.sin(), ridge(z[:, :1] - 0.37)], 1))
    return jumps(manifold, at((-1, 0), (0.5, 1), (2, -1)), at((1, 1), (2, 3), (-2, 1))).tolist()


@pytest.mark.parametrize(
    "ridge", [torch.relu, lambda x: torch.nn.functional.leaky_relu(x, 0.5), lambda x: 2 * x.abs() + x]
)
def test_lines_that_cross_a_kink_are_told_from_those_that_do_not(ridge: Callable[[Tensor], Tensor]) -> None:
    assert found(ridge) == [True, False, True]


@pytest.mark.parametrize("steepness", [1.0, 30.0, 1000.0])
def test_steep_is_no_jump(steepness: float) -> None:
    assert found(lambda x: torch.nn.functional.softplus(steepness * x) / steepness) == [False] * 3
