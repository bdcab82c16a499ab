"""What a graph must not serve: it goes to automatic differentiation, exactly and with a reason, or is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.errors import CoupledSamplesError, ModuleError
from pullgeo.jacobian import Autodiff, Graph, explain, linearize
from pullgeo.testing import oracles
from tests.jacobian.architectures import check_input, check_weight, close, network, random


class Straight(torch.autograd.Function):
    """Rounding with a derivative of its own, which no graph may replace by that of rounding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.round() * 1.0

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * gradient

    @staticmethod
    def jvp(ctx: object, tangent: Tensor) -> Tensor:
        return 2 * tangent


class Module(nn.Module):
    def __init__(self, operation: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation
        torch.manual_seed(0)
        self.linear = nn.Linear(5, 5).double()
        self.outside = [nn.Parameter(torch.randn(5, dtype=torch.float64))]  # in a list, so that it is a constant
        self.bound = self.scaled
        self.scale = nn.Parameter(torch.randn(5, dtype=torch.float64))

    def scaled(self, x: Tensor) -> Tensor:
        return self.scale * x

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self, x)


def write_into_a_view(m: nn.Module, x: Tensor) -> Tensor:
    y = x.sin()
    y[:, 0].mul_(3)
    return y


def write_into_zeros(m: nn.Module, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :, 1:] = x[:, :, 1:].sin()
    return y + x


def write_through_an_alias(m: nn.Module, x: Tensor) -> Tensor:
    y = x.sin()
    flat = y.view(len(x), -1)
    flat += 1
    return y.square()


def swallow_the_failure(m: nn.Module, x: Tensor) -> Tensor:
    try:
        return torch.fft.rfft(x).real
    except Exception:  # noqa: BLE001
        return x


FALLS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "time in front": (lambda m, x: m.linear(x.transpose(0, 1)).tanh().transpose(0, 1), "moves the batch"),
    "samples glued": (lambda m, x: m.linear(x.reshape(-1, 5)).reshape(len(x), 3, 5), "cuts or glues samples"),
    "batch in front of it": (lambda m, x: m.linear(x.unsqueeze(0)).squeeze(0), "moves the batch"),
    "write into a view": (write_into_a_view, "shares its memory"),
    "write into zeros": (write_into_zeros, "__setitem__"),
    "write through an alias": (write_through_an_alias, "shares its memory"),
    "swallow the failure": (swallow_the_failure, "fft_rfft"),
    "control flow": (lambda m, x: x.sin() if x[:, 0, 0].flip(0).sum(0) > 0 else x.cos(), "along the batch"),
    "reading values": (lambda m, x: x * x[:, :, 0].mean(1).tolist()[0] ** 0, "tolist reads values"),
    "autograd function": (lambda m, x: Straight.apply(x.sin()) * x, "autograd function of its own"),
    "unknown operation": (lambda m, x: torch.fft.rfft(x.sin()).abs(), "fft_rfft"),
}


@pytest.mark.parametrize("name", FALLS)
def test_it_is_differentiated_automatically_and_says_why(name: str) -> None:
    operation, reason = FALLS[name]
    module, x = Module(operation), random(2, 3, 5)
    row = explain(module, x)[""]
    assert row.path == "autodiff"
    assert reason in row.why
    if name != "autograd function":  # its second derivative is not that of what it returns
        J = check_input(module, x)
    else:
        y, J = linearize(module, x)
        truth = oracles.dense_jacobian(module, x)
        close(y, module(x))
        close(J.dense(), truth)
        close(J.pull(J.signature.out_basis()).flatten(2).transpose(0, 1), truth)
    assert isinstance(J, Autodiff)


@pytest.mark.parametrize("name", ["time in front", "samples glued", "write into zeros"])
def test_weights_are_differentiated_automatically_too(name: str) -> None:
    module, x = Module(FALLS[name][0]), random(2, 3, 5)
    check_weight(module, x)
    assert explain(module, x, "weight")[""].path == "autodiff"


