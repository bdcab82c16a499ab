"""Tangents and second derivatives in one sweep, against the sweeps that take them one by one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo.jacobian import Autodiff, Chain, Graph, Jacobian, linearize
from pullgeo.jacobian.contractions import combined, flat
from pullgeo.jacobian.linearize import by_autodiff
from tests.jacobian.architectures import random


class Gated(nn.Module):
    """Products of branches, of which one is linear; a residual; and a network without a rule inside."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.out = nn.Linear(5, 7), nn.Linear(5, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.value(x) * torch.sigmoid(self.gate(x))
        linear = self.value(x) * self.gate(x)
        return x + self.out(h + linear) * torch.linalg.vector_norm(x, dim=1, keepdim=True)


def curved(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] * x[:, 1].sin(), (x[:, 2] * x[:, 3]).exp(), x[:, 4] ** 3], 1)


def chain() -> Jacobian:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(5, 14),
        nn.Unflatten(1, (2, 7)),
        nn.Tanh(),
        nn.Conv1d(2, 3, 2),
        nn.Softplus(),
        nn.Softmax(1),
        nn.Flatten(),
        nn.Linear(18, 11),
    )
    return linearize(layers.double(), random(3, 5))[1]


def graph() -> Jacobian:
    torch.manual_seed(0)
    return linearize(nn.Sequential(Gated(), nn.Tanh(), Gated()).double(), random(3, 5))[1]


def fallback() -> Jacobian:
    return by_autodiff(curved, random(3, 5))[1]


@pytest.mark.parametrize(("build", "kind"), [(chain, Chain), (graph, Chain | Graph), (fallback, Autodiff)])
def test_a_jet_is_what_tangents_and_pairs_of_directions_give(build: Callable[[], Jacobian], kind: type) -> None:
    J = build()
    assert isinstance(J, kind)
    T, C, (u, w) = random(2, 3, 5, seed=1), random(7, 3, 5, seed=2), random(2, 7, 3, 2, seed=3)
    U, W = combined(T, u), combined(T, w)
    for X, second in ((T, 0.0), (torch.cat([T, C]), J.push(C))):
        for other, direction in ((w, W), (u, U)):
            jet = J.push_jet(X, u, other)
            torch.testing.assert_close(jet[:2], J.push(T), rtol=1e-12, atol=1e-13)
            torch.testing.assert_close(jet[2:], second + J.second_push(U, direction), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("build", [chain, graph, fallback])
def test_jets_of_a_basis(build: Callable[[], Jacobian]) -> None:
    J = build()
    (u, w), basis = random(2, 1, 3, 5, seed=3), J.signature.in_basis()
    jet = J.push_jet(basis, u, w)
    torch.testing.assert_close(flat(jet[:5]), J.columns(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(jet[5:], J.second_push(u, w), rtol=1e-11, atol=1e-12)
    assert J.push_jet(basis, u[:0], w[:0]).shape == jet[:5].shape


def test_linear_maps_bend_nothing() -> None:
    J = linearize(nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3)).double(), random(3, 5))[1]
    u = random(1, 3, 5)
    assert J.push_jet(J.signature.in_basis(), u, u).shape == (5, 3, 3)


def test_jets_of_an_empty_batch() -> None:
    J = linearize(nn.Sequential(nn.Linear(5, 7), nn.Tanh()).double(), random(0, 5))[1]
    assert J.push_jet(J.signature.in_basis(), random(1, 0, 5), random(1, 0, 5)).shape == (6, 0, 7)


@pytest.mark.parametrize("k", [1, 3, 11])
def test_combinations_of_tangents(k: int) -> None:
    T, u = random(k, 3, 2, 5, seed=1), random(7, 3, k, seed=2)
    expected = torch.einsum("kb...,lbk->lb...", T, u)
    torch.testing.assert_close(combined(T, u), expected)
    same = T[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(combined(same, u), torch.einsum("kb...,lbk->lb...", same, u))


def test_jets_are_differentiable() -> None:
    basis = torch.eye(4, dtype=torch.float64).unsqueeze(1).expand(4, 3, 4)
    layers = nn.Sequential(nn.Linear(4, 5), nn.Softplus()).double()

    def jet(x: Tensor, u: Tensor) -> Tensor:
        return linearize(layers, x)[1].push_jet(basis, u, u)

    assert torch.autograd.gradcheck(jet, (random(3, 4).requires_grad_(), random(1, 3, 4, seed=1).requires_grad_()))
