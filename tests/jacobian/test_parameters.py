"""Weights that are some of a network's parameters: the answers are parts of those for all, and cost less."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from pullgeo import linearize, nnj
from pullgeo._torch.submodules import all_parameters, named_parameters
from pullgeo.errors import ModuleError, OptionError
from pullgeo.jacobian import (
    ConvWeight,
    LinearWeight,
    ParameterLayout,
    WeightGraph,
    explain,
    named_sample_gradients,
    sample_gradient_norms,
    sample_gradients,
    tangent_kernel,
)
from pullgeo.jacobian.weights import autodiff
from pullgeo.likelihood import Categorical, sampled_ggn, sampled_ggn_diag
from pullgeo.likelihood.ggn import ggn, ggn_blocks, ggn_diag
from pullgeo.metric import Identity, hutchinson_diag, monte_carlo_diag
from pullgeo.nnj import products

F64 = torch.float64
B = 3


class Adapted(nn.Module):
    """A linear layer that is held fixed, with an adapter of low rank."""

    def __init__(self, n: int, m: int) -> None:
        super().__init__()
        self.base = nn.Linear(n, m).requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(2, n))
        self.lora_b = nn.Parameter(torch.randn(m, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


class Tied(nn.Module):
    """Two layers share their weight, which has two names; another parameter is used by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 5)
        self.decoder = nn.Linear(5, 5)
        self.decoder.weight = self.encoder.weight
        self.scale = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)) * self.scale)


class Unknown(nn.Module):
    """Differentiated automatically: no graph knows the Fourier transform."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.fft.rfft(self.first(x).sin()).abs())


class Bound(nn.Module):
    """Uses a parameter past the recorder, by a method bound to the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.scale = nn.Parameter(torch.randn(5))
        self.scaled_by = self.scaled

    def scaled(self, x: Tensor) -> Tensor:
        return self.scale.exp() * x

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled_by(torch.tanh(self.linear(x)))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias).tanh()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 2))


def conv() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 2), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(8, 3))


def hooked() -> nn.Module:
    module = mlp()
    module[0].register_forward_hook(lambda m, args, y: 2 * y)  # type: ignore[index]
    return module


def adapters() -> nn.Module:
    return nn.Sequential(Adapted(5, 4), nn.Tanh(), Adapted(4, 3))


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 3, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Linear(5, 4), layer)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[Any]]] = {
    "mlp": (mlp, ["0.*", "*.bias", "4.weight", ["2.bias", "0.weight"], lambda name, p: p.shape[0] != 3]),
    "conv": (conv, ["*.bias", "1.weight", "2.weight", ["1.bias", "4.weight"]]),
    "adapters": (adapters, ["trainable", "*lora_a", "0.base.bias"]),
    "tied": (Tied, ["decoder.*", "encoder.weight", "scale", ["scale", "encoder.bias"]]),
    "automatic": (Unknown, ["first.*", "last.bias"]),
    "bound method": (Bound, ["linear.*", "scale", "linear.bias"]),
    "functional": (Functional, ["weight", "bias"]),
    "hook": (hooked, ["0.bias", "4.*"]),
    "attention": (attention, ["1.weight", "*.self_attn.*", "*.norm2.weight", "*.linear1.bias"]),
}
CASES = [(name, i) for name, (_, selections) in NETWORKS.items() for i in range(len(selections))]
MODES: dict[str, Callable[[], Any]] = {
    "grad": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return NETWORKS[name][0]().double().eval(), torch.randn(B, 5, dtype=F64)


def places_of(module: nn.Module, selection: Any) -> Tensor:
    """The coordinates that a selection keeps, found by hand."""
    every = list(module.named_parameters(remove_duplicate=False))
    if selection == "trainable":
        kept = {id(p) for _, p in every if p.requires_grad}
    elif callable(selection):
        kept = {id(p) for name, p in every if selection(name, p)}
    else:
        parts = [(s.partition("*")) for s in ([selection] if isinstance(selection, str) else selection)]
        kept = {
            id(p)
            for name, p in every
            for before, star, after in parts
            if (name.startswith(before) and _ends(name, after) if star else name == before)
        }
    start, places = 0, []
    for p in module.parameters():
        if id(p) in kept:
            places.append(torch.arange(start, start + p.numel()))
        start += p.numel()
    return torch.cat(places)


def _ends(name: str, after: str) -> bool:
    return name.endswith(after) if "*" not in after else after.strip("*") in name


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def dense_jacobian(module: nn.Module, x: Tensor) -> Tensor:
    """Row by row and sample by sample, by torch.autograd.grad."""
    parameters = list(module.parameters())
    asked = [p.requires_grad for p in parameters]
    rows = []
    for p in parameters:
        p.requires_grad_(True)
    for sample in x:
        y = module(sample.unsqueeze(0)).flatten()
        found = [torch.autograd.grad(o, parameters, retain_graph=True, materialize_grads=True) for o in y]
        rows.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in found]))
    for p, before in zip(parameters, asked, strict=True):
        p.requires_grad_(before)
    return torch.stack(rows)


