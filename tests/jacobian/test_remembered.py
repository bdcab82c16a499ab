"""What is remembered of a module from call to call is never stale, whatever was done to the module in between."""

import gc
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian import AutodiffWeight, linearize
from pullgeo.jacobian.weights import remembered
from pullgeo.jacobian.weights.weight_graph import WeightGraph

FLAGS = {"mixing": False, "cut": False}


class Layered(nn.Module):
    """Two layers around a Fourier transform, of which no graph knows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(5, 5), nn.Dropout(), nn.Linear(5, 2)
        self.register_buffer("scale", torch.ones(5))
        self.sine = False

    def forward(self, x: Tensor) -> Tensor:
        h = torch.fft.fft(self.drop(self.first(x))).real * self.scale
        h = h.sin() if self.sine else h
        if FLAGS["cut"]:
            h = h.detach()
        if FLAGS["mixing"]:
            h = h - h.mean(0)
        return self.last(h)


@pytest.fixture(autouse=True)
def flags() -> None:
    FLAGS.update(mixing=False, cut=False)


def known(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    """A module that was linearized before, side by side and with success."""
    module, x = Layered().to(dtype).eval(), torch.randn(7, 5, dtype=dtype)
    for _ in range(2):
        check(module, x)
    assert any(remembered.findings(module).values())
    return module, x


def check(module: nn.Module, x: Tensor) -> WeightGraph:
    """Value and products are those of a loop over samples in plain reverse mode."""
    y, J = linearize(module, x, "weight")
    assert isinstance(J, WeightGraph)
    W = torch.randn(2, *y.shape, dtype=y.dtype)
    with torch.enable_grad():
        value = module(x)
        rows = [
            [torch.autograd.grad(value[i], list(module.parameters()), w[i], True, materialize_grads=True) for w in W]
            for i in range(len(x))
        ]
    pulled = torch.stack([torch.stack([torch.cat([g.flatten() for g in gs]) for gs in row]) for row in rows], 1)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if x.dtype is torch.float32 else {}
    torch.testing.assert_close(y, value, **tolerance)
    torch.testing.assert_close(J.pull(W), pulled, **tolerance)
    torch.testing.assert_close(J.pull(W[:1]), pulled[:1], **tolerance)
    T = torch.randn(1, len(x), pulled.shape[-1], dtype=y.dtype)
    torch.testing.assert_close(
        (J.push(T)[0] * W[0]).flatten(1).sum(1), (T[0] * pulled[0]).sum(1), rtol=1e-3, atol=tolerance.get("atol", 1e-8)
    )
    return J


def test_what_is_known_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = known()
    checks: list[str] = []
    entry = sys.modules["pullgeo.jacobian.linearize"]  # the function goes by this name too
    monkeypatch.setattr(entry, "check_independence", lambda *_: checks.append("independence"))
    monkeypatch.setattr(entry, "record_weight", lambda *_: checks.append("record"))
    monkeypatch.setattr(AutodiffWeight, "_is_right", lambda *_: checks.append("right"))
    linearize(module, 2 * x, "weight")[1].pull(torch.ones(1, 7, 2, dtype=x.dtype))
    assert checks == []


def replaced(module: Layered) -> None:
    module.first.weight = nn.Parameter(torch.randn(5, 5, dtype=torch.float64))


def monkeypatched(module: Layered) -> None:
    module.forward = lambda x: module.last(torch.fft.fft(x).imag)  # type: ignore[method-assign]


def traceable(module: Layered) -> None:
    module.forward = lambda x: module.last(module.first(x).sin())  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[Layered], object]] = {
    "parameter replaced": replaced,
    "parameter written into": lambda m: m.last.weight.data.mul_(-3),
    "parameter tied": lambda m: setattr(m, "first", m.first) or setattr(m.last, "bias", None),
    "requires no gradients": lambda m: m.first.requires_grad_(True).bias.data.zero_(),
    "hook": lambda m: m.first.register_forward_hook(lambda _, __, y: y.sin()),
    "hook before": lambda m: m.last.register_forward_pre_hook(lambda _, given: (given[0] * 2,)),
    "submodule swapped": lambda m: setattr(m, "first", nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()),
    "buffer": lambda m: setattr(m, "scale", torch.arange(5.0).double()),
    "attribute": lambda m: setattr(m, "sine", True),
    "forward": monkeypatched,
    "forward that a graph knows": traceable,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("b", [1, 2, 7])
def test_changes_between_calls(change: str, b: int) -> None:
    module, x = known()
    assert isinstance(module, Layered)
    CHANGES[change](module)
    for _ in range(2):
        check(module, x[:b])


def test_dtype_changed() -> None:
    module, x = known()
    check(module.float(), x.float())
    check(module.double(), x)


def test_train_mode_is_refused_still() -> None:
    module, x = known()
    with pytest.raises(CoupledSamplesError, match="train mode"):
        linearize(module.train(), x, "weight")


@pytest.mark.parametrize("b", [2, 7])
def test_mixing_samples_is_noticed_still(b: int) -> None:
    module, x = known()
    FLAGS["mixing"] = True
    with pytest.raises(CoupledSamplesError):
        linearize(module, x[:b], "weight")


def test_what_is_cut_off_is_noticed() -> None:
    module, x = known()
    FLAGS["cut"] = True
    check(module, x)


def test_mixing_by_numbers_alone_is_noticed() -> None:
    """The same operations on tensors of the same shapes: only their numbers tell."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.mixture = nn.Linear(5, 2), torch.eye(7, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.fft.fft(self.layer(x)).real
            return self.mixture[: len(x), : len(x)] @ h

    module, x = Mixed().double(), torch.randn(7, 5, dtype=torch.float64)
    for _ in range(2):
        check(module, x)
    assert any(remembered.findings(module).values())
    module.mixture = torch.rand(7, 7, dtype=torch.float64)
    check(module, x)  # each sample's own value in its batch, and its derivative


def test_functions_of_ones_own_are_never_known() -> None:
    class Straight(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.sign()

        @staticmethod
        def setup_context(ctx: object, inputs: object, output: object) -> None: ...

        @staticmethod
        def backward(ctx: object, w: Tensor) -> Tensor:
            return w

    class Signs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return Straight.apply(self.layer(x)) * x[:, :2]

    module, x = Signs().double(), torch.randn(7, 5, dtype=torch.float64)
    y, J = linearize(module, x, "weight")
    J.pull(torch.ones(1, *y.shape, dtype=y.dtype))
    assert not any(remembered.findings(module).values())


def test_it_is_forgotten_with_the_module() -> None:
    module, _ = known()
    number = id(module)
    assert number in remembered._found
    del module
    gc.collect()
    assert number not in remembered._found


def test_float32_without_gradients() -> None:
    module, x = known(torch.float32)
    with torch.no_grad():
        check(module, x)
    with torch.inference_mode():
        y, J = linearize(module, x, "weight")
        pulled = J.pull(torch.ones(1, *y.shape))
    torch.testing.assert_close(pulled, linearize(module, x, "weight")[1].pull(torch.ones(1, *y.shape)))
