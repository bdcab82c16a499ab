"""The table of which path serves which module."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError, OptionError
from pullgeo.jacobian import explain
from tests.jacobian.architectures import network, random


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).real


def test_every_module_has_a_row_with_a_reason() -> None:
    module, x = network("vision transformer")
    table = explain(module, x)
    assert [row.name for row in table] == [name for name, _ in module.named_modules()]
    assert len(table) == len(list(module.modules()))
    paths = {row.name: row.path for row in table}
    assert paths[""] == paths["encoder.layers.0.self_attn"] == "graph"
    assert paths["patches"] == paths["encoder.layers.0.norm1"] == "rule"
    assert paths["encoder.layers"] == "not called"
    assert all(row.why for row in table)


def test_it_prints_as_a_table() -> None:
    text = str(explain(nn.Sequential(nn.Tanh(), Unknown()), random(3, 2)))
    lines = text.splitlines()
    assert lines[0].split() == ["module", "class", "path", "why"]
    assert len({line.index(word) for line, word in zip(lines, ["path", "graph", "rule", "autodiff"], strict=True)}) == 1
    assert "fft_rfft is not among the operations that graphs know" in lines[3]


def test_it_is_true_of_weights_as_well() -> None:
    module, x = network("weight norm and spectral norm")
    assert explain(module, x)["0"].path == "rule"
    assert explain(module, x, "weight")["0"].path == "graph"  # its parameters are not those that the rule is about


def test_without_a_batch_it_knows_what_does_not_depend_on_one() -> None:
    module = nn.Sequential(nn.Linear(2, 2), Unknown(), nn.Tanh())
    module[2].register_forward_hook(lambda layer, args, y: y)
    assert [row.path for row in explain(module)] == ["graph", "rule", "unknown", "autodiff"]


def test_compiled_modules_are_explained_by_what_they_compile() -> None:
    table = explain(torch.compile(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), backend="eager"), torch.zeros(3, 2))
    assert [row.path for row in table] == ["graph", "graph", "rule", "rule"]


def test_it_raises_what_linearize_raises() -> None:
    with pytest.raises(CoupledSamplesError):
        explain(nn.BatchNorm1d(2), torch.zeros(3, 2))
    with pytest.raises(OptionError):
        explain(nn.Tanh(), torch.zeros(3, 2), "weigth")
    with pytest.raises(KeyError):
        explain(nn.Tanh())["inner"]