@pytest.mark.quick(24)
@pytest.mark.parametrize(
    ("name", "i", "mode"), [(name, i, mode) for name, i in CASES for mode in (MODES if i == 0 else ("grad",))]
)
def test_every_product_is_the_part_of_that_for_all(name: str, i: int, mode: str) -> None:
    module, x = built(name)
    selection = NETWORKS[name][1][i]
    J = dense_jacobian(module, x)[..., places_of(module, selection)]
    n, p = J.shape[1:]
    T, W, M = (torch.randn(*shape, dtype=F64) for shape in ((2, B, p), (2, B, n), (B, n, n)))
    chosen: dict[str, Any] = {"wrt": "weight", "parameters": selection}
    G = J.mT @ M @ J
    with MODES[mode]():
        y, found = linearize(module, x, "weight", selection)
        assert isinstance(found, WeightGraph)
        assert found.signature.n_in == p
        W = W.reshape(2, *y.shape)
        flat = W.flatten(2)
        close(found.push(T).flatten(2), torch.einsum("bop,kbp->kbo", J, T))
        close(found.pull(W), torch.einsum("bop,kbo->kbp", J, flat))
        close(found.pull_diag(W, W), torch.einsum("bop,kbo->kbp", J, flat).square().sum(0))
        close(products.jacobian(module, x, **chosen), J)
        close(products.jvp(module, x, None, T[0], **chosen), torch.einsum("bop,bp->bo", J, T[0]))
        close(products.vjp(module, x, None, W[0], **chosen), torch.einsum("bop,bo->bp", J, flat[0]))
        close(products.jmp(module, x, None, T.permute(1, 2, 0), **chosen), J @ T.permute(1, 2, 0))
        close(products.mjp(module, x, None, M, **chosen), M @ J)
        close(products.jmjTp(module, x, None, None, **chosen), J @ J.mT)
        close(products.jTmjp(module, x, None, M, full=True, **chosen), G)
        close(products.jTmjp(module, x, None, M, to_diag=True, **chosen), G.diagonal(dim1=1, dim2=2))
        close(products.jTmjp(module, x, None, M, full=True, reduction="sum", **chosen), G.sum(0))
        close(products.jTmjp(module, x, None, M, to_diag=True, reduction="mean", **chosen), G.mean(0).diagonal())
        close(tangent_kernel(module, x, parameters=selection), torch.einsum("bop,cqp->bocq", J, J))
        gradients = torch.einsum("bop,bo->bp", J, flat[0])
        close(sample_gradients(module, x, W[0], selection), gradients)
        close(sample_gradient_norms(module, x, W[0], selection), gradients.norm(dim=1))
        named = named_sample_gradients(module, x, W[0], selection)
        close(torch.cat([g.flatten(1) for g in named.values()], 1), gradients)


