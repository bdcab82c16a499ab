"""Decoders that are built to have each finding, and not the others."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import MetricManifold, Newton, PullbackManifold, Status, diagnose
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic import StraightLine
from pullgeo.manifold import Ensemble, Manifold, MeanAndDeviation
from pullgeo.stats import Diagnosis, Finding
from pullgeo.testing.charts import StereographicSphere


def normal(count: int = 199, spread: tuple[float, float] = (1.0, 1.0), seed: int = 0) -> Tensor:
    z = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z * torch.tensor(spread, dtype=torch.float64)


def clusters() -> Tensor:
    """Two of them, at x = -2.5 and x = 2.5."""
    side = torch.where(torch.arange(199) % 2 == 0, 2.5, -2.5)
    return normal(spread=(0.1, 0.1)) + torch.stack([side, 0 * side], 1)


def plane(z: Tensor) -> Tensor:
    return z @ torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], dtype=z.dtype)


def bowl(z: Tensor) -> Tensor:
    return torch.cat([z, z.square().sum(1, keepdim=True)], 1)


def gap(z: Tensor) -> Tensor:
    """Nothing changes for |x| < 1.2."""
    x, y = z.unbind(1)
    height = torch.nn.functional.softplus(20 * (x.abs() - 1.5)) / 20 * x.sign()
    return torch.stack([height, height * y], 1)


def ridge(z: Tensor) -> Tensor:
    """Expensive where the data are, at y = 0."""
    return torch.eye(2, dtype=z.dtype) * (1 + 20 * torch.exp(-z[:, 1].square() / 0.1))[:, None, None]


def spiral(z: Tensor) -> Tensor:
    return (2.5 * z[:, :1]).exp() * torch.cat([torch.cos(2 * z[:, 1:]), torch.sin(2 * z[:, 1:])], 1)


def growing(z: Tensor) -> Tensor:
    """A deviation that is small at both clusters, and large between them."""
    near = torch.exp(-(z[:, :1].abs() - 2.5).square() - z[:, 1:].square())
    return (1.01 - near).expand(-1, 3)


@dataclass(frozen=True)
class Case:
    manifold: Callable[[], Manifold]
    latents: Callable[[], Tensor]
    findings: set[Finding]
    solver: Newton | None = None


CASES = {
    "isometric": Case(lambda: PullbackManifold(plane), normal, {Finding.EUCLIDEAN}),
    "scaled": Case(lambda: PullbackManifold(lambda z: 7 * plane(z)), normal, {Finding.EUCLIDEAN}),
    "stretched": Case(lambda: PullbackManifold(lambda z: z * z.new_tensor([1, 3])), normal, {Finding.STRAIGHT}),
    "bowl": Case(lambda: PullbackManifold(bowl), normal, {Finding.SOUND}),
    "one step": Case(
        lambda: PullbackManifold(bowl), normal, {Finding.UNSOLVED}, Newton(max_steps=1, starts=(StraightLine(),))
    ),
    # geodesics through the gap are hard to find, and those that are found are straight
    "flat between clusters": Case(
        lambda: PullbackManifold(gap), clusters, {Finding.FLAT, Finding.UNSOLVED, Finding.STRAIGHT}
    ),
    "ridge at the data": Case(lambda: MetricManifold(ridge), lambda: normal(spread=(1, 0.02)), {Finding.OFF_DATA}),
    "ignored latent": Case(
        lambda: PullbackManifold(lambda z: torch.cat([z[:, :1], z[:, :1].square()], 1)),
        normal,
        {Finding.SINGULAR, Finding.STRAIGHT},
    ),
    "weak latent": Case(
        lambda: PullbackManifold(lambda z: z * z.new_tensor([1, 1e-4])),
        normal,
        {Finding.ILL_CONDITIONED, Finding.STRAIGHT},
    ),
    "kinked": Case(
        lambda: PullbackManifold(lambda z: torch.cat([bowl(z), torch.relu(z[:, :1] + z[:, 1:])], 1)),
        normal,
        {Finding.KINKED},
    ),
    "uneven": Case(lambda: PullbackManifold(spiral), normal, {Finding.UNEVEN, Finding.UNSOLVED}),
    "sure everywhere": Case(
        lambda: PullbackManifold(MeanAndDeviation(lambda z: bowl(z / 2), lambda z: 0.1 + 0 * bowl(z))),
        clusters,
        {Finding.CONFIDENT},
    ),
    "sure at the data": Case(
        lambda: PullbackManifold(MeanAndDeviation(lambda z: bowl(z / 2), growing)), clusters, {Finding.SOUND}
    ),
}


def examined(case: Case) -> Diagnosis:
    return diagnose(case.manifold(), case.latents(), pairs=31, solver=case.solver)


@pytest.mark.quick(5)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.heavy
def test_each_finding_is_found_where_it_is_and_nowhere_else(name: str) -> None:
    found = examined(CASES[name])
    assert set(found.findings) == CASES[name].findings, found


def test_every_finding_has_a_case() -> None:
    assert set().union(*(case.findings for case in CASES.values())) == set(Finding)


def test_what_is_measured_of_a_plane_is_known() -> None:
    found = diagnose(PullbackManifold(lambda z: 3 * plane(z)), normal(), pairs=17)
    assert found.converged == 1
    assert found.pairs == len(found.statuses) == 17
    for values, expected in ((found.line_ratio, 1), (found.stretch, 3), (found.condition, 1), (found.scale, 3)):
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert (found.rank_deficient, found.kinked, found.flat, found.deviation_ratio) == (0, 0, 0, None)
    assert found.curve_gap == pytest.approx(found.line_gap, rel=1e-6)


def test_gaps_count_distances_between_latents() -> None:
    """Two rows of points, one apart: what lies between them is 5 apart from both."""
    x = torch.arange(11, dtype=torch.float64)
    z = torch.cat([torch.stack([x, 0 * x], 1), torch.stack([x, 0 * x + 10], 1)])
    found = diagnose(PullbackManifold(plane), z, pairs=300)
    assert found.line_gap[2] == pytest.approx(5, abs=0.1)
    assert found.line_gap[0] == pytest.approx(0.5, abs=0.01)


def test_lines_of_a_chart_of_the_sphere_are_longer_than_great_circles_by_a_known_ratio() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    found = diagnose(PullbackManifold(StereographicSphere(2)), z, pairs=40)
    # from (1, 0) to (0, 1) is a quarter of the equator; the diameter is half a great circle
    t = (torch.arange(100000, dtype=torch.float64) + 0.5) / 100000
    line = float((2 * math.sqrt(2) / (1 + (1 - t).square() + t.square())).mean())
    assert found.line_ratio[2] == pytest.approx(line / (math.pi / 2), rel=1e-4)
    assert found.line_ratio[0] == pytest.approx(1, rel=1e-4)


class Gaussian(nn.Module):
    """Its deviation is 2 between the clusters and 1 at them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> td.Distribution:
        return td.Normal(self.net(z), 1 + (z[:, :1].abs() < 2).to(z.dtype).expand(-1, 5))


