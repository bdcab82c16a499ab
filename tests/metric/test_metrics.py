"""Every kind of metric against its own dense matrix."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import RegistryError, ShapeError, SingularMetricError
from pullgeo.jacobian import Elementwise, linearize
from pullgeo.metric import Dense, Diagonal, Identity, Implicit, Metric, pullback_rule

B, N, OUT = 3, 5, 7


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def decoder() -> nn.Module:
    return nn.Sequential(nn.Linear(N, 11), nn.Tanh(), nn.Linear(11, OUT)).double()


def symmetric_positive(*shape: int) -> Tensor:
    root = random(*shape)
    return root @ root.mT + torch.eye(shape[-1], dtype=torch.float64)


def metrics() -> dict[str, Metric]:
    torch.manual_seed(0)
    J = linearize(decoder(), random(B, N))[1]
    return {
        "identity": Identity(N),
        "diagonal": Diagonal(random(N).square() + 0.1),
        "diagonal per point": Diagonal(random(B, N).square() + 0.1),
        "dense": Dense(symmetric_positive(N, N)),
        "dense per point": Dense(symmetric_positive(B, N, N)),
        "asymmetric": Dense(random(B, N, N)),
        "pulled back": Implicit(J, Identity(OUT)),
        "pulled back from dense": Implicit(J, Dense(symmetric_positive(OUT, OUT))),
        "pulled back from asymmetric": Implicit(J, Dense(random(B, OUT, OUT))),
        "pushed forward": Implicit(linearize(decoder(), random(B, N))[1].T, Diagonal(random(N).square())),
    }


@pytest.mark.parametrize("name", list(metrics()))
def test_every_operation_agrees_with_the_matrix(name: str) -> None:
    M = metrics()[name]
    matrix = M.dense().expand(B, -1, -1)
    n = M.dim
    u, v, stack = random(B, n), random(B, n), random(4, B, n)
    inner = torch.einsum("bi,bij,bj->b", u, matrix, v)
    torch.testing.assert_close(M.apply(v), torch.einsum("bij,bj->bi", matrix, v))
    torch.testing.assert_close(M.apply(stack), torch.einsum("bij,kbj->kbi", matrix, stack))
    torch.testing.assert_close(M.inner(u, v), inner)
    torch.testing.assert_close(M.gram(stack), torch.einsum("kbi,bij,lbj->bkl", stack, matrix, stack))
    torch.testing.assert_close(M.quadratic(stack), torch.einsum("kbi,bij,kbj->kb", stack, matrix, stack))
    torch.testing.assert_close(M.diag().expand(B, -1), matrix.diagonal(dim1=1, dim2=2))
    if name != "pushed forward":  # of rank N < OUT
        torch.testing.assert_close(torch.einsum("bij,bj->bi", matrix, M.solve(v)), v)
        torch.testing.assert_close(M.logdet().expand(B), torch.linalg.det(matrix).abs().log())
    if "asymmetric" not in name:
        torch.testing.assert_close(M.norm(u), torch.einsum("bi,bij,bj->b", u, matrix, u).sqrt())
        R = M.root().expand(B, -1, -1)
        torch.testing.assert_close(R @ R.mT, matrix)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("kind", ["identity", "diagonal", "dense", "dense per point"])
def test_pullback_and_pushforward_multiply_out(wide: bool, kind: str) -> None:
    """Both directions of the cost choice: more inputs than outputs, and fewer."""
    torch.manual_seed(1)
    n_in, n_out = (7, 5) if wide else (5, 7)
    f = nn.Sequential(nn.Linear(n_in, 3), nn.Tanh(), nn.Linear(3, n_out), nn.Sigmoid()).double()
    J = linearize(f, random(B, n_in))[1]
    dense = J.dense()
    makers = {
        "identity": Identity,
        "diagonal": lambda n: Diagonal(random(B, n)),
        "dense": lambda n: Dense(random(n, n)),
        "dense per point": lambda n: Dense(random(B, n, n)),
    }
    M = makers[kind](n_out)
    expected = dense.mT @ M.dense() @ dense
    pulled = M.pullback(J)
    torch.testing.assert_close(pulled.dense(), expected)
    torch.testing.assert_close(pulled.diag(), expected.diagonal(dim1=1, dim2=2))
    M = makers[kind](n_in)
    expected = dense @ M.dense() @ dense.mT
    pushed = M.pushforward(J)
    torch.testing.assert_close(pushed.dense(), expected)
    torch.testing.assert_close(pushed.diag(), expected.diagonal(dim1=1, dim2=2))


def test_structure_survives_elementwise_maps_and_reshapes() -> None:
    x = random(B, 2, 3)
    J = linearize(nn.Tanh(), x)[1]
    assert isinstance(Identity(6).pullback(J), Diagonal)
    assert isinstance(Diagonal(random(6)).pullback(J), Diagonal)
    assert isinstance(Dense(random(6, 6)).pullback(J), Dense)
    assert isinstance(Identity(6).pushforward(J), Diagonal)
    M = Diagonal(random(6))
    assert M.pullback(linearize(nn.Flatten(), x)[1]) is M


def test_metrics_are_differentiable_to_points_and_weights() -> None:
    f = decoder()
    x = random(B, N).requires_grad_()

    def volume(x: Tensor, *weights: Tensor) -> Tensor:
        return Identity(OUT).pullback(linearize(f, x)[1]).logdet()

    assert torch.autograd.gradcheck(volume, (x, *f.parameters()))
    assert torch.autograd.gradgradcheck(volume, (x,))


def test_a_singular_metric_has_no_inverse_and_says_so() -> None:
    f = nn.Linear(3, 5, bias=False).double()
    with torch.no_grad():
        f.weight[:, 2] = 0
    M = Identity(5).pullback(linearize(f, random(B, 3))[1])
    with pytest.raises(SingularMetricError, match="singular at 3 of 3 points"):
        M.solve(random(B, 3))
    assert bool((M.logdet() == -torch.inf).all())
    with pytest.raises(SingularMetricError, match="not positive definite"):
        Dense(-torch.eye(2).double()).root()
    with pytest.raises(SingularMetricError, match="not symmetric"):
        Dense(torch.tensor([[2.0, 1.0], [0.0, 2.0]])).root()
    with pytest.raises(SingularMetricError, match="1 diagonal entries are zero"):
        Diagonal(torch.tensor([1.0, 0.0])).solve(torch.ones(2))


def test_wrong_spaces_are_refused_by_name() -> None:
    J = linearize(decoder(), random(B, N))[1]
    with pytest.raises(ShapeError, match="J maps to dimension 7 and M lives in dimension 5"):
        Identity(5).pullback(J)
    with pytest.raises(ShapeError, match=r"expected vectors of shape \(\*batch, 5\), got \(3, 7\)"):
        Identity(OUT).pullback(J).inner(random(B, OUT), random(B, OUT))
    with pytest.raises(ShapeError, match="square"):
        Dense(random(3, 2))
    with pytest.raises(RegistryError, match="has a rule already"):
        pullback_rule(Elementwise, Identity)


def test_single_precision_stays_single() -> None:
    f = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    M = Identity(3, torch.float32).pullback(linearize(f, torch.randn(B, 2))[1])
    assert M.dtype == M.dense().dtype == M.diag().dtype == M.logdet().dtype == torch.float32
