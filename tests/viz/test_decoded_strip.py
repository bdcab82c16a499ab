"""Strips show what is decoded along the curves, and how far it is."""

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from pullgeo import Status
from pullgeo.errors import OptionError, ShapeError
from pullgeo.viz import decoded_strip
from tests.viz.conftest import Scene
from tests.viz.reading import pixels

STEPS = 5


@pytest.fixture(scope="module")
def figure(flat_scene: Scene) -> go.Figure:
    return decoded_strip(
        flat_scene.manifold, flat_scene.solution, image_shape=(3, 5), steps=STEPS, names=["p", "q", "r"]
    )


def points_along(scene: Scene, pair: int, straight: bool, t: torch.Tensor) -> torch.Tensor:
    a, b = scene.solution.curve.nodes[pair, [0, -1]]
    return a + t[:, None] * (b - a) if straight else scene.solution.curve(t)[pair]


def polygon(scene: Scene, z: torch.Tensor) -> np.ndarray:
    y = scene.manifold.decoder(z).numpy()
    return np.concatenate([[0], np.linalg.norm(np.diff(y, axis=0), axis=1).cumsum()])


def test_there_are_two_rows_of_pictures_for_each_pair(figure: go.Figure):
    assert len(figure.layout.images) == 3 * 2 * STEPS
    assert [t.name for t in figure.data] == ["geodesic", "straight line"] * 3


@pytest.mark.parametrize("pair", [0, 2])
@pytest.mark.parametrize("straight", [False, True])
def test_pictures_are_what_is_decoded(figure: go.Figure, flat_scene: Scene, pair: int, straight: bool):
    t = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    decoded = flat_scene.manifold.decoder(points_along(flat_scene, pair, straight, t)).reshape(-1, 3, 5)
    first = (2 * pair + straight) * STEPS
    for image, expected in zip(figure.layout.images[first : first + STEPS], decoded, strict=True):
        shown = pixels(image.source)
        times = shown.shape[1] // 5
        assert shown.shape == (3 * times, 5 * times)
        np.testing.assert_array_equal(shown[::times, ::times], (expected * 255).round())
        np.testing.assert_array_equal(shown, shown[::times, ::times].repeat(times, 0).repeat(times, 1))


@pytest.mark.parametrize("pair", [0, 2])
@pytest.mark.parametrize("straight", [False, True])
def test_lengths_are_those_of_the_decoded_curve(figure: go.Figure, flat_scene: Scene, pair: int, straight: bool):
    t = torch.linspace(0, 1, 4000 * (STEPS - 1) + 1, dtype=torch.float64)
    expected = polygon(flat_scene, points_along(flat_scene, pair, straight, t))[::4000]
    row = figure.data[2 * pair + straight]
    np.testing.assert_allclose(row.customdata[:STEPS, 0], expected, rtol=1e-3)
    assert row.text[:STEPS] == tuple(f"{length:.3g}" for length in row.customdata[:STEPS, 0])
    if straight:
        assert row.customdata[STEPS - 1, 0] > float(flat_scene.solution.length[pair])


def test_pictures_stand_in_rows_and_do_not_overlap(figure: go.Figure):
    boxes = {(image.x, image.y): (image.sizex, image.sizey) for image in figure.layout.images}
    assert len(boxes) == len(figure.layout.images)
    assert set(boxes.values()) == {(1, 3 / 5)}
    columns, rows = (sorted({place[k] for place in boxes}) for k in (0, 1))
    assert len(columns) == STEPS
    assert min(np.diff(columns)) > 1
    assert len(rows) == 6
    assert min(np.diff(rows)) > 3 / 5
    low, high = figure.layout.yaxis.range[::-1]
    assert low <= rows[0]
    assert rows[-1] + 3 / 5 <= high
    assert figure.layout.yaxis.scaleanchor == "x"


def test_headings_name_pairs_and_lengths(figure: go.Figure, flat_scene: Scene):
    words = " ".join(note.text for note in figure.layout.annotations)
    for number, name in enumerate("pqr"):
        assert f"{number + 1}: {name}" in words
        assert f"geodesic {float(flat_scene.solution.length[number]):.4g}" in words


def test_chosen_pairs_keep_their_numbers(flat_scene: Scene):
    figure = decoded_strip(flat_scene.manifold, flat_scene.solution, image_shape=(3, 5), steps=2, pairs=[2])
    assert len(figure.layout.images) == 4
    assert "pair 3" in figure.layout.annotations[0].text


def test_what_did_not_converge_is_named(unfinished_scene: Scene):
    s = unfinished_scene
    figure = decoded_strip(s.manifold, s.solution, image_shape=(3, 5), steps=3)
    assert [t.name for t in figure.data[::2]] == ["not converged", "geodesic", "not converged"]
    assert Status.MAX_STEPS.value in figure.layout.annotations[0].text
    np.testing.assert_array_equal(figure.data[2].customdata[:, 0], 0)


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image_shape": None}, OptionError, r"does not return pictures.*image_shape=\(height, width\)"),
        ({"image_shape": (4, 5)}, ShapeError, "20 entries and the decoder returns 15"),
        ({"steps": 1}, OptionError, "steps must be a whole number of at least 2, got 1"),
        ({"pairs": [3]}, OptionError, "pairs must be whole numbers from 0 to 2"),
        ({"pairs": []}, OptionError, "at least one"),
        ({"names": ["a"]}, ShapeError, "one entry for each of the 3 pairs, got 1"),
    ],
)
def test_errors(flat_scene: Scene, change: dict, error: type[Exception], words: str):
    with pytest.raises(error, match=f"decoded_strip: .*{words}"):
        decoded_strip(flat_scene.manifold, flat_scene.solution, **{"image_shape": (3, 5), **change})