@pytest.mark.full
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.heavy
def test_modules_in_either_precision_and_distributions(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).to(dtype)
    z = clusters()
    for manifold in (PullbackManifold(net), PullbackManifold(net.forward), PullbackManifold(lambda z: net(z))):
        with torch.no_grad():
            found = diagnose(manifold, z.to(dtype).numpy(), pairs=5)
        assert found.converged == 1
        assert found.deviation_ratio is None
    for output in (None, "mean+std"):
        manifold = PullbackManifold(Gaussian(net), output=output)
        assert diagnose(manifold, z.to(dtype), pairs=5).deviation_ratio == pytest.approx(2)
    members = Ensemble([lambda z, s=s: bowl(z) * (1 + s * (z[:, :1].abs() < 2)) for s in (0, 1)])
    assert diagnose(PullbackManifold(members), z, pairs=5).deviation_ratio > 1e6


def test_the_same_generator_gives_the_same_pairs() -> None:
    def ask(seed: int) -> Diagnosis:
        return diagnose(PullbackManifold(bowl), normal(), pairs=7, generator=torch.Generator().manual_seed(seed))

    assert ask(1).rows == ask(1).rows
    assert ask(1).rows != ask(2).rows
    assert diagnose(PullbackManifold(bowl), normal(), pairs=7).rows == ask(0).rows


@pytest.mark.full
@pytest.mark.heavy
def test_it_tells() -> None:
    found = examined(CASES["flat between clusters"])
    text = repr(found)
    assert "Diagnosis of 31 pairs" in text
    assert "FLAT: the decoder is flat between clusters: distances there say nothing" in text
    assert Finding.FLAT.value in found.advice
    html = ElementTree.fromstring(found._repr_html_())
    assert len(html.findall("./div/table/tbody/tr")) == len(found.rows)
    assert "FLAT" in [entry.text for entry in html.findall("./ul/li/b")]
    missed = replace(found, statuses=(Status.MAX_STEPS,) * 31)
    assert "0% of 31 pairs, 31 MAX_STEPS" in repr(missed)


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_wrong_is_named() -> None:
    manifold = PullbackManifold(bowl)
    cases = [
        (lambda: diagnose(bowl, normal()), OptionError, "must be a pullgeo Manifold"),
        (lambda: diagnose(manifold, normal(), pairs=0), OptionError, "pairs must be a whole number"),
        (lambda: diagnose(manifold, normal(2)), OptionError, "at least 3 different points, got 2"),
        (lambda: diagnose(manifold, torch.zeros(9, 2)), OptionError, "got 1"),
        (lambda: diagnose(manifold, torch.zeros(9)), ShapeError, "must have shape"),
        (lambda: diagnose(manifold, normal(), generator=3), OptionError, "must be a torch.Generator"),
    ]
    for ask, error, words in cases:
        with pytest.raises(error, match=words):
            ask()
