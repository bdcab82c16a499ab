"""How much is computed for a metric: operations of torch, which do not depend on the machine, within upper bounds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pullgeo import PullbackManifold
from pullgeo.nnj import products
from tests.costs import calls_of, comparable

STEPS = 7


class Recurrent(nn.Module):
    """A layer that is fed the latent at every step."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z.unsqueeze(1).repeat(1, STEPS, 1))[0]


class Loop(nn.Module):
    """A cell that reads its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.start, self.head = nn.GRUCell(3, 5), nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, z: Tensor) -> Tensor:
        state = self.start(z)
        outputs = [self.head(state)]
        for _ in range(STEPS):
            state = self.cell(outputs[-1], state)
            outputs.append(self.head(state))
        return torch.stack(outputs, 1)


class Attending(nn.Module):
    """Attention as vision transformers have it: one product, a reshape, a permutation and ``unbind``."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.qkv, self.out = nn.Linear(2, 12), nn.Linear(4, 12), nn.Linear(4, 4)
        self.norm, self.mlp = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, z: Tensor) -> Tensor:
        x = self.start(z).reshape(len(z), 3, 4)
        q, k, v = self.qkv(self.norm(x)).reshape(len(z), 3, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(len(z), 3, 4))
        return x + self.mlp(x)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.layer = nn.Linear(2, 12), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(self.start(z).reshape(len(z), 3, 4))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 7))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "GRU": (lambda: Recurrent(nn.GRU(2, 3, batch_first=True)), 200),
    "LSTM": (lambda: Recurrent(nn.LSTM(2, 3, batch_first=True)), 130),
    "RNN": (lambda: Recurrent(nn.RNN(2, 3, batch_first=True)), 75),
    "cells in a loop": (Loop, 300),
    "vision transformer": (Attending, 106),
    "transformer encoder": (Encoder, 136),
    "MLP": (mlp, 22),
}


class Counting(TorchDispatchMode):
    """Counts the operations of torch that run in its context, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(run: Callable[[], object]) -> int:
    with torch.no_grad():
        run()  # what happens once does not count
        with Counting() as counting:
            run()
    return counting.count


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_of_a_metric(name: str) -> None:
    build, bound = NETWORKS[name]
    manifold, z = PullbackManifold(build().eval()), torch.randn(3, 2)
    assert operations(lambda: manifold.metric(z).dense()) <= bound


def test_a_metric_takes_one_forward_pass_however_the_network_is_given() -> None:
    net, calls = mlp(), []
    hook = net[0].register_forward_hook(lambda *_: calls.append(1))
    manifold, z = PullbackManifold(lambda z: net(z)), torch.randn(1, 2)
    manifold.metric(z)  # sees what the decoder returns
    hook.remove()
    counts = [
        operations(lambda given=given: PullbackManifold(given).metric(z).dense())  # type: ignore[misc]
        for given in (net, net.forward, lambda z: net(z))
    ]
    assert max(counts) <= min(counts) + 2


@pytest.mark.skipif(not comparable(), reason="counts of calls are known for one release, without checks of annotations")
def test_python_calls_of_a_propagated_diagonal() -> None:
    net, x = mlp(), torch.randn(3, 2)

    def diagonal() -> object:
        return products.jTmjp(net, x, wrt="weight", diag_backprop=True, reduction="sum")

    with torch.no_grad():
        diagonal()  # what happens once does not count
        assert calls_of(diagonal) <= 300
