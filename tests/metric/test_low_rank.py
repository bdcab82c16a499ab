"""Metrics given by their roots."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import ShapeError, SingularMetricError
from pullgeo.jacobian import BatchSum, Transpose, linearize
from pullgeo.metric import Dense, Implicit, LowRank, sum_dense, sum_diag
from pullgeo.testing import check_metric, oracles

B, N = 3, 5


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(N, 2), (B, N, 2), (B, N, N), (N, 7), (B, N, 7), (B, N, 1)])
def test_everything_is_as_of_the_matrix(shape: tuple[int, ...]) -> None:
    R = random(*shape)
    check_metric(LowRank(R), expected=R @ R.mT)


def test_full_rank_is_regular_and_less_is_not(without_type_checks: None) -> None:
    square, wide, thin = random(B, N, N), random(B, N, 7), random(B, N, 2)
    for R in (square, wide):
        M, w = LowRank(R), random(B, N)
        torch.testing.assert_close(torch.einsum("bij,bj->bi", R @ R.mT, M.solve(w)), w)
        torch.testing.assert_close(M.logdet(), torch.linalg.slogdet(R @ R.mT).logabsdet)
    assert bool((LowRank(thin).logdet() == -torch.inf).all())
    with pytest.raises(SingularMetricError, match="rank at most 2 in dimension 5"):
        LowRank(thin).solve(random(B, N))
    with pytest.raises(ShapeError, match="expected roots"):
        LowRank(random(3))


def test_it_travels_as_a_root_where_that_is_cheaper() -> None:
    f = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, N)).double()
    J = linearize(f, random(B, 4))[1]
    dense = J.dense()
    for root in (random(N, 2), random(B, N, 2), random(N, 7)):
        M = LowRank(root)
        pulled = M.pullback(J)
        assert isinstance(pulled, LowRank) == (root.shape[-1] <= 4)
        torch.testing.assert_close(pulled.dense(), dense.mT @ M.dense() @ dense)
        torch.testing.assert_close(pulled.diag(), (dense.mT @ M.dense() @ dense).diagonal(dim1=1, dim2=2))
    M = LowRank(random(4, 2))
    pushed = M.pushforward(J)
    assert isinstance(pushed, LowRank)
    torch.testing.assert_close(pushed.dense(), dense @ M.dense() @ dense.mT)
    assert isinstance(LowRank(random(N, 8)).pullback(linearize(nn.Tanh(), random(B, N))[1]), LowRank)


def test_over_weights_no_root_of_their_size_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    f = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, N)).double()
    x, R = random(B, 4), random(B, N, 2)
    J = linearize(f, x, "weight")[1]
    truth = oracles.jTmjp(oracles.dense_jacobian(f, x, "weight"), R @ R.mT)
    M = LowRank(R).pullback(J)
    assert isinstance(M, Implicit)
    torch.testing.assert_close(M.dense(), truth)
    W, V = M.factors(slice(None))
    torch.testing.assert_close(BatchSum(J).pull_diag(W, V), truth.diagonal(dim1=1, dim2=2).sum(0))

    def formed(self: object, W: Tensor) -> Tensor:
        raise AssertionError("cotangents were pulled to weights")

    monkeypatch.setattr(type(J), "pull", formed)
    torch.testing.assert_close(M.diag(), truth.diagonal(dim1=1, dim2=2))


def test_pullbacks_in_chunks_are_the_same() -> None:
    f = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, N)).double()
    for J in (linearize(f, random(B, 4))[1], linearize(f, random(B, 4), "weight")[1]):
        dense = J.dense()
        for M in (LowRank(random(B, N, 3)), LowRank(random(N, 7)), Dense(random(B, N, N))):
            expected = dense.mT @ M.dense() @ dense
            pulled, v = M.pullback(J.in_chunks(2)), random(3, B, J.signature.n_in)
            torch.testing.assert_close(pulled.dense(), expected)
            torch.testing.assert_close(pulled.diag(), expected.diagonal(dim1=1, dim2=2))
            torch.testing.assert_close(pulled.apply(v), torch.einsum("bij,kbj->kbi", expected, v))
            torch.testing.assert_close(pulled.gram(v), torch.einsum("kbi,bij,lbj->bkl", v, expected, v))
            if isinstance(M, LowRank):
                root = pulled.root()
                torch.testing.assert_close(root @ root.mT, expected)
    J = linearize(f, random(B, 4))[1].in_chunks(2)
    assert isinstance(J.T, Transpose)
    torch.testing.assert_close(J.T.dense(), J.dense().mT)
    torch.testing.assert_close(Transpose(linearize(f, random(B, 4))[1]).in_chunks(1).T.chunk_size, 1)


def test_it_is_differentiable() -> None:
    f = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, N)).double()
    x, R = random(2, 4).requires_grad_(), random(N, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, R: LowRank(R).pullback(linearize(f, x)[1]).dense(), (x, R))


def test_sums_over_the_batch_take_all_columns_of_a_root() -> None:
    """More columns than dimensions, and metrics that are pulled back twice."""
    generator = torch.Generator().manual_seed(5)
    f = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
    x = torch.randn(7, 2, dtype=torch.float64, generator=generator)
    J = linearize(f, x, "weight")[1]
    M = LowRank(torch.randn(7, 2, 11, dtype=torch.float64, generator=generator))
    outer = linearize(torch.nn.Linear(2, 5).double(), f(x))[1]
    twice = Implicit(outer, LowRank(torch.randn(7, 5, 13, dtype=torch.float64, generator=generator)))
    for metric in (M, twice):
        truth = torch.einsum("boi,bop,bpj->ij", J.dense(), metric.dense(), J.dense())
        G, over_batch = Implicit(J, metric), BatchSum(J)
        torch.testing.assert_close(sum_dense(G, over_batch), truth)
        torch.testing.assert_close(sum_diag(G, over_batch), truth.diagonal())
        torch.testing.assert_close(G.root() @ G.root().mT, G.dense())