def test_a_change_of_precision_rounds_as_torch_rounds() -> None:
    module, x = Module(lambda m, x: x * x.float().double()), random(2, 3, 5)
    assert "precision changes" in explain(module, x)[""].why
    torch.testing.assert_close(linearize(module, x)[1].dense(), oracles.dense_jacobian(module, x), rtol=1e-6, atol=1e-6)


def test_the_argument_is_never_written_into() -> None:
    module, x = Module(lambda m, x: torch.fft.rfft(x.mul_(2)).abs() + m.scale[:3]), random(2, 3, 5)
    before = x.clone()
    for wrt in ("input", "weight"):
        J = linearize(module, x, wrt)[1]
        J.push(J.signature.in_basis())
        J.pull(J.signature.out_basis())
        assert torch.equal(x, before)


def test_parameters_reached_past_their_module_are_not_lost() -> None:
    # the method was bound to the module itself, not to its double
    module, x = Module(lambda m, x: m.bound(x) + m.linear(x)), random(2, 3, 5)
    check_weight(module, x)
    assert "does not hand out" in explain(module, x, "weight")[""].why


def test_parameters_outside_the_module_are_constants() -> None:
    module, x = Module(lambda m, x: m.linear(x) * m.outside[0].detach()), random(2, 3, 5)
    check_weight(module, x)
    assert explain(module, x, "weight")[""].path == "graph"


def test_hooks_are_run() -> None:
    module, x = nn.Sequential(nn.Linear(5, 5), Module(lambda m, x: m.linear(x) * x)).double(), random(3, 5)
    module[1].linear.register_forward_hook(lambda layer, args, y: 3 * y)
    check_input(module, x)
    check_weight(module, x)
    assert "hooks" in explain(module, x)["1.linear"].why
    assert explain(module, x)["1"].path == "graph"


def test_a_part_that_fails_takes_only_itself() -> None:
    inner = Module(FALLS["time in front"][0])
    module, x = Module(lambda m, x: m.inner(x) * m.linear(x)), random(2, 3, 5)
    module.inner = inner
    J = check_input(module, x)
    check_weight(module, x)
    table = explain(module, x)
    assert isinstance(J, Graph)
    assert [table[name].path for name in ("", "inner", "inner.linear", "linear")] == [
        "graph",
        "autodiff",
        "autodiff",
        "rule",
    ]


def test_in_place_writes_of_a_part_that_fails_are_undone() -> None:
    def spoil(m: nn.Module, x: Tensor) -> Tensor:
        x.mul_(2)
        return torch.fft.rfft(x).real.sum(-1, keepdim=True) * x

    module, x = Module(lambda m, x: m.inner(x.sin()) + x), random(2, 3, 5)
    module.inner = Module(spoil)
    check_input(module, x)


def test_old_spectral_norm_and_scripted_modules() -> None:
    module = nn.Sequential(nn.utils.spectral_norm(nn.Linear(5, 5)), nn.Tanh()).double().eval()
    x = random(3, 5)
    J = linearize(module, x)[1]
    close(J.dense(), torch.func.vmap(torch.func.jacrev(module))(x))
    scripted = Module(lambda m, x: m.inner(x) * x)
    scripted.inner = torch.jit.script(nn.Linear(5, 5).double())
    close(linearize(scripted, x)[1].dense(), torch.func.vmap(torch.func.jacrev(lambda z: scripted(z)))(x))
    plain = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double()
    expected, compiled = linearize(plain, x)[1].dense(), torch.jit.script(plain)
    basis = torch.eye(5).double().unsqueeze(1).expand(5, 3, 5)
    for function in (compiled, nn.Sequential(compiled, nn.Identity()), lambda x: compiled(x)):
        for _ in range(3):  # TorchScript optimises itself from the second call on, and loses forward derivatives
            J = linearize(function, x)[1]
            close(J.dense(), expected)
            close(J.push(basis).permute(1, 2, 0), expected)
        for second in (lambda J: J.second(basis, torch.ones(3, 4).double()), lambda J: J.second_push(basis, basis)):
            with pytest.raises(ModuleError, match="TorchScript has scripted has wrong second derivatives"):
                second(J)
    for module in (torch.jit.script(plain), scripted):
        with pytest.raises(ModuleError, match=r"TorchScript.*Use the module that was compiled"):
            linearize(module, x, "weight")


