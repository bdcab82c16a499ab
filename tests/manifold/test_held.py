"""What a manifold keeps during a solve must not outlive a change of its decoder."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold


class Scaled(nn.Module):
    """A decoder with a setting, a buffer and a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 11), nn.Tanh(), nn.Linear(11, 7))
        self.factor = 1.0
        self.register_buffer("shift", torch.zeros(2))

    def forward(self, z: Tensor) -> Tensor:
        y = self.body(z + torch.sin(z) * self.shift) * self.factor
        return torch.cat([y, z], 1) if self.training else y


def in_place(net: Scaled) -> None:
    net.body[0].weight.mul_(1.5)


def behind_the_version_counter(net: Scaled) -> None:
    net.body[0].weight.data.mul_(1.5)


def another_parameter(net: Scaled) -> None:
    net.body[2].weight = nn.Parameter(1.5 * net.body[2].weight)


def loaded(net: Scaled) -> None:
    net.load_state_dict({name: 1.5 * value for name, value in net.state_dict().items()})


def buffer(net: Scaled) -> None:
    net.shift.fill_(0.3)


def mode(net: Scaled) -> None:
    net.train()


def setting(net: Scaled) -> None:
    net.factor = 2.0


def hook(net: Scaled) -> None:
    net.body[1].register_forward_hook(lambda module, given, value: 1.5 * value)


def child(net: Scaled) -> None:
    net.body[1] = nn.Sigmoid()


def precision(net: Scaled) -> None:
    net.double()


CHANGES = (
    in_place,
    behind_the_version_counter,
    another_parameter,
    loaded,
    buffer,
    mode,
    setting,
    hook,
    child,
    precision,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: str(change.__name__))
@torch.no_grad()
def test_a_solve_sees_the_decoder_as_it_is_now(change: Callable[[Scaled], None], generator: torch.Generator) -> None:
    net = Scaled().eval()
    z0, z1 = torch.randn(2, 3, 2, generator=generator)
    manifold = PullbackManifold(net)
    before = manifold.geodesic(z0, z1)
    change(net)
    z0, z1 = (z.to(net.body[0].weight.dtype) for z in (z0, z1))
    after, fresh = manifold.geodesic(z0, z1), PullbackManifold(copy.deepcopy(net)).geodesic(z0, z1)
    assert torch.equal(after.curve.nodes, fresh.curve.nodes)
    assert torch.equal(after.length, fresh.length)
    assert change is precision or not torch.allclose(before.length, after.length, rtol=1e-4)


@torch.no_grad()
def test_a_held_manifold_measures_as_the_manifold_does(generator: torch.Generator) -> None:
    manifold = PullbackManifold(Scaled().double().eval())
    nodes = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    held = manifold.held()
    for _ in range(2):
        model, same = held.expand_energy(nodes), manifold.expand_energy(nodes)
        for name in ("energy", "gradient", "damping", "residual"):
            assert torch.equal(getattr(model, name), getattr(same, name))
        assert torch.equal(held.slope(nodes).gradient, manifold.slope(nodes).gradient)
        # the same tensor with other end points in it
        nodes[:, 0] += 0.5
    other = nodes[:2, ::2]
    assert torch.equal(held.expand_energy(other).gradient, manifold.expand_energy(other).gradient)


def test_a_held_manifold_records_gradients_of_end_points(generator: torch.Generator) -> None:
    manifold = PullbackManifold(Scaled().double().eval())
    held = manifold.held()
    nodes = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        held.expand_energy(nodes)
    x = nodes.clone().requires_grad_()
    found = [torch.autograd.grad(of.expand_energy(x).energy.sum(), x)[0] for of in (held, manifold)]
    assert torch.equal(*found)
    assert bool((found[0][:, 0] != 0).any())


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)


def test_geodesics_of_a_method_are_those_of_the_network_that_it_calls(generator: torch.Generator) -> None:
    model = Model()
    z0, z1 = torch.randn(2, 3, 2, generator=generator)
    for decoder in (model.decode, lambda z: model.net(z)):
        manifold = PullbackManifold(decoder)
        before = manifold.geodesic(z0, z1)
        assert torch.equal(before.curve.nodes, PullbackManifold(model.net).geodesic(z0, z1).curve.nodes)
        (gradient,) = torch.autograd.grad(manifold.dist(z0, z1).sum(), model.net[0].weight)
        assert bool(gradient.any())
        assert manifold.decoder is decoder
        assert not list(manifold.children())
    model.net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Softplus(), torch.nn.Linear(5, 7))
    after = PullbackManifold(model.net).geodesic(z0, z1)
    assert torch.equal(PullbackManifold(model.decode).geodesic(z0, z1).length, after.length)
