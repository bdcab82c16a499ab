"""Functions that call modules in a row and do nothing else are these modules; others are left to themselves."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pullgeo.jacobian.tracing.modules_alone import modules_alone


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 5))
        self.last, self.seen, self.scale = nn.Softplus(), 0, nn.Parameter(torch.ones(5))

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)

    def inner(self, z: Tensor) -> Tensor:
        return self.last(self.decode(z))

    def counted(self, z: Tensor) -> Tensor:
        self.seen += 1
        return self.net(z)

    def scaled(self, z: Tensor) -> Tensor:
        return self.net(z) * self.scale

    def checked(self, z: Tensor) -> Tensor:
        assert bool((z.abs() < 100).all())
        return self.net(z)

    def batched(self, z: Tensor) -> Tensor:
        return self.net(z) if len(z) > 1 else self.last(self.net(z))

    def unused(self, z: Tensor) -> Tensor:
        self.last(self.net(z))
        return self.net(z)

    def evaluated(self, z: Tensor) -> Tensor:
        return self.net.eval()(z)

    @torch.no_grad()
    def cut(self, z: Tensor) -> Tensor:
        return self.net(z)

    def lowered(self, z: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(z)

    def converted(self, z: Tensor) -> Tensor:
        return self.net.double()(z)

    def silent(self, z: Tensor) -> Tensor:
        try:
            return self.net(z + 1)
        except Exception:  # noqa: BLE001
            return self.net(z)


class Casting(nn.Linear):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z.float())


MODEL = Model()


def test_a_method_that_calls_a_network_is_the_network() -> None:
    assert modules_alone(MODEL.decode, torch.zeros(1, 2)) is MODEL.net


def test_several_modules_are_a_chain() -> None:
    x = torch.randn(3, 2)
    for function in (MODEL.inner, lambda z: MODEL.last(MODEL.net(z)), functools.partial(lambda z: MODEL.inner(z))):
        chain = modules_alone(function, x[:1])
        assert isinstance(chain, nn.Sequential)
        assert [chain[0], chain[1]] == [MODEL.net, MODEL.last]
        assert torch.equal(chain(x), function(x))


@pytest.mark.parametrize(
    "name",
    ["scaled", "checked", "batched", "unused", "evaluated", "cut", "lowered", "converted", "silent", "counted"],
)
def test_a_method_that_does_more_is_left_to_itself(name: str) -> None:
    model = Model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert modules_alone(getattr(model, name), torch.zeros(1, 2)) is None
    assert all(
        torch.equal(value, before[key]) and value.dtype is torch.float32 for key, value in model.state_dict().items()
    )
    assert model.net.training
    assert model.seen == 0


def test_layers_of_a_plain_function_are_those_of_torch() -> None:
    own, known, weighted = Casting(2, 3), nn.Linear(2, 3), nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    functions: list[Callable[[Tensor], Tensor]] = [lambda z: own(z), lambda z: weighted(z)]
    for function in functions:
        assert modules_alone(function, torch.zeros(1, 2)) is None
    assert modules_alone(lambda z: known(z), torch.zeros(1, 2)) is known


def test_what_is_no_function_or_fails_is_left_to_itself() -> None:
    for thing in (MODEL, torch.sin, print, lambda z: MODEL.net(z, z), lambda z: z):
        assert modules_alone(thing, torch.zeros(1, 2)) is None
    assert modules_alone(MODEL.decode, torch.zeros(1, 3)) is None


def test_a_network_that_is_called_with_other_weights_is_not_taken_for_its_own() -> None:
    weight, x = torch.randn(3, 2), torch.randn(1, 2)
    assert modules_alone(lambda z: functional_call(MODEL.net, {"0.weight": weight}, (z,)), x) is None
    assert modules_alone(lambda z: MODEL.net(z), x) is MODEL.net


def test_nothing_is_left_on_the_modules() -> None:
    model = Model()
    modules_alone(model.inner, torch.zeros(1, 2))
    assert all("forward" not in vars(module) for module in model.modules())
