"""docs/limits.rst as it runs: what its comments say of the values is what they are."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pullgeo.geodesic import Status
from pullgeo.stats import Finding

PAGE = (Path(__file__).parents[2] / "docs" / "limits.rst").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The names that the page's blocks define, run in order."""
    names: dict[str, Any] = {"__name__": "page"}
    for margin, body in re.findall(r"^( *)\.\. code-block:: python\n\n((?: +.*\n|\n)+)", PAGE, re.MULTILINE):
        lines = body.splitlines()
        inside = [line[len(margin) + 3 :] for line in lines if not line.strip() or line.startswith(margin + " " * 3)]
        exec("\n".join(inside), names)
    return names


def test_kinks(page: dict[str, Any]) -> None:
    z0, z1 = page["z0"], page["z1"]
    for name, status, least, most in (("rough", Status.KINKED, 1e-3, 2e-2), ("smooth", Status.CONVERGED, 0, 1e-7)):
        solution = page[name].geodesic(z0, z1)
        relative = solution.error_estimate / solution.length.detach()
        assert bool(solution.converged.all())
        assert least <= relative.min().item() <= relative.max().item() <= most
        assert set(page[name].logarithm(z0, z1).status) == {status}


def test_flat_regions(page: dict[str, Any]) -> None:
    assert page["far"].status == (Status.DEGENERATE,)
    assert page["far"].length.tolist() == [0]
    away = torch.tensor([[5.0, 5.0]]), torch.tensor([[6.0, 7.0]])
    assert page["floored"].dist(*away).item() == pytest.approx(0.0224, abs=1e-4)


def test_clusters(page: dict[str, Any]) -> None:
    ends = page["clusters"][:1], page["clusters"][1:]
    assert page["careless"].dist(*ends).item() == pytest.approx(0.53, abs=5e-3)
    assert page["careful"].dist(*ends).item() == pytest.approx(1.58, abs=5e-3)


def test_a_hill_has_two_ways_around_and_one_over(page: dict[str, Any]) -> None:
    Newton, hill, a, b, over = (page[name] for name in ("Newton", "hill", "a", "b", "over"))
    thorough = hill.geodesic(a, b, Newton(search="thorough"))
    assert thorough.minima.tolist() == [2]
    for length in (thorough.length, hill.dist(a, b)):
        assert length.item() == pytest.approx(4.99, abs=5e-3)
    assert over.status == (Status.CONVERGED,)
    assert over.length.item() == pytest.approx(7.41, abs=5e-3)


def test_collapsed_latents(page: dict[str, Any]) -> None:
    collapsed, zero = page["collapsed"], torch.zeros(1, 2)
    assert collapsed.condition_number(zero).item() == torch.inf
    assert collapsed.dist(zero, torch.tensor([[0.0, 1.0]])).item() == 0
    assert collapsed.logarithm(zero, torch.ones(1, 2)).status == (Status.SINGULAR,)
    assert Finding.SINGULAR in page["diagnose"](collapsed, torch.randn(50, 2), pairs=8).findings


def test_precision_and_cost(page: dict[str, Any]) -> None:
    single, double = page["single"].length, page["double"].length
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert ((single - double).abs().max() / double.max()).item() < 1e-6
    assert sum(page["batches"]) / 4 == pytest.approx(568, rel=0.3)