def test_outputs_that_are_no_tensor_are_refused_with_advice() -> None:
    for module in (nn.LSTM(5, 3, batch_first=True), nn.GRU(5, 3, batch_first=True), nn.LSTMCell(5, 3)):
        with pytest.raises(ModuleError, match=r"returned tuple.*output=lambda out: out\[0\]"):
            linearize(module.double(), random(2, 3, 5) if isinstance(module, nn.RNNBase) else random(2, 5))
    picked = Module(lambda m, x: m.inner(x)[0])
    picked.inner = nn.LSTM(5, 3, num_layers=2, bidirectional=True, batch_first=True).double()
    check_input(picked, random(2, 3, 5))


def test_lazy_modules_work_once_they_have_parameters() -> None:
    module, x = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d()).eval(), random(3, 5)
    with pytest.raises(ModuleError, match=r"lazy.*Call the module once"):
        linearize(module, x)
    module(x.float())
    module.double()
    check_input(module, x)
    check_weight(module, x)


COUPLED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "random numbers": (lambda m, x: x + torch.randn_like(x), "randn_like"),
    "dropout": (lambda m, x: F.dropout(x, 0.5), "training=True"),
    "attention with dropout": (lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), "dropout_p"),
    "batch statistics": (lambda m, x: F.batch_norm(x, None, None, training=True), "over the batch"),
    "softmax over the batch": (lambda m, x: x.softmax(0), "dimension 0"),
    "mean over the batch": (lambda m, x: x - x.mean(0), "other samples"),
    "norm of everything": (lambda m, x: x / x.norm(), "other samples"),
    "samples in another order": (lambda m, x: x.flip(0), "other samples"),
    "convolution without channels": (lambda m, x: F.conv2d(x, x.new_ones(1, 2, 1, 1)), "unsqueeze"),
}


@pytest.mark.parametrize("name", COUPLED)
def test_functions_that_couple_samples_or_draw_are_refused(name: str) -> None:
    operation, reason = COUPLED[name]
    with pytest.raises(CoupledSamplesError, match=reason):
        linearize(Module(operation), random(2, 3, 5))


@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_a_part_that_couples_samples_is_refused(wrt: str) -> None:
    inner = Module(lambda m, x: m.linear(x) - m.linear(x).mean(0))
    with pytest.raises(CoupledSamplesError, match="other samples"):
        linearize(nn.Sequential(nn.Tanh(), inner, nn.Tanh()), random(5, 3, 5), wrt)
    layer = nn.Sequential(nn.BatchNorm1d(5)).double()
    with pytest.raises(CoupledSamplesError, match="eval"):
        linearize(lambda x: layer(x), random(4, 5))


def test_layers_that_take_the_batch_for_a_sequence_are_refused() -> None:
    x = random(3, 2, 4)
    layer = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0).double()
    with pytest.raises(CoupledSamplesError, match="batch_first=True"):
        linearize(layer, x)
    recurrent = Module(lambda m, x: m.inner(x)[0])
    recurrent.inner = nn.GRU(4, 2).double()
    with pytest.raises(CoupledSamplesError, match="batch_first=True"):
        linearize(recurrent, x)


def test_a_forward_without_gradients_is_refused() -> None:
    class Silent(nn.Module):
        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return x.exp()

    with pytest.raises(ModuleError, match="no_grad"):
        linearize(Silent(), random(3, 2))


def test_a_single_sample_is_a_batch_like_any_other() -> None:
    for name in ("vision transformer", "DenseNet", "shared weights"):
        module, x = network(name)
        check_input(module, x[:1])
        check_weight(module, x[:1])


def test_an_empty_batch_is_one_too() -> None:
    for name in ("residual U-Net", "vision transformer", "gates"):
        module, x = network(name)
        for wrt in ("input", "weight"):
            y, J = linearize(module, x[:0], wrt)
            assert len(y) == 0
            assert J.pull(J.signature.out_basis()).shape == (J.signature.n_out, 0, *J.signature.in_shape)
            assert J.push(J.signature.in_basis()).shape == (J.signature.n_in, 0, *J.signature.out_shape)
