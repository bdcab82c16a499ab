"""Decoders that save memory by computing parts of themselves twice, and functions that transforms cannot run."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from pullgeo import PullbackManifold, linearize
from pullgeo.manifold import Manifold
from tests.releases import newer_torch

F64 = torch.float64
X = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.3, 0.2]], dtype=F64)
Y = torch.tensor([[0.1, 0.3], [0.5, 0.2], [0.2, -0.1]], dtype=F64)


class Saving(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(2, 7), nn.Tanh()).double()
        self.last = nn.Linear(7, 5).double()
        self.reentrant = reentrant

    def forward(self, z: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.last(self.first(z))
        return self.last(checkpoint.checkpoint(self.first, z, use_reentrant=self.reentrant))


CALLS: dict[str, Callable[[Manifold], Tensor]] = {
    "metric": lambda m: m.metric(X).dense(),
    "dist": lambda m: m.dist(X, Y),
    "connection": lambda m: m.connection(X, Y, Y),
    "curvature": lambda m: m.scalar_curvature(X),
    "expmap": lambda m: m.expmap(X[:1], Y[:1] / 9),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", ["module", "function"])
def test_checkpoints_change_neither_values_nor_gradients(kind: str, name: str) -> None:
    plain, saving = Saving(None), Saving(False)

    def both(net: Saving) -> tuple[Tensor, ...]:
        value = CALLS[name](PullbackManifold(net if kind == "module" else lambda z: net(z)))
        return (value, *torch.autograd.grad(value.square().sum(), [net.first[0].weight, net.last.weight]))

    before = checkpoint._checkpoint_without_reentrant_generator
    for found, expected in zip(both(saving), both(plain), strict=True):
        torch.testing.assert_close(found, expected)
    assert checkpoint._checkpoint_without_reentrant_generator is before


@newer_torch
def test_checkpoints_save_memory_again_afterwards() -> None:
    net, runs = Saving(False), []
    net.first.register_forward_pre_hook(lambda *_: runs.append(1))
    PullbackManifold(lambda z: net(z)).metric(X).dense()
    runs.clear()
    net(X).sum().backward()
    assert len(runs) == 2


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].square() * grad


@pytest.mark.parametrize("kind", ["reentrant checkpoint", "old-style function"])
@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_functions_that_cannot_be_transformed_are_served(kind: str) -> None:
    served, plain = (
        (Saving(True), Saving(None)) if kind == "reentrant checkpoint" else (lambda z: Cube.apply(z), lambda z: z**3)
    )
    calls: list[Callable[[Any, Manifold], Tensor]] = [
        lambda f, m: linearize(f, X)[1].dense(),
        lambda f, m: m.metric(X).dense(),
        lambda f, m: m.dist(X, Y),
        lambda f, m: m.expmap(X, Y / 9),
        lambda f, m: m.scalar_curvature(X),
    ]
    for call in calls:
        found, expected = (call(f, PullbackManifold(f)) for f in (served, plain))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
