"""Functions, bound methods and lambdas are recorded as modules are."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import linearize
from pullgeo.errors import CoupledSamplesError, ModuleError
from pullgeo.jacobian import Autodiff, Chain, Jacobian
from pullgeo.jacobian.tracing.functions import double_of
from tests.jacobian.architectures import check_input, random


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.rows = nn.Linear(5, 2), 0
        self.decoder = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 5))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor, scale: float = 1.0) -> Tensor:
        self.rows = len(z)
        return scale * self.decoder(z)


MODEL = Autoencoder().double()
"""A module that functions find among the globals."""


def by_a_global(z: Tensor) -> Tensor:
    return MODEL.decoder(z)


class Holder:
    """No module, but holds one."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)


def test_whatever_holds_a_network_is_a_chain_of_its_layers() -> None:
    model, z = Autoencoder().double(), random(3, 2)
    functions = {
        "method": model.decode,
        "lambda": lambda z: model.decoder(z),
        "lambda of a method": lambda z: model.decode(z),
        "partial": functools.partial(model.decode, scale=2.0),
        "default": lambda z, net=model.decoder: net(z),
        "nested": lambda z: (lambda w: model.decode(w))(z),
        "global": by_a_global,
        "method of another object": Holder(model.decoder).decode,
    }
    for name, function in functions.items():
        J = check_input(function, z)  # type: ignore[arg-type]
        kinds = [type(stage).__name__ for stage in J.stages] if isinstance(J, Chain) else type(J).__name__
        assert kinds[:3] == ["LinearMap", "Elementwise", "LinearMap"], name
    model.rows = 0
    linearize(model.decode, z)
    assert model.rows == 0  # what a method writes stays on the double


def test_what_graphs_do_not_know_is_differentiated_automatically() -> None:
    net, z = nn.Linear(2, 3).double(), random(3, 2)
    assert isinstance(check_input(lambda z: torch.special.entr(net(z).sigmoid()), z), Autodiff)  # type: ignore[arg-type]


def test_refusals_are_those_of_plain_functions() -> None:
    norm, z = nn.BatchNorm1d(2).double(), random(3, 2)
    with pytest.raises(CoupledSamplesError, match="samples"):
        linearize(lambda z: norm(z), z)
    with pytest.raises(CoupledSamplesError, match="samples"):
        linearize(lambda z: z + torch.randn_like(z), z)
    with pytest.raises(ModuleError, match="changed while it is differentiated"):
        linearize(lambda z: nn.Linear(2, 3).double()(z) + nn.Parameter(z.detach()).mul_(2).sum(), z)


def test_a_network_that_is_in_train_mode_and_not_called_is_no_matter() -> None:
    model, z = nn.ModuleDict({"net": nn.Linear(2, 3), "other": nn.BatchNorm1d(2)}).double(), random(3, 2)
    J: Jacobian = linearize(lambda z: model["net"](z), z)[1]
    torch.testing.assert_close(J.dense(), model["net"].weight.detach().expand(3, 3, 2))


def test_doubles_of_functions() -> None:
    net = nn.Linear(2, 3)
    assert double_of(by_a_global, lambda module: nn.ModuleDict({"decoder": nn.Identity()}))(3) == 3
    assert double_of(len, lambda module: module) is len
    closed = functools.partial(lambda f, z: f[0](z), [net])
    assert double_of(closed, lambda module: nn.Identity())(2) == 2

    def recursive(n: int) -> int:
        return n if n == 0 else recursive(n - 1)

    assert double_of(recursive, lambda module: module)(3) == 0


@pytest.mark.parametrize(
    "function",
    [lambda z: z - z.mean(0), nn.BatchNorm1d(2).double().forward, nn.Dropout(0.5).forward, lambda z: z.flip(0)],
    ids=["mean", "batch norm", "dropout", "flip"],
)
def test_functions_that_mix_samples_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CoupledSamplesError):
        linearize(function, random(3, 2))


def test_gradients_reach_the_weights_of_a_method() -> None:
    model, z = Autoencoder().double(), random(3, 2)
    weight = model.decoder[0].weight
    (found,) = torch.autograd.grad(linearize(model.decode, z)[1].dense().square().sum(), weight)
    (same,) = torch.autograd.grad(linearize(model.decoder, z)[1].dense().square().sum(), weight)
    torch.testing.assert_close(found, same)


CALLS = 0


def counted(z: Tensor) -> Tensor:
    global CALLS
    CALLS += 1
    return MODEL.decoder(z)


def test_a_function_that_rebinds_a_global_rebinds_it() -> None:
    before, z = CALLS, random(3, 2)
    y, J = linearize(counted, z)
    T = torch.ones_like(z).unsqueeze(0)
    assert before < CALLS
    assert torch.equal(y, MODEL.decoder(z))
    torch.testing.assert_close(J.push(T), linearize(MODEL.decoder, z)[1].push(T))
