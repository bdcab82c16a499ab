"""Functions of matrices by eigenvectors and singular vectors, at matrices with equal values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import linearize
from pullgeo._torch import matrix_functions, singular_values
from pullgeo.manifold.pullback import PullbackManifold
from tests.jacobian.architectures import random

D = torch.float64
MOVES = random(2, 5, 5, seed=3)
SYMMETRIC = MOVES + MOVES.mT
POINTS = torch.tensor([[0.3, -0.2], [0.0, 0.0], [-0.1, 0.4], [1e-14, -1e-14]], dtype=D)
CENTRES = {
    "all": torch.eye(5, dtype=D),
    "two pairs": torch.diag(torch.tensor([2.0, 1.0, 2.0, 0.5, 1.0], dtype=D)),
    "zeros": torch.diag(torch.tensor([0.0, 1.0, 0.0, 3.0, 1.0], dtype=D)),
    "nothing": torch.zeros(5, 5, dtype=D),
}


def by_eigh(A: Tensor) -> Tensor:
    L, V = torch.linalg.eigh(A)
    return (V * (L**3 - L).unsqueeze(-2)) @ V.mT


def by_svd(A: Tensor) -> Tensor:
    U, S, Vh = torch.linalg.svd(A)
    return (U * (S**3).unsqueeze(-2)) @ Vh


def by_narrow_svd(A: Tensor) -> Tensor:
    U, S, Vh = torch.linalg.svd(A[..., :3], full_matrices=False)
    return (U * (S**3).unsqueeze(-2)) @ Vh


def by_old_svd(A: Tensor) -> Tensor:
    U, S, V = torch.svd(A[..., :3, :])
    return (U * (S**3).unsqueeze(-2)) @ V.mT


def cubed(A: Tensor) -> Tensor:
    return A @ A.mT @ A


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]] = {
    "eigh": (by_eigh, lambda A: A @ A @ A - A, SYMMETRIC),
    "svd": (by_svd, cubed, MOVES),
    "narrow svd": (by_narrow_svd, lambda A: cubed(A[..., :3]), MOVES),
    "old svd": (by_old_svd, lambda A: cubed(A[..., :3, :]), MOVES),
}


def along(function: Callable[[Tensor], Tensor], centre: Tensor, moves: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: function(centre + torch.einsum("...i,ijk->...jk", z, moves)).flatten(-2)


@pytest.mark.quick(5)
@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_matrix_have_derivatives_at_equal_values(name: str, centre: str) -> None:
    function, plain, moves = FUNCTIONS[name]
    oracle = along(plain, CENTRES[centre], moves)
    points = POINTS[:3] if centre == "nothing" else POINTS  # a matrix of 1e-14 has no rounding beside zero
    y, J = linearize(along(function, CENTRES[centre], moves), points)
    T, W = random(2, len(y), 2, seed=5), random(2, *y.shape, seed=6)
    first = torch.stack([torch.func.jacrev(oracle)(z) for z in points])
    second = torch.stack([torch.func.jacfwd(torch.func.jacrev(oracle))(z) for z in points])
    scale = first.abs().amax((1, 2), keepdim=True) + 1
    close: dict[str, Any] = {"rtol": 0.0, "atol": 1e-7}
    torch.testing.assert_close(J.dense() / scale, first / scale, **close)
    torch.testing.assert_close(J.push(T), torch.einsum("boi,kbi->kbo", first, T), **close)
    torch.testing.assert_close(J.pull(W), torch.einsum("boi,kbo->kbi", first, W), **close)
    torch.testing.assert_close((J.push(T[:1]) * W[:1]).sum(-1), (J.pull(W[:1]) * T[:1]).sum(-1), **close)
    twice = torch.einsum("boij,bo,kbi,lbj->bkl", second, W[0], T, T)
    torch.testing.assert_close(J.second(T, W[0]), twice, **close)
    torch.testing.assert_close(
        J.second_push(T[:1], T[1:]), torch.einsum("boij,kbi,kbj->kbo", second, T[:1], T[1:]), **close
    )


@pytest.mark.parametrize("what", ["vectors", "projection"])
def test_what_has_no_derivative_is_nan_in_its_sample_alone(what: str) -> None:
    def vectors(A: Tensor) -> Tensor:
        V = torch.linalg.eigh(A).eigenvectors[..., :2]
        return V if what == "vectors" else V @ V.mT

    f = along(vectors, CENTRES["all"], SYMMETRIC)
    at_all, at_others = linearize(f, POINTS[:3])[1], linearize(f, POINTS[[0, 2]])[1]
    dense, w = at_all.dense(), random(1, 3, at_all.signature.n_out, seed=8)
    assert dense[1].isnan().all()
    assert at_all.pull(w)[0, 1].isnan().all()
    torch.testing.assert_close(dense[[0, 2]], at_others.dense(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(at_all.pull(w)[:, [0, 2]], at_others.pull(w[:, [0, 2]]), rtol=1e-9, atol=1e-9)


def test_a_projection_to_all_vectors_of_equal_values_has_a_derivative() -> None:
    def projection(A: Tensor) -> Tensor:
        V = torch.linalg.eigh(A).eigenvectors[..., 1:3]  # those of the pair of 1
        return V @ V.mT

    f = along(projection, CENTRES["two pairs"], SYMMETRIC)
    h = 1e-3
    steps = h * torch.eye(2, dtype=D)
    differences = (8 * (f(steps) - f(-steps)) - (f(2 * steps) - f(-2 * steps))) / (12 * h)
    J = linearize(f, POINTS[1:2])[1]
    torch.testing.assert_close(J.dense()[0].mT, differences, rtol=0, atol=1e-7)


def test_values_alone_are_a_kink() -> None:
    f = along(lambda A: torch.linalg.eigh(A).eigenvalues.unsqueeze(-1), CENTRES["all"], SYMMETRIC)
    g = along(lambda A: torch.linalg.eigvalsh(A).unsqueeze(-1), CENTRES["all"], SYMMETRIC)
    T, w = random(2, 4, 2, seed=5), random(4, 5, seed=6)
    for function in (f, g):
        assert torch.isfinite(linearize(function, POINTS)[1].second(T, w)).all()
    torch.testing.assert_close(linearize(f, POINTS)[1].dense(), linearize(g, POINTS)[1].dense())


def test_gradients_of_products() -> None:
    f = along(by_eigh, CENTRES["all"], SYMMETRIC)
    oracle = along(FUNCTIONS["eigh"][1], CENTRES["all"], SYMMETRIC)
    w = random(4, 25, seed=7)

    def gradient(function: Callable[[Tensor], Tensor]) -> Tensor:
        z = POINTS.clone().requires_grad_()
        pulled = linearize(function, z)[1].pull(w.unsqueeze(0))
        return torch.autograd.grad(pulled.square().sum(), z)[0]

    torch.testing.assert_close(gradient(f), gradient(oracle), rtol=1e-7, atol=1e-7)


def test_products_within_transforms() -> None:
    f = along(by_eigh, CENTRES["all"], SYMMETRIC)
    J, w = linearize(f, POINTS[:3])[1], random(2, 3, 25, seed=7)
    mapped = torch.func.vmap(lambda v: J.pull(v.unsqueeze(0)).squeeze(0))(w)
    torch.testing.assert_close(mapped, J.pull(w), rtol=0, atol=1e-9)


def test_single_precision() -> None:
    f = along(by_eigh, CENTRES["two pairs"].float(), SYMMETRIC.float())
    expected = linearize(along(FUNCTIONS["eigh"][1], CENTRES["two pairs"], SYMMETRIC), POINTS[:3])[1].dense()
    found = linearize(f, POINTS[:3].float())[1].dense()
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-3 * float(expected.abs().max()))


class OfWeights(nn.Module):
    """A function of a matrix of weights, applied to rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        L, V = torch.linalg.eigh((self.weight + self.weight.mT) / 2)
        return x @ ((V * (L**2).unsqueeze(-2)) @ V.mT)