@pytest.mark.parametrize(("name", "i"), [case for case in CASES if case[0] != "attention"])
def test_likelihoods_and_estimates_count_the_chosen_only(name: str, i: int) -> None:
    module, x = built(name)
    selection = NETWORKS[name][1][i]
    if module(x).ndim != 2:
        pytest.skip("one class for each output")
    J = dense_jacobian(module, x)[..., places_of(module, selection)]
    likelihood, wrt = Categorical(), "weight"
    G = J.mT @ likelihood.fisher(module(x)).dense() @ J
    with torch.no_grad():
        close(ggn(module, x, likelihood, wrt, selection).dense(), G)
        close(ggn_diag(module, x, likelihood, wrt, "none", selection), G.diagonal(dim1=1, dim2=2))
        close(ggn_diag(module, x, likelihood, wrt, "sum", selection), G.sum(0).diagonal())
        if name != "tied":  # parts of layers share parameters there
            blocks = ggn_blocks(module, x, likelihood, selection)
            for block, places in zip(blocks.blocks, blocks.positions, strict=True):
                close(block, G[:, places][:, :, places])
        own = nnj.LogBernoulli(metric_shape="diag").ggn(x, module, wrt=wrt, parameters=selection)
        close(own, -G.diagonal(dim1=1, dim2=2))
        target = torch.tensor([0, 1, 1])
        gradient = nnj.LogBernoulli().gradient(x, module, target, wrt, selection)
        close(gradient, -torch.einsum("bop,bo->bp", J, likelihood.gradient(module(x), target)))

        def drawn(estimate: Callable[[torch.Generator], Any]) -> Any:
            return estimate(torch.Generator().manual_seed(0))

        p = J.shape[2]
        found = linearize(module, x, wrt, selection)[1]
        M = Identity(J.shape[1], F64)
        shapes = [
            drawn(lambda g: sampled_ggn(module, x, likelihood, g, 4, wrt, selection)).diag().shape,
            drawn(lambda g: sampled_ggn_diag(module, x, likelihood, g, 4, wrt, "none", selection)).value.shape,
            drawn(lambda g: hutchinson_diag(found, M, 4, g)).value.shape,
            drawn(lambda g: monte_carlo_diag(found, M, 4, g)).value.shape,
        ]
        assert shapes == [(B, p)] * 4


@pytest.mark.quick(15)
@pytest.mark.parametrize(("name", "i"), CASES)
def test_second_derivatives_are_along_the_chosen(name: str, i: int) -> None:
    module, x = built(name)
    selection = NETWORKS[name][1][i]
    places = places_of(module, selection)
    y, found = linearize(module, x, "weight", selection)
    _, every = linearize(module, x, "weight")
    T, w = torch.randn(2, B, len(places), dtype=F64), torch.randn(y.shape, dtype=F64)
    wide = torch.zeros(2, B, every.signature.n_in, dtype=F64).index_copy(2, places, T)
    close(found.second(T, w), every.second(wide, w))
    close(found.second_push(T, T), every.second_push(wide, wide))


@pytest.mark.parametrize(("name", "i"), CASES)
def test_gradients_flow_to_parameters_that_are_held_fixed(name: str, i: int) -> None:
    module, x = built(name)
    module.requires_grad_(True)
    selection = NETWORKS[name][1][i]
    if selection == "trainable":
        selection = "*lora_*"
    places, parameters = places_of(module, selection), list(module.parameters())
    y, some = linearize(module, x, "weight", selection)
    _, every = linearize(module, x, "weight")
    w = torch.randn(1, *y.shape, dtype=F64)
    values = some.pull(w).sin().sum(), every.pull(w)[..., places].sin().sum()
    found, expected = (
        torch.autograd.grad(v, parameters, materialize_grads=True) if v.requires_grad else [0 * p for p in parameters]
        for v in values
    )
    close(tuple(found), tuple(expected))


