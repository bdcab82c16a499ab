"""Conversion: the same tensors and settings, products on every level, and the original untouched."""

import copy
import io
import pickle
import types

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from pullgeo import nnj
from pullgeo.errors import ModuleError
from pullgeo.testing import oracles
from tests.nnj import networks
from tests.nnj.cases import module, points

PLAIN = ("decoder", "nested", "convolutional", "norms", "layer twice", "tied weights", "attention", "skip", "embedding")
NETWORKS = {name: (lambda name=name: (module(name), points(name, 3))) for name in PLAIN} | {
    "listed layers": lambda: (networks.ListedLayers().double(), torch.randn(3, 3, dtype=torch.float64)),
    "gated": lambda: (networks.Gated().double(), torch.randn(3, 3, dtype=torch.float64)),
    "own jacobian": lambda: (networks.OwnJacobian().double(), torch.randn(3, 2, dtype=torch.float64)),
    "own pickle": lambda: (networks.OwnPickle(3).double(), torch.randn(3, 3, dtype=torch.float64)),
}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    return NETWORKS[request.param]()


def test_shares_tensors_and_keeps_names_and_settings(network: tuple[nn.Module, Tensor]) -> None:
    original, x = network
    before = {name: (type(m), dict(vars(m))) for name, m in original.named_modules()}
    twin = nnj.convert_to_nnj(original)
    assert twin is not original
    assert isinstance(twin, type(original))
    for kind in ("named_parameters", "named_buffers"):
        pairs = list(zip(getattr(twin, kind)(), getattr(original, kind)(), strict=True))
        assert all(a == b and s is t for (a, s), (b, t) in pairs)
    assert list(twin.state_dict()) == list(original.state_dict())
    theirs = dict(original.named_modules(remove_duplicate=False))
    ours = dict(twin.named_modules(remove_duplicate=False))
    assert list(ours) == list(theirs)
    assert not {id(m) for m in ours.values()} & {id(m) for m in theirs.values()}
    for name, m in ours.items():
        assert m.extra_repr() == theirs[name].extra_repr()
        assert m.training == theirs[name].training
        assert isinstance(m, nnj.Module | nn.ModuleList | nn.ParameterList)
    torch.testing.assert_close(twin(x), original(x))
    assert {name: (type(m), dict(vars(m))) for name, m in original.named_modules()} == before


@pytest.mark.parametrize("way", ["pickle", "save", "deepcopy", "copy of a copy", "converted again"])
def test_twins_can_be_pickled_copied_and_converted_again(
    network: tuple[nn.Module, Tensor], way: str, without_type_checks: None
) -> None:
    original, x = network
    if way != "converted again" and isinstance(original, networks.ListedLayers):
        original.run = original.second  # a lambda cannot be pickled, and its copy leads to the original
    twin = nnj.convert_to_nnj(original)
    again = {
        "pickle": lambda m: pickle.loads(pickle.dumps(m)),
        "save": saved_and_loaded,
        "deepcopy": copy.deepcopy,
        "copy of a copy": lambda m: copy.copy(copy.deepcopy(m)),
        "converted again": nnj.convert_to_nnj,
    }[way](twin)
    assert type(again) is type(twin)
    assert isinstance(again, nnj.Module)
    for product in ("vjp", "_vjp"):
        w = torch.ones_like(twin(x)).flatten(1)
        if any(True for _ in twin.parameters()):
            torch.testing.assert_close(
                getattr(again, product)(x, None, w, wrt="weight"), getattr(twin, product)(x, None, w, wrt="weight")
            )
    torch.testing.assert_close(again(x), original(x))


def jacobian_in_place(m: nn.Module, x: Tensor, wrt: str) -> Tensor:
    """As the oracle, for modules whose copies are not what they were: on the module itself."""
    rows = []
    for sample in x.split(1):
        sample.requires_grad_()
        variables = [sample] if wrt == "input" else list(m.parameters())
        gradients = [torch.autograd.grad(value, variables, retain_graph=True) for value in m(sample).flatten()]
        rows += [torch.cat([g.flatten() for g in row]) for row in gradients]
    return torch.stack(rows).unflatten(0, (len(x), -1))


