"""What values say of themselves, in a terminal and in a notebook."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from torch import nn

from pullgeo import MetricManifold, PullbackManifold, linearize
from pullgeo.curve import CubicSpline, DiscreteCurve
from pullgeo.likelihood import Bernoulli
from pullgeo.metric import Diagonal


class Twice(nn.Module):
    """Reuses its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer, twice, and the input."""
        return x + self.layer(torch.tanh(self.layer(x)))


def half_plane(z: torch.Tensor) -> torch.Tensor:
    return torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2) / z[:, 1].square()[:, None, None]


def decoder() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 7))


def test_one_line_that_tells() -> None:
    f, z = decoder(), torch.zeros(3, 2)
    assert repr(PullbackManifold(f)) == "PullbackManifold(Sequential(2 -> 7), ambient=Euclidean)"
    assert repr(PullbackManifold(f, ambient=Diagonal(torch.ones(7)))).endswith("ambient=Diagonal(dim=7, float32))")
    assert repr(PullbackManifold(f, ambient=Bernoulli())).endswith("ambient=Euclidean after BernoulliAngle)")
    assert repr(PullbackManifold(nn.Unflatten(1, (1, 2)))) == "PullbackManifold(Unflatten, ambient=Euclidean)"
    assert repr(MetricManifold(half_plane)) == "MetricManifold(half_plane)"
    assert repr(linearize(f, z)[1]) == "Chain[LinearMap, Elementwise, LinearMap](b=3, 2 -> 7)"
    assert repr(linearize(f, z, wrt="weight")[1]) == "WeightGraph(b=3, 57 -> 7)"
    assert repr(linearize(nn.Conv2d(1, 2, 3), torch.zeros(3, 1, 5, 7))[1]) == "LinearMap(b=3, 1x5x7 -> 2x3x5)"
    assert repr(linearize(Twice(), torch.zeros(3, 3))[1]).startswith("Graph[")
    assert repr(PullbackManifold(f).metric(z)) == "Implicit(dim=2, float32)"
    assert repr(DiscreteCurve(torch.zeros(3, 33, 2))) == "DiscreteCurve(3 curves, 32 segments, d=2)"
    assert repr(DiscreteCurve(torch.zeros(1, 5, 3))) == "DiscreteCurve(1 curve, 4 segments, d=3)"


@pytest.mark.parametrize("d", [1, 2, 3])
def test_notebooks_show_tables_and_pictures(d: int) -> None:
    z = torch.linspace(0, 1, 14 * d).reshape(14, d)
    manifold = PullbackManifold(nn.Sequential(nn.Linear(d, 5), nn.Tanh(), nn.Linear(5, 7)).requires_grad_(False))
    solution = manifold.geodesic(z, z.flip(0) + 1)
    table = ElementTree.fromstring(solution._repr_html_())
    assert len(table.findall("./table/tbody/tr")) == 12
    assert table.findall("./p")[-1].text == "… and 2 more"
    assert [cell.text for cell in table.findall("./table/thead/tr/th")][1] == "length"
    assert float(table.findall("./table/tbody/tr[3]/td")[1].text) == pytest.approx(float(solution.length[2]), rel=1e-5)
    picture = ElementTree.fromstring(solution.curve._repr_html_())
    assert len(picture.findall("./svg/polyline")) == 12
    assert repr(solution.curve) in picture.find("./p").text


def test_curves_that_are_nowhere_have_no_picture() -> None:
    for nodes in (torch.full((2, 5, 2), torch.nan), torch.zeros(0, 5, 2)):
        assert "svg" not in DiscreteCurve(nodes)._repr_html_()
    assert "svg" in CubicSpline.line(torch.zeros(1, 2), torch.ones(1, 2), segments=4)._repr_html_()