@pytest.mark.parametrize("blocks", [["0.*"], ["2.*", "4.bias"], ["*.bias"]])
def test_blocks_are_those_of_layers_with_chosen_parameters(blocks: list[str]) -> None:
    module, x = built("mlp")
    M = torch.randn(B, 2, 2, dtype=F64)
    G = products.jTmjp(module, x, None, M, "weight", full=True, parameters=blocks)
    found = products.jTmjp(module, x, None, M, "weight", parameters=blocks)
    total = products.jTmjp(module, x, None, M, "weight", reduction="sum", parameters=blocks)
    start = 0
    for block, summed in zip(found, total, strict=True):
        n = block.shape[1]
        close(block, G[:, start : start + n, start : start + n])
        close(summed, block.sum(0))
        start += n
    assert start == G.shape[1]
    pushed = products.jmjTp(module, x, None, found, "weight", parameters=blocks)
    J = products.jacobian(module, x, wrt="weight", parameters=blocks)
    whole = torch.stack([torch.block_diag(*(block[b] for block in found)) for b in range(B)])
    close(pushed, J @ whole @ J.mT)


def test_the_vector_of_weights_is_that_of_the_chosen() -> None:
    module = nnj.Sequential(nnj.Linear(2, 3), nnj.Linear(3, 5))
    weight = module.get_weight("*.bias")
    assert torch.equal(weight, torch.cat([module[0].bias, module[1].bias]))
    before = module[0].weight.detach().clone()
    module.set_weight(torch.arange(8.0), "*.bias")
    assert torch.equal(module.get_weight(["0.bias", "1.bias"]), torch.arange(8.0))
    assert torch.equal(module[0].weight, before)
    x = torch.zeros(7, 2)
    assert module.jTmjp(x, wrt="weight", to_diag=True, parameters="1.*").shape == (7, 20)
    assert module.jvp(x, None, torch.ones(7, 8), "weight", parameters="*.bias").shape == (7, 5)


def test_order_is_that_of_the_module_and_names_may_be_any_of_a_shared_parameter() -> None:
    module = Tied()
    assert ParameterLayout.of(module, ["scale", "decoder.weight"]).names == ("scale", "encoder.weight")
    assert ParameterLayout.of(module, lambda name, p: name.startswith("decoder")).names == (
        "encoder.weight",
        "decoder.bias",
    )
    assert ParameterLayout.of(module, iter(["decoder.bias", "scale"])).names == ("scale", "decoder.bias")
    assert ParameterLayout.of(module).names == tuple(name for name, _ in module.named_parameters())


REFUSED: list[tuple[Any, str]] = [
    ("nothing", "'nothing' is the name of no parameter of Sequential.*0.weight"),
    (["0.weight", "7.*"], "'7.\\*' is the name of no parameter"),
    ([], r"parameters=\[\] chooses none of the 6"),
    (lambda name, p: False, "parameters=function chooses none of the 6"),
    ("trainable", "'trainable' chooses none of the 6"),
    (3, "'all', 'trainable', names or patterns.*got int"),
    ([3], "'all', 'trainable', names or patterns.*got int"),
    (None, "got NoneType"),
]
CALLS: dict[str, Callable[[nn.Module, Tensor, Any], object]] = {
    "linearize": lambda f, x, s: linearize(f, x, "weight", s),
    "explain": lambda f, x, s: explain(f, x, "weight", s),
    "jacobian": lambda f, x, s: products.jacobian(f, x, wrt="weight", parameters=s),
    "jTmjp": lambda f, x, s: products.jTmjp(f, x, wrt="weight", parameters=s),
    "ggn_blocks": lambda f, x, s: ggn_blocks(f, x, Categorical(), s),
    "tangent_kernel": lambda f, x, s: tangent_kernel(f, x, parameters=s),
    "sample_gradients": lambda f, x, s: sample_gradients(f, x, lambda y: y.sum(1), s),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("selection", "text"), REFUSED)
def test_unknown_names_and_empty_selections_are_refused(
    selection: Any, text: str, call: str, without_type_checks: None
) -> None:
    module, x = built("mlp")
    module.requires_grad_(False)
    with pytest.raises(OptionError, match=text):
        CALLS[call](module, x, selection)


