"""One class for each layer of torch.nn, with the same constructor."""

import copy
import inspect
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from pullgeo import nnj
from pullgeo.errors import ModuleError
from pullgeo.jacobian import rule_for
from pullgeo.nnj.torch_layers import LAYERS, OTHERS, torch_modules
from pullgeo.testing import oracles

CONTAINERS = {"Container", "DataParallel", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList"}


def test_every_module_class_of_torch_is_here() -> None:
    for name, cls in torch_modules().items():
        assert issubclass(getattr(nnj, name), cls)
        assert name in nnj.__all__
    assert nnj.Parameter is nn.Parameter
    assert issubclass(nnj.Module, nn.Module)


def test_only_containers_and_losses_are_torchs_own() -> None:
    for name, cls in OTHERS.items():
        assert getattr(nnj, name) is cls
        assert name in CONTAINERS or name.endswith(("Loss", "Loss2d"))
    assert set(OTHERS) >= CONTAINERS
    assert len(LAYERS) > 120


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_layer_is_its_torch_class_with_products(name: str) -> None:
    ours, theirs = getattr(nnj, name), getattr(nn, name)
    assert issubclass(ours, nnj.Module)
    assert (ours.__name__, ours.__qualname__) == (theirs.__name__, theirs.__qualname__)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert pickle.loads(pickle.dumps(ours)) is ours
    assert ours.__doc__.startswith(f"`torch.nn.{theirs.__name__}` with Jacobian products.")


def test_settings_parameters_and_printing_are_those_of_torch() -> None:
    torch.manual_seed(3)
    theirs = nn.Conv2d(
        2, 4, (3, 1), stride=2, padding="valid", dilation=2, groups=2, bias=False, padding_mode="reflect"
    )
    torch.manual_seed(3)
    ours = nnj.Conv2d(2, 4, (3, 1), stride=2, padding="valid", dilation=2, groups=2, bias=False, padding_mode="reflect")
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, nn.Conv2d)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(3, 2, 7, 5)
    assert torch.equal(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict())


def test_layers_are_served_by_the_rules_of_their_torch_classes() -> None:
    assert rule_for(nnj.Linear(2, 3)) is rule_for(nn.Linear(2, 3)) is not None
    assert rule_for(nnj.Sequential(nn.Tanh())) is rule_for(nn.Sequential()) is not None
    assert rule_for(nnj.convert_to_nnj(nn.GELU())) is rule_for(nn.GELU()) is not None


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_layers_can_be_copied_and_pickled(duplicate) -> None:
    net, x = (
        nnj.Sequential(nnj.Linear(2, 3), nnj.Sinusoidal(), nnj.SkipConnection(nnj.PosLinear(3, 2))),
        torch.randn(3, 2),
    )
    other = duplicate(net)
    assert type(other[2]) is nnj.SkipConnection
    assert torch.equal(other.jTmjp(x), net.jTmjp(x))
    assert other[0].weight is not net[0].weight


def test_sequentials_take_torch_modules_dictionaries_and_old_options() -> None:
    plain = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    for net in (
        nnj.Sequential(*plain, add_hooks=True),
        nnj.Sequential(OrderedDict(plain.named_children()), add_hooks=False),
    ):
        assert list(net.state_dict()) == list(plain.state_dict())
        x = torch.randn(3, 2)
        assert torch.equal(net.jacobian(x), nnj.products.jacobian(plain, x))
        assert isinstance(net[:1], nnj.Sequential)
        assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_lazy_layers_work_once_materialised_and_say_so_before() -> None:
    net, x = nnj.Sequential(nnj.LazyLinear(3), nnj.Tanh(), nn.LazyLinear(2)), torch.randn(3, 5)
    with pytest.raises(ModuleError, match="Call the module once on a batch"):
        net.jTmjp(x)
    net(x)
    assert type(net[0]) is nnj.Linear
    assert net.jTmjp(x).shape == (3, 5, 5)


def test_layers_of_several_inputs_run_as_in_torch() -> None:
    x = torch.randn(3, 5, 4)
    torch.manual_seed(0)
    theirs, ours = nn.MultiheadAttention(4, 2, batch_first=True), nnj.MultiheadAttention(4, 2, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    for ours_out, theirs_out in zip(ours(x, x, value=x), theirs(x, x, value=x), strict=True):
        assert torch.equal(ours_out, theirs_out)
    assert nnj.LSTM(4, 2)(x, (torch.zeros(1, 5, 2), torch.zeros(1, 5, 2)))[0].shape == (3, 5, 2)
    assert nnj.Bilinear(4, 4, 2)(x, x).shape == (3, 5, 2)


def test_a_network_of_ones_own_derives_from_Module() -> None:
    class Network(nnj.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nnj.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.inner(x)

    net, x = Network().double(), torch.randn(3, 3, dtype=torch.float64)
    J = oracles.dense_jacobian(net, x)
    torch.testing.assert_close(net.jTmjp(x), oracles.jTmjp(J, None))
    torch.testing.assert_close(net(x, jacobian=True)[1], J)


def test_with_products_refuses_what_has_no_derivative_or_clashes() -> None:
    with pytest.raises(ModuleError, match="has no forward"):
        nnj.with_products(nn.ModuleList)

    class Clash(nn.Linear):
        def vjp(self) -> None:
            """Something else."""

    with pytest.raises(ModuleError, match="its own vjp"):
        nnj.with_products(Clash)
