"""Metrics of two bytes an entry: torch has no decompositions of them, so these run in single precision."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold
from pullgeo.metric import Dense, LowRank

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
def test_what_decomposes_matrices(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    R = (0.3 * torch.randn(5, 3, 3) + 2 * torch.eye(3)).to(dtype)
    w = torch.randn(5, 3).to(dtype)
    rough = 60 * torch.finfo(dtype).eps
    for half, full in ((Dense(R @ R.mT), Dense((R @ R.mT).double())), (LowRank(R), LowRank(R.double()))):
        for got, expected in (
            (half.solve(w), full.solve(w.double())),
            (half.logdet(), full.logdet()),
            (half.root() @ half.root().mT, full.dense()),
        ):
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), expected, rtol=rough, atol=rough)


@pytest.mark.parametrize("dtype", HALVES)
def test_volume_and_curvature(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).to(dtype)
    z = torch.randn(3, 2).to(dtype)

    def conformal(y: Tensor) -> Tensor:
        return (1 + y.square().sum(1)).view(-1, 1, 1) * torch.eye(5, dtype=y.dtype)

    for ambient in (None, conformal):
        half = PullbackManifold(decoder, ambient=ambient)
        full = PullbackManifold(copy.deepcopy(decoder).double(), ambient=ambient)
        for method in ("log_volume", "condition_number", "scalar_curvature"):
            got, expected = getattr(half, method)(z).detach(), getattr(full, method)(z.double()).detach()
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), expected, rtol=0.25, atol=0.25)
