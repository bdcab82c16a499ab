"""Tools that read a forward or trace it see the one of the torch class."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from pullgeo import jacobian, nnj


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(torch.tanh(self.norm(self.first(x))))


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "a layer": lambda: nnj.Linear(2, 3),
    "a chain": lambda: nnj.Sequential(nnj.Linear(2, 3), nnj.Sequential(nnj.Tanh(), nnj.Reshape(3, 1))),
    "a converted chain": lambda: nnj.convert_to_nnj(nn.Sequential(nn.Linear(2, 3), nn.Tanh())),
    "a converted network": lambda: nnj.convert_to_nnj(Network()),
    "a residual block": lambda: nnj.ResidualBlock(nnj.Linear(2, 2), nnj.ELU()),
}


@pytest.mark.usefixtures("without_type_checks")  # which a tracer's stand-ins for tensors do not pass
@pytest.mark.parametrize("name", BUILDS)
def test_symbolic_tracing(name: str) -> None:
    module, x = BUILDS[name](), torch.randn(3, 2)
    traced = fx.symbolic_trace(module)
    assert torch.equal(traced(x), module(x))
    placeholders = [node.name for node in traced.graph.nodes if node.op == "placeholder"]
    assert placeholders in (["x"], ["input"], ["input_1"])


def test_a_forward_names_its_options_and_leads_to_that_of_torch() -> None:
    for cls, theirs in ((nnj.Linear, nn.Linear), (nnj.Sequential, nn.Sequential)):
        assert "jacobian" in inspect.signature(cls.forward).parameters
        assert inspect.unwrap(cls.forward) is theirs.forward


def test_forward_gives_the_jacobian_whether_called_or_run() -> None:
    net, x = nnj.Sequential(nnj.Linear(2, 3), nnj.Tanh()), torch.randn(5, 2)
    for run in (net, net.forward):
        y, J = run(x, jacobian=True)
        torch.testing.assert_close(y, net(x))
        torch.testing.assert_close(J, net.jacobian(x))


def test_explain_is_at_hand() -> None:
    assert nnj.explain is jacobian.explain
    assert nnj.explain(nnj.Sequential(nnj.Linear(2, 3)), torch.zeros(1, 2))["0"].path == "rule"
