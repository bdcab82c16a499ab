"""Gradients of every sample: beside BackPACK and torch.func, time and peak memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.profiler import ProfilerActivity, profile

from pullgeo.jacobian import sample_gradients
from tests.benchmarks.side_by_side import show, turns


def peak(run: Callable[[], object]) -> float:
    """The most that torch holds at a time while something runs, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 2**20


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 10))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_an_mlp() -> None:
    backpack = pytest.importorskip("backpack", reason="pip install --no-deps backpack-for-pytorch==1.7.1")
    extensions = pytest.importorskip("backpack.extensions")
    network, extended = mlp(), backpack.extend(mlp())
    extended.load_state_dict(network.state_dict())
    x, w = torch.randn(128, 100), torch.randn(128, 10)
    weights = {name: p.detach() for name, p in network.named_parameters()}

    def by_backpack() -> list[Tensor]:
        y = extended(x)
        with backpack.backpack(extensions.BatchGrad()):
            (y * w).sum().backward()
        found = [p.grad_batch for p in extended.parameters()]
        for p in extended.parameters():
            p.grad = None
            del p.grad_batch
        return found

    def by_torch_func() -> list[Tensor]:
        def loss(weights: dict[str, Tensor], x: Tensor, w: Tensor) -> Tensor:
            return (functional_call(network, weights, (x.unsqueeze(0),)).squeeze(0) * w).sum()

        return list(vmap(grad(loss), (None, 0, 0))(weights, x, w).values())

    def ours() -> Tensor:
        with torch.no_grad():
            return sample_gradients(network, x, w)

    contenders: dict[str, Callable[[], object]] = {
        "ours": ours,
        "ours, gradients on": lambda: sample_gradients(network, x, w),
        "BackPACK": by_backpack,
        "vmap(grad)": by_torch_func,
    }
    for peer in (by_backpack, by_torch_func):
        torch.testing.assert_close(ours(), torch.cat([g.flatten(1) for g in peer()], 1), rtol=1e-4, atol=1e-5)
    times = turns(contenders, rounds=31)
    best = times.best(["BackPACK", "vmap(grad)"])
    rows: list[dict[str, object]] = [
        {"contender": name, "time / best peer": times.ratio(name, best), "peak, MiB": peak(run)}
        for name, run in contenders.items()
    ]
    note = "The gradient of each sample's loss by all weights, 128 rows; the best peer has the least median."
    title, packages = "gradients of 128 samples, 100-100-100-10 tanh", ["backpack-for-pytorch"]
    show(title, rows, "sample-gradients", packages=packages, note=note)