def test_parameters_are_for_weights_of_modules() -> None:
    module, x = built("mlp")
    with pytest.raises(OptionError, match="with respect to the input leave it out"):
        linearize(module, x, parameters="0.*")
    with pytest.raises(ModuleError, match="a plain function has no parameters"):
        linearize(lambda z: z, x, "weight", "0.*")


def test_no_work_is_done_for_what_is_held_fixed() -> None:
    module, x = built("mlp")
    contracted: list[LinearWeight] = []

    def counted(self: LinearWeight, W: Tensor, V: Tensor) -> Tensor:
        contracted.append(self)
        return original(self, W, V)

    original = LinearWeight.pull_diag
    with mock.patch.object(LinearWeight, "pull_diag", counted):
        products.jTmjp(module, x, wrt="weight", to_diag=True)
        assert len({id(J) for J in contracted}) == 3
        contracted.clear()
        products.jTmjp(module, x, wrt="weight", to_diag=True, parameters="4.*")
        assert [J.signature.n_in for J in contracted] == [8]
        contracted.clear()
        products.jTmjp(module, x, wrt="weight", to_diag=True, parameters="*.bias")
        assert not contracted  # a bias needs no inputs
    stages = linearize(module, x, "weight", "4.*")[1].stages
    assert len(stages) == 1  # no cotangent passes the layers before
    J = linearize(*built("conv"), "weight", "1.weight")[1]
    assert [type(s.weight) for s in J.stages if s.weight is not None] == [ConvWeight]
    assert J.stages[0].weight.signature.n_in == 4


def test_automatic_weights_form_gradients_of_the_chosen_only() -> None:
    module, x = built("automatic")
    J = linearize(module, x, "weight", "last.bias")[1]
    assert J.pull(J.signature.out_basis()).shape == (2, B, 2)
    with mock.patch.object(autodiff, "vjp", side_effect=autodiff.vjp) as vjp:
        J.pull(J.signature.out_basis())
    assert [[p.numel() for p in call.args[1:]] for call in vjp.call_args_list] == [[2]]


class Gains(nn.Module):
    """Numbers without a dimension, in a network that no recording sees through, or whose samples go one by one."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.linear = nn.utils.weight_norm(nn.Linear(2, 3), dim=None)
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.alone = alone

    def forward(self, x: Tensor) -> Tensor:
        y = torch.special.i0e(self.gain * self.linear(x))
        return y * float(y.detach().shape[0] > 0) if self.alone else y


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_numbers_without_a_dimension(mode: type[torch.no_grad], alone: bool) -> None:
    torch.manual_seed(0)
    module, x = Gains(alone).double(), torch.randn(3, 2, dtype=torch.float64)
    leaves = list(module.parameters())
    found = [torch.autograd.grad(value, leaves, retain_graph=True) for value in module(x).flatten()]
    rows = [torch.cat([g.reshape(-1) for g in gradients]) for gradients in found]
    truth = torch.stack(rows).reshape(3, 3, -1)
    with mode():
        J = linearize(module, x, "weight")[1]
        torch.testing.assert_close(J.dense().detach(), truth)
        torch.testing.assert_close(J.pull(J.signature.out_basis()).detach().transpose(0, 1), truth)


def test_lists_of_parameters_are_those_of_torch() -> None:
    inner = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Tanh())
    net = nn.Sequential(inner, nn.ModuleDict({"again": inner, "more": nn.Bilinear(2, 3, 5)}), nn.Linear(3, 2))
    net[2].weight = inner[0].weight  # of another shape than it should be, but shared
    assert list(map(id, all_parameters(net))) == list(map(id, net.parameters()))
    assert [(name, id(p)) for name, p in named_parameters(net)] == [(n, id(p)) for n, p in net.named_parameters()]
    assert all_parameters(nn.Tanh()) == [] == named_parameters(nn.Tanh())
