"""Recurrent layers and cells: every product against the truth, whatever of their arguments the latent reaches."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo.jacobian import explain, linearize
from pullgeo.testing import check_rule, oracles
from tests.jacobian.architectures import check_input, close, random


class Sequence(nn.Module):
    """Inputs from the latent, which differ from step to step, and what the layer returns besides its output."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.inputs = layer, nn.Linear(2, 3 * layer.input_size)

    def forward(self, z: Tensor) -> Tensor:
        y, last = self.layer(self.inputs(z).reshape(len(z), 3, -1))
        states = last if isinstance(last, tuple) else (last,)
        return y.flatten(1) + sum(state[-1].sum(-1, keepdim=True) for state in states)


class FromStates(nn.Module):
    """The first states from the latent, and the inputs too if ``fed``."""

    def __init__(self, layer: nn.RNNBase, fed: bool) -> None:
        super().__init__()
        self.layer, self.fed = layer, fed
        self.count = layer.num_layers * (2 if layer.bidirectional else 1)
        self.start = nn.Linear(2, self.count * layer.hidden_size)

    def forward(self, z: Tensor) -> Tensor:
        state = self.start(z).reshape(len(z), self.count, -1).transpose(0, 1).contiguous()
        long = isinstance(self.layer, nn.LSTM)
        inputs = torch.ones(len(z), 3, self.layer.input_size, dtype=z.dtype)
        if self.fed:
            inputs = inputs * z.sin().sum(1)[:, None, None]
        y, last = self.layer(inputs, (state, 0.5 * state) if long else state)
        ends = last[1] if long else last
        return torch.cat([y.flatten(1), ends.transpose(0, 1).flatten(1)], 1)


class TimeInFront(nn.Module):
    """Time first, as recurrent layers have it unless they are told otherwise."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.start = layer, nn.Linear(2, layer.hidden_size)

    def forward(self, z: Tensor) -> Tensor:
        inputs = z.unsqueeze(1).repeat(1, 3, 1).cumsum(1).permute(1, 0, 2)
        y, _ = self.layer(inputs, self.start(z).unsqueeze(0))
        return y.permute(1, 0, 2)


class Cells(nn.Module):
    """A cell that begins with nothing, and reads its own state."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell, self.back = cell, nn.Linear(3, 2)

    def forward(self, z: Tensor) -> Tensor:
        long, state, x, outputs = isinstance(self.cell, nn.LSTMCell), None, z, []
        for _ in range(3):
            state = self.cell(x, state)
            outputs.append(state[0] if long else state)
            x = self.back(outputs[-1])
        return torch.stack(outputs, 1) if not long else torch.cat([*outputs, state[1]], 1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: Sequence(nn.GRU(2, 3, batch_first=True)),
    "LSTM": lambda: Sequence(nn.LSTM(2, 3, batch_first=True)),
    "RNN": lambda: Sequence(nn.RNN(2, 3, batch_first=True)),
    "RNN of rectifiers": lambda: Sequence(nn.RNN(2, 3, batch_first=True, nonlinearity="relu")),
    "GRU, two layers in both directions": lambda: Sequence(nn.GRU(2, 3, 2, batch_first=True, bidirectional=True)),
    "LSTM in both directions without biases": lambda: Sequence(
        nn.LSTM(2, 3, bias=False, batch_first=True, bidirectional=True)
    ),
    "GRU from states": lambda: FromStates(nn.GRU(2, 3, 2, batch_first=True), fed=False),
    "GRU from states and inputs": lambda: FromStates(nn.GRU(2, 3, 2, batch_first=True, bidirectional=True), fed=True),
    "LSTM from states": lambda: FromStates(nn.LSTM(2, 3, 2, batch_first=True), fed=False),
    "LSTM from states and inputs": lambda: FromStates(nn.LSTM(2, 3, batch_first=True, bidirectional=True), fed=True),
    "RNN from states and inputs": lambda: FromStates(nn.RNN(2, 3, batch_first=True), fed=True),
    "GRU with time in front": lambda: TimeInFront(nn.GRU(2, 3)),
    "GRU's cell": lambda: Cells(nn.GRUCell(2, 3)),
    "LSTM's cell": lambda: Cells(nn.LSTMCell(2, 3)),
    "RNN's cell": lambda: Cells(nn.RNNCell(2, 3)),
    "RNN's cell of rectifiers": lambda: Cells(nn.RNNCell(2, 3, nonlinearity="relu")),
}


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    return NETWORKS[name]().double().eval(), random(5, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_products_equal_the_oracle(name: str) -> None:
    module, z = network(name)
    check_input(module, z)
    assert "autodiff" not in {row.path for row in explain(module, z)}


@pytest.mark.parametrize("name", ["GRU", "LSTM from states and inputs", "RNN's cell"])
def test_they_keep_every_promise_of_a_rule(name: str) -> None:
    check_rule(*network(name))


@pytest.mark.parametrize("name", ["GRU from states and inputs", "LSTM", "RNN", "LSTM's cell"])
def test_gradients_of_products_are_second_derivatives(name: str) -> None:
    module, z = network(name)
    z = z.requires_grad_()
    w = random(5, oracles.dense_jacobian(module, z.detach()).shape[1], seed=1)
    leaves = [z, *(p for p in module.parameters() if p.requires_grad)]

    def graded(y: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, leaves, allow_unused=True)

    pulled = torch.autograd.grad((module(z).flatten(1) * w).sum(), z, create_graph=True)[0]
    J = linearize(module, z)[1]
    ours = J.pull(w.reshape(1, 5, *J.signature.out_shape))[0]
    for found, expected in zip(graded(ours.square().sum()), graded(pulled.square().sum()), strict=True):
        if expected is not None:
            close(found, expected)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "GRU's cell"])
def test_single_precision_no_grad_inference_and_transforms(name: str) -> None:
    module, z = network(name)
    truth = oracles.dense_jacobian(module, z)
    with torch.inference_mode():
        close(linearize(module, z)[1].dense(), truth)
    with torch.no_grad():
        J = linearize(module, z)[1]
        assert not J.dense().requires_grad

    def dense(one: Tensor) -> Tensor:
        return linearize(module, one.unsqueeze(0))[1].dense()[0]

    expected = torch.func.jacrev(torch.func.jacrev(lambda one: module(one.unsqueeze(0)).flatten()))(z[0])
    close(torch.func.jacrev(dense)(z[0]), expected)
    single = linearize(module.float(), z.float())[1].dense()
    torch.testing.assert_close(single, truth.float(), rtol=1e-4, atol=1e-5)


def test_a_batch_of_one() -> None:
    for name in ("GRU from states and inputs", "GRU with time in front", "LSTM's cell"):
        module, z = network(name)
        close(linearize(module, z[:1])[1].dense(), oracles.dense_jacobian(module, z[:1]))


def test_what_has_no_rule_is_differentiated_automatically() -> None:
    projected = Sequence(nn.LSTM(2, 3, batch_first=True, proj_size=2))
    projected.forward = lambda z: projected.layer(z.unsqueeze(1).repeat(1, 3, 1))[0]  # type: ignore[method-assign]
    module, z = projected.double(), random(5, 2)
    close(linearize(module, z)[1].dense(), oracles.dense_jacobian(module, z))
