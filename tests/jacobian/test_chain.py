"""How stacks travel through chains."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.jacobian import Chain, LinearMap, Signature, linearize
from pullgeo.numerics.chunking import Budget


def test_stacks_move_in_chunks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Unflatten(1, (2, 3)), nn.ConvTranspose1d(2, 2, 3)).double()
    y, J = linearize(decoder, torch.randn(3, 2, dtype=torch.float64))
    T, W = torch.randn(7, 3, 2, dtype=torch.float64), torch.randn(7, *y.shape, dtype=torch.float64)
    whole = J.push(T), J.pull(W)
    monkeypatch.setattr("pullgeo.numerics.chunking.CACHE", Budget(500))
    torch.testing.assert_close(J.push(T), whole[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(J.pull(W), whole[1], rtol=0, atol=1e-14)
    assert J.push(T[:0]).shape == (0, *y.shape)
    assert J.pull(W[:0]).shape == (0, 3, 2)


def test_a_chunk_is_as_many_tangents_as_fit_at_the_widest_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def widened(T: Tensor) -> Tensor:
        seen.append(len(T))
        return torch.cat([T, T], 2)

    def narrowed(W: Tensor) -> Tensor:
        return W[..., :5] + W[..., 5:]

    first = LinearMap(
        Signature(3, (5,), (10,), torch.float64, torch.device("cpu")), widened, narrowed, widened, narrowed
    )
    J = Chain((first, first.T))
    monkeypatch.setattr("pullgeo.numerics.chunking.CACHE", Budget(2 * 3 * 10 * 8))  # two tangents of three samples
    torch.testing.assert_close(J.push(torch.ones(5, 3, 5, dtype=torch.float64)), 2 * torch.ones(5, 3, 5).double())
    assert seen == [2, 2, 1]
