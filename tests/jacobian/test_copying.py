"""Modules that keep what they have computed can be copied, converted and measured."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold, linearize
from pullgeo._torch.copying import copied, plain_copy
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


class Settings(nn.Module):
    """A module with an attribute of its own."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)
        self.value = value


def doubled(module: nn.Module) -> dict[int, Tensor]:
    return {id(t): t.double() for t in (*module.parameters(), *module.buffers())}


@pytest.mark.parametrize("name", ["conv", "tied", "shared", "nested"])
def test_plain_copies_are_what_deepcopy_makes(name: str) -> None:
    tied = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    tied[1].weight = tied[0].weight
    layer = nn.Linear(5, 5, bias=False)
    module = {
        "conv": nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.BatchNorm2d(5), nn.Softmax(1)).eval(),
        "tied": tied,
        "shared": nn.Sequential(layer, nn.Tanh(), layer),
        "nested": nn.Sequential(Settings((1, "a", None)), nn.ModuleList([Settings([2, 3]), Settings({4})])),
    }[name]
    replaced = doubled(module)
    found, expected = plain_copy(module, replaced), copied(module, replaced)
    assert found is not None
    pairs = list(zip(found.named_modules(), expected.named_modules(), strict=True))
    for (path, one), (same, other) in pairs:
        assert path == same
        assert type(one) is type(other)
        assert vars(one).keys() == vars(other).keys()
        for key, value in vars(one).items():
            if key not in ("_parameters", "_buffers", "_modules"):
                assert value == vars(other)[key]
        for table in ("_parameters", "_buffers"):
            held = vars(one)[table]
            assert held.keys() == vars(other)[table].keys()
            assert all(tensor is vars(other)[table][key] for key, tensor in held.items())
    found.eval()
    found.extra = 1
    assert not hasattr(module, "extra")


def test_a_plain_copy_shares_no_containers_with_its_module() -> None:
    module = Settings([1, 2])
    found = plain_copy(module, doubled(module))
    assert isinstance(found, Settings)
    assert isinstance(found.value, list)
    found.value.append(3)
    found.register_buffer("more", torch.zeros(1), persistent=False)
    found.layer.register_forward_hook(lambda *_: None)
    assert module.value == [1, 2]
    assert not module._buffers
    assert not module._non_persistent_buffers_set
    assert not module.layer._forward_hooks


def test_modules_that_hold_more_have_no_plain_copy() -> None:
    hooked = nn.Linear(3, 5)
    hooked.register_forward_hook(lambda *_: None)
    missing = nn.Linear(3, 5)
    for module in (Settings(torch.zeros(2)), Settings({"a": 1}), Settings(object()), Settings([[1]]), hooked):
        assert plain_copy(module, doubled(module)) is None
    assert plain_copy(missing, {}) is None
    assert plain_copy(nn.GRU(2, 3), doubled(nn.GRU(2, 3))) is None