def saved_and_loaded(m: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(m, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("name", ["listed layers", "gated", "own pickle"])
def test_weights_reached_by_other_ways_than_attributes_are_differentiated(name: str) -> None:
    original, x = NETWORKS[name]()
    expected = jacobian_in_place(original, x, "weight")
    assert expected.abs().sum(1).max() > 0
    torch.testing.assert_close(nnj.convert_to_nnj(original).jacobian(x, wrt="weight"), expected)


def test_training_one_trains_both() -> None:
    original = module("decoder")
    twin = nnj.convert_to_nnj(original)
    x = points("decoder", 3)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin(x).square().sum().backward()
    optimiser.step()
    assert torch.equal(twin(x), original(x))


def test_modes_and_gradients_are_kept() -> None:
    original = module("nested").train()
    original[1].eval()
    original[0].weight.requires_grad_(False)
    twin = nnj.convert_to_nnj(original)
    assert (twin.training, twin[0].training, twin[1].training, twin[1][0].training) == (True, True, False, False)
    assert not twin[0].weight.requires_grad
    twin.eval()
    assert original.training
    assert twin.jacobian(points("nested", 3), wrt="weight").shape == (3, 5, twin._n_params)


def test_a_module_used_twice_is_converted_once() -> None:
    twin = nnj.convert_to_nnj(module("layer twice"))
    assert twin[0] is twin[2]
    gated = nnj.convert_to_nnj(networks.Gated())
    assert gated.blocks[0] is gated.shared is gated.blocks[1][1]


def test_references_in_containers_and_closures_lead_to_the_twin() -> None:
    original = networks.ListedLayers()
    twin = nnj.convert_to_nnj(original)
    assert twin.order == [twin.first, twin.second]
    assert twin.pair.left is twin.first
    assert twin.act.func.__self__ is twin
    assert twin.run.__closure__[0].cell_contents is twin
    assert twin.constant is original.constant
    assert original.run.__closure__[0].cell_contents is original


def test_hooks_survive_and_belong_to_the_twin() -> None:
    seen: list[nn.Module] = []
    original = module("decoder")
    original[0].register_forward_hook(lambda m, inputs, y: seen.append(m))
    original[1].register_forward_pre_hook(lambda m, inputs: (2 * inputs[0],))
    twin, x = nnj.convert_to_nnj(original), points("decoder", 3)
    twin(x)
    assert seen == [twin[0]]
    torch.testing.assert_close(twin.jacobian(x), oracles.dense_jacobian(original, x))
    assert oracles.dense_jacobian(original, x).sub(oracles.dense_jacobian(module("decoder"), x)).abs().max() > 1e-2
    twin[1].register_forward_hook(lambda m, inputs, y: -y)
    assert not original[1]._forward_hooks


def test_state_dict_hooks_that_hold_their_module_hold_the_twin() -> None:
    seen: list[nn.Module] = []
    original = module("linear")
    original._register_load_state_dict_pre_hook(lambda m, *rest: seen.append(m), with_module=True)
    twin = nnj.convert_to_nnj(original)
    twin.load_state_dict(twin.state_dict())
    assert seen == [twin]


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_reparametrized_weights_survive(wrap) -> None:
    original = module("encoder")
    wrap(original[0])
    original.eval()
    x = points("encoder", 3)
    twin = nnj.convert_to_nnj(original)
    assert list(twin.state_dict()) == list(original.state_dict())
    for wrt in ("input", "weight"):
        torch.testing.assert_close(twin.jacobian(x, wrt=wrt), jacobian_in_place(original, x, wrt))
    if wrap is not nn.utils.weight_norm:  # which cannot be copied, converted or not
        torch.testing.assert_close(copy.deepcopy(twin).jacobian(x), twin.jacobian(x))


def test_parametrizations_can_be_removed_from_the_twin_alone() -> None:
    original = nn.Linear(3, 2)
    parametrizations.weight_norm(original)
    twin = nnj.convert_to_nnj(original)
    assert parametrize.type_before_parametrizations(twin) is nnj.Linear
    parametrize.remove_parametrizations(twin, "weight")
    assert type(twin) is nnj.Linear
    assert parametrize.is_parametrized(original)
    x = torch.randn(3, 3)
    torch.testing.assert_close(twin(x), original(x))
    parametrizations.weight_norm(twin)
    again = nnj.convert_to_nnj(twin)
    parametrize.remove_parametrizations(again, "weight")
    assert parametrize.is_parametrized(twin)
    torch.testing.assert_close(again(x), twin(x))


def test_methods_of_the_users_own_stay_in_force() -> None:
    net, x = nnj.convert_to_nnj(networks.OwnJacobian()), torch.randn(3, 2)
    assert torch.equal(net.jacobian(), net.scale)
    assert torch.equal(net._jacobian(x), net.scale.diag().expand(3, 2, 2))
    torch.testing.assert_close(net.jTmjp(x), net.scale.square().diag().expand(3, 2, 2))


def test_a_module_without_forward_keeps_its_class_and_its_parts_are_converted() -> None:
    original = networks.Autoencoder()
    twin = nnj.convert_to_nnj(original)
    assert type(twin) is networks.Autoencoder
    assert twin.decoder.jTmjp(torch.zeros(3, 2)).shape == (3, 2, 2)
    listed = nnj.convert_to_nnj(nn.ModuleList([nn.Linear(2, 3)]))
    assert type(listed) is nn.ModuleList
    assert type(listed[0]) is nnj.Linear


def test_a_loss_inside_keeps_its_class() -> None:
    assert type(nnj.convert_to_nnj(nn.ModuleDict({"loss": nn.MSELoss()}))["loss"]) is nn.MSELoss


def test_a_forward_replaced_on_the_instance_is_carried_over() -> None:
    original = nn.Linear(3, 2).double()
    original.forward = types.MethodType(lambda self, x: torch.tanh(nn.functional.linear(x, self.weight)), original)
    twin, x = nnj.convert_to_nnj(original), torch.randn(3, 3, dtype=torch.float64)
    assert twin.forward.__self__ is twin
    for wrt in ("input", "weight"):
        torch.testing.assert_close(twin.jacobian(x, wrt=wrt), oracles.dense_jacobian(original, x, wrt))


def test_a_traced_graph_is_converted() -> None:
    original, x = torch.fx.symbolic_trace(module("two branches")), points("two branches", 3)
    twin = nnj.convert_to_nnj(original)
    for wrt in ("input", "weight"):
        expected = oracles.dense_jacobian(module("two branches"), x, wrt)
        torch.testing.assert_close(twin.jacobian(x, wrt=wrt), expected)
    torch.testing.assert_close(copy.deepcopy(twin)(x), original(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(twin)).jacobian(x), twin.jacobian(x))


def test_one_class_is_made_for_one_class() -> None:
    assert type(nnj.convert_to_nnj(networks.Gated())) is type(nnj.convert_to_nnj(networks.Gated()))
    assert type(nnj.convert_to_nnj(networks.Gated())).__name__ == "Gated"
    assert type(nnj.convert_to_nnj(nn.Conv2d(1, 2, 3))) is nnj.Conv2d
    assert type(nnj.convert_to_nnj(nnj.Linear(1, 2))) is nnj.Linear


class SubmoduleNamedLikeAProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.jvp = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.jvp(x)


def test_what_cannot_be_converted_is_refused_with_advice(without_type_checks: None) -> None:
    with pytest.raises(ModuleError, match="Call the module once"):
        nnj.convert_to_nnj(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ModuleError, match=r"SubmoduleNamedLikeAProduct \(0\) holds jvp.*nnj.products"):
        nnj.convert_to_nnj(nn.Sequential(SubmoduleNamedLikeAProduct()))
    with pytest.raises(ModuleError, match=r"expected a torch\.nn\.Module, got function"):
        nnj.convert_to_nnj(torch.nn.functional.relu)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_modules_are_refused_with_advice() -> None:
    for compiled in (torch.jit.trace(nn.Linear(2, 3), torch.zeros(1, 2)), torch.compile(nn.Linear(2, 3))):
        with pytest.raises(ModuleError, match="Convert the module that was compiled"):
            nnj.convert_to_nnj(nn.Sequential(compiled))
