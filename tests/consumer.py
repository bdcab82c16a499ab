"""A program that uses the installed package; a type checker must understand all of it, and it must run."""

from typing import assert_type

import numpy as np
import torch
from torch import Tensor, nn

import pullgeo
from pullgeo import PullbackManifold, linearize, nnj, pairwise_distances
from pullgeo.geodesic import Solution
from pullgeo.jacobian import Jacobian


def lengths(decoder: nn.Module, z0: Tensor, z1: Tensor) -> Tensor:
    """Lengths of geodesics, as somebody would write a function of their own."""
    solution = PullbackManifold(decoder).geodesic(z0, z1)
    assert_type(solution, Solution)
    assert_type(solution.length, Tensor)
    return solution.length


if __name__ == "__main__":
    decoder = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    z = torch.randn(3, 2, dtype=torch.float64)
    y, J = linearize(decoder, z)
    assert_type(y, Tensor)
    assert_type(J, Jacobian)
    assert_type(nnj.convert_to_nnj(decoder), nn.Module)
    distances = pairwise_distances(PullbackManifold(decoder), z)
    assert isinstance(distances, np.ndarray)
    assert distances.shape == (3, 3)
    assert lengths(decoder, z[:1], z[1:2]).isfinite().all()
    assert_type(pullgeo.__version__, str)
