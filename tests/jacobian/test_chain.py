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


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_what_becomes_of_a_basis_is_what_is_pushed(monkeypatch: pytest.MonkeyPatch, batch: int, cached: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 7), nn.Sigmoid()).double()
    J = linearize(net, torch.randn(batch, 2, dtype=torch.float64))[1]
    u, w = torch.randn(2, 2, batch, 2, dtype=torch.float64)
    basis = J.signature.in_basis()
    expected = J.push(basis), J.push_jet(basis, u, w), J.push_gram(basis, basis)
    if not cached:
        monkeypatch.setattr("pullgeo.numerics.chunking.CACHE", Budget(1))
    for got, wanted in zip((J.push_basis(), J.push_jet_of_basis(u, w), J.gram_of_basis()), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_matrix_gives_its_columns(batch: int) -> None:
    layer, x = nn.Linear(2, 5).double(), torch.randn(batch, 2, dtype=torch.float64, requires_grad=True)
    columns = linearize(layer, x)[1].push_basis()
    torch.testing.assert_close(columns, layer.weight.T.unsqueeze(1).expand(-1, batch, -1), rtol=0, atol=0)
    rows = linearize(layer, torch.randn(batch, 3, 2, dtype=torch.float64))[1]
    torch.testing.assert_close(rows.push_basis(), rows.push(rows.signature.in_basis()), rtol=0, atol=0)
    assert torch.autograd.grad(columns.sum(), layer.weight)[0].unique().tolist() == [float(batch)]


def test_a_transposed_map_contracts_its_basis_as_the_map_contracts_cotangents() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 5)).double()
    J = linearize(net, torch.randn(3, 2, dtype=torch.float64), "weight")[1]
    dense = J.dense()
    torch.testing.assert_close(J.T.gram_of_basis(), dense @ dense.mT, rtol=0, atol=1e-13)
