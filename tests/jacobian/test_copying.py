"""Modules that keep what they have computed can be copied, converted and measured."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold, linearize
from pullgeo._torch.copying import copied
from pullgeo.nnj import convert_to_nnj

X = torch.tensor([[0.7, -0.3], [0.2, 0.5], [-0.4, 0.1]])


class Keeping(nn.Module):
    """Keeps its latest output, in an attribute and in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 5)
        self.latest: Tensor | None = None
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.latest = torch.tanh(self.linear(x))
        self.mean = self.latest.mean()
        return self.latest


def weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 5))


def spectral_norm() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 5)).eval()


MODULES = {"weight norm": weight_norm, "spectral norm": spectral_norm, "keeping": Keeping}


@pytest.fixture(params=MODULES)
def used(request: pytest.FixtureRequest) -> nn.Module:
    """A module that has been called, with gradients on."""
    module = MODULES[request.param]()
    module(X)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(module)
    return module


def test_copies_compute_the_same_and_share_nothing(used: nn.Module) -> None:
    twin = convert_to_nnj(used)
    twin(X)
    again = convert_to_nnj(pickle.loads(pickle.dumps(used)))
    for other in (copied(used), copy.deepcopy(twin), copied(twin), copy.deepcopy(again)):
        assert type(other) in (type(used), type(twin))
        torch.testing.assert_close(other(X), used(X))
        assert not {id(p) for p in other.parameters()} & {id(p) for p in used.parameters()}
        assert list(other.state_dict()) == list(used.state_dict())
        torch.testing.assert_close(linearize(other, X)[1].dense(), linearize(used, X)[1].dense())
        other(X).sum().backward()
        assert all(p.grad is None for p in used.parameters())


def test_a_decoder_that_has_been_used_has_distances_with_gradients(used: nn.Module) -> None:
    other = copied(used).double()
    measured = PullbackManifold(used).dist(X[:1], X[1:2])
    expected = PullbackManifold(other).dist(X[:1].double(), X[1:2].double())
    torch.testing.assert_close(measured.double(), expected, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(measured.sum(), list(used.parameters()), materialize_grads=True)
    truth = torch.autograd.grad(expected.sum(), list(other.parameters()), materialize_grads=True)
    for f, t in zip(found, truth, strict=True):
        torch.testing.assert_close(f.double(), t, rtol=1e-3, atol=1e-4)