class Squared(OfWeights):
    """The same by a product."""

    def forward(self, x: Tensor) -> Tensor:
        A = (self.weight + self.weight.mT) / 2
        return x @ A @ A


def test_weights() -> None:
    x, w = random(3, 3, seed=1), random(4, 3, 3, seed=2)
    for _ in range(2):  # findings are remembered
        J, plain = (linearize(module, x, "weight")[1] for module in (OfWeights(), Squared()))
        torch.testing.assert_close(J.pull(w), plain.pull(w), rtol=0, atol=1e-7)
        torch.testing.assert_close(J.pull(w[:1]), plain.pull(w[:1]), rtol=0, atol=1e-7)
        torch.testing.assert_close(J.dense(), plain.dense(), rtol=0, atol=1e-7)


def test_metric_and_geodesics() -> None:
    manifold = PullbackManifold(along(by_eigh, CENTRES["all"], SYMMETRIC))
    twin = PullbackManifold(along(FUNCTIONS["eigh"][1], CENTRES["all"], SYMMETRIC))
    z = POINTS[:3]
    torch.testing.assert_close(manifold.metric(z).dense(), twin.metric(z).dense(), rtol=1e-8, atol=1e-8)
    v = random(3, 2, seed=4) / 20
    torch.testing.assert_close(manifold.expmap(z, v), twin.expmap(z, v), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(manifold.dist(z, z + v), twin.dist(z, z + v), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vectors", [lambda A: matrix_functions.eigh(A)[1], lambda A: singular_values.linalg_svd(A)[0]])
def test_tangents_as_derivatives_of_pulled_cotangents_are_nan_as_well(vectors: Callable[[Tensor], Tensor]) -> None:
    A = torch.diag(torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64)).requires_grad_()
    w = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    (pulled,) = torch.autograd.grad(vectors(A), A, w, create_graph=True)
    (pushed,) = torch.autograd.grad(pulled, w, torch.ones_like(pulled))
    assert bool(torch.isnan(pushed).any())
