"""The table of pairs."""

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, Status
from pullgeo.errors import ShapeError
from pullgeo.testing.charts import StereographicSphere
from pullgeo.viz import pairs_table
from tests.viz.conftest import Scene


def column(table, name: str) -> list[str]:
    k = table.columns.index(name)
    return [row[k].text for row in table.rows]


def test_it_says_what_the_solution_says(flat_scene: Scene):
    solution = flat_scene.solution
    table = pairs_table(flat_scene.manifold, solution, ["p", "q", "r"])
    assert column(table, "pair") == ["p", "q", "r"]
    np.testing.assert_allclose([float(x) for x in column(table, "geodesic")], solution.length, atol=1e-4)
    np.testing.assert_allclose([float(x) for x in column(table, "± error estimate")], solution.error_estimate, rtol=0.5)
    assert column(table, "steps") == [str(n) for n in solution.iterations.tolist()]
    assert column(table, "status") == ["converged"] * 3


def test_straight_lines_are_measured():
    # through the south pole the straight line of the stereographic chart is the great circle itself
    manifold = PullbackManifold(StereographicSphere(2))
    z0, z1 = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double(), torch.tensor([[-0.5, 0.0], [0.0, 1.0]]).double()
    table = pairs_table(manifold, manifold.geodesic(z0, z1, Newton(segments=64)))
    assert column(table, "straight line")[0] == f"{2 * (np.arctan(1) + np.arctan(0.5)):.4f}"
    assert column(table, "shorter by")[0] in ("0.0 %", "-0.0 %")
    t = np.linspace(0, 1, 100_001)
    speed = 2 * np.sqrt(2) / (1 + (1 - t) ** 2 + t**2)
    chord = (speed[1:] + speed[:-1]).sum() / 2 / 100_000
    assert column(table, "straight line")[1] == f"{chord:.4f}"
    assert column(table, "shorter by")[1] == f"{100 * (1 - (np.pi / 2) / chord):.1f} %"


def test_what_did_not_converge_has_no_length(unfinished_scene: Scene):
    table = pairs_table(unfinished_scene.manifold, unfinished_scene.solution)
    assert column(table, "geodesic") == ["–", "0.0000", "–"]
    assert column(table, "shorter by") == ["–", "–", "–"]
    assert column(table, "status")[0] == Status.MAX_STEPS.value
    assert [row[-1].kind for row in table.rows] == ["bad", "good", "bad"]


def test_names_must_fit(flat_scene: Scene):
    with pytest.raises(ShapeError, match="pairs_table: names must have one entry"):
        pairs_table(flat_scene.manifold, flat_scene.solution, ["p"])
