"""Weights stay as they are while a map is differentiated, and numpy is refused by name."""

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold, linearize
from pullgeo._torch.state import modules_within
from pullgeo.errors import ModuleError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5)).eval()


def load(net: nn.Module, z: Tensor) -> Tensor:
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()})
    return net(z)


def set_data(net: nn.Sequential, z: Tensor) -> Tensor:
    net[0].weight.data = net[0].weight.data * 2
    return net(z)


def write_data(net: nn.Sequential, z: Tensor) -> Tensor:
    net[0].weight.data.clamp_(-0.1, 0.1)
    return net(z)


def write_item(net: nn.Sequential, z: Tensor) -> Tensor:
    net[0].weight.data[0] = 1.0
    return net(z)


def write_detached(net: nn.Sequential, z: Tensor) -> Tensor:
    net[0].weight.detach().mul_(2)
    return net(z)


def draw(net: nn.Sequential, z: Tensor) -> Tensor:
    nn.init.normal_(net[0].weight)
    return net(z)


def step(net: nn.Sequential, z: Tensor) -> Tensor:
    with torch.no_grad():
        net[0].weight += 1.0
    return net(z)


CHANGES: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
    "half": lambda net, z: net.half()(z.half()),
    "bfloat16": lambda net, z: net.bfloat16()(z.bfloat16()),
    "to a dtype": lambda net, z: net.to(torch.bfloat16)(z.bfloat16()),
    "load_state_dict": load,
    "set data": set_data,
    "write into data": write_data,
    "write an entry": write_item,
    "write into what is detached": write_detached,
    "draw": draw,
    "step": step,
}
CONVERSIONS: dict[str, Callable[[nn.Sequential, Tensor], Tensor]] = {
    "double": lambda net, z: net.double()(z.double()),
    "to float64": lambda net, z: net.to(torch.float64)(z.double()),
    "to a tensor": lambda net, z: net.to(z.double())(z.double()),
}


@pytest.mark.parametrize("kind", CHANGES | CONVERSIONS)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_changes_of_weights_are_refused_before_they_are_made(kind: str, precision: torch.dtype) -> None:
    net = network().float() if kind in CONVERSIONS else network().to(precision)
    before = copy.deepcopy(net.state_dict())
    decoder = functools.partial((CHANGES | CONVERSIONS)[kind], net)
    z = torch.arange(6, dtype=precision).reshape(3, 2) / 7
    manifold = PullbackManifold(decoder)
    asked = (
        lambda: linearize(decoder, z),
        lambda: manifold.metric(z),
        lambda: manifold.dist(z, z + 1),
        lambda: manifold.expmap(z, z),
        lambda: PullbackManifold(lambda z: decoder(z)).geodesic(z, z + 1),
    )
    for ask in asked:
        with pytest.raises(ModuleError, match=r"weights of a network are changed while it is differentiated"):
            ask()
        for name, value in net.state_dict().items():
            assert value.dtype == before[name].dtype
            assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "decoder",
    [
        lambda net, z: net.to(z.device)(z),
        lambda net, z: net.cpu()(z),
        lambda net, z: net.float()(z.float()),
        lambda net, z: net.eval()(z),
    ],
)
def test_conversions_that_find_nothing_to_do_are_allowed(decoder: Callable[[nn.Module, Tensor], Tensor]) -> None:
    net = network()
    z = torch.arange(6, dtype=torch.float32).reshape(3, 2) / 7
    net(z).sum().backward()  # as a trained network, it has gradients
    double = copy.deepcopy(net).double()
    manifold, truth = PullbackManifold(lambda z: decoder(net, z)), PullbackManifold(double)
    torch.testing.assert_close(manifold.metric(z).dense(), truth.metric(z.double()).dense().float())
    distance = manifold.dist(z.double(), z.double() + 1)
    torch.testing.assert_close(distance, truth.dist(z.double(), z.double() + 1), rtol=1e-10, atol=0)
    assert all(not torch._C._functorch.is_functorch_wrapped_tensor(t) for t in (*net.parameters(), *net.buffers()))
    assert {t.dtype for t in (*net.parameters(), *net.buffers()) if t.is_floating_point()} == {torch.float32}


def through_numpy(net: nn.Module, z: Tensor) -> Tensor:
    return torch.from_numpy(net(z).numpy())


NUMPY: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "from_numpy": through_numpy,
    "detached": lambda net, z: torch.from_numpy(net(z).detach().numpy()),
    "asarray": lambda net, z: net(torch.as_tensor(np.asarray(z) * 2)),
}


@pytest.mark.parametrize("kind", NUMPY)
def test_numpy_inside_a_decoder_is_named(kind: str) -> None:
    net = network().double()
    manifold = PullbackManifold(functools.partial(NUMPY[kind], net))
    z = torch.arange(6, dtype=torch.float64).reshape(3, 2) / 7
    asked = (
        lambda: manifold.metric(z).dense(),
        lambda: manifold.dist(z, z + 1),
        lambda: manifold.dist(z.clone().requires_grad_(), z + 1),
        lambda: manifold.geodesic(z, z + 1),
    )
    for ask in asked:
        with pytest.raises(ModuleError, match=r"(?i)numpy"):
            ask()


def test_numpy_constants_are_allowed() -> None:
    factor = np.arange(2.0)
    weight = torch.arange(1.0, 3.0, dtype=torch.float64)
    z = torch.arange(6, dtype=torch.float64).reshape(3, 2)
    G = PullbackManifold(lambda z: z * torch.as_tensor(factor + weight.numpy())).metric(z).dense()
    torch.testing.assert_close(G, torch.diag(torch.tensor([1.0, 9.0]).double()).expand(3, 2, 2))


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)


def test_the_modules_in_a_function_are_found() -> None:
    net = network()

    def outer(z: Tensor) -> Tensor:
        def inner(z: Tensor, held: nn.Module = net) -> Tensor:
            return held(z)

        return inner(z)

    for function in (
        net,
        net.forward,
        lambda z: net(z),
        lambda z, held=net: held(z),
        lambda z: (lambda z: net(z))(z),
        outer,
        functools.partial(nn.Module.__call__, net),
        functools.partial(lambda z, held: held(z), held=net),
        Holder(net).decode,
        lambda z: outer(z),
    ):
        assert net in modules_within(function)
    assert modules_within(torch.tanh) == modules_within(lambda z: z) == modules_within(3) == []


def test_weight_norm_in_a_function_leaves_no_trace() -> None:
    net = network()
    with pytest.warns(FutureWarning):
        net[0] = nn.utils.weight_norm(net[0])
    z = torch.arange(6, dtype=torch.float32).reshape(3, 2) / 7
    PullbackManifold(lambda z: net(z)).metric(z).dense()
    assert not torch._C._functorch.is_functorch_wrapped_tensor(net[0].weight)
