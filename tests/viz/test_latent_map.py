"""The map shows what the manifold and the solution say."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from pullgeo import MetricManifold, PullbackManifold, Status
from pullgeo.errors import DtypeError, NonFiniteError, OptionError, ShapeError
from pullgeo.viz import latent_map
from tests.viz.conftest import Scene
from tests.viz.reading import trace, traces

VOLUME = "log √det G"
FAST = {"resolution": 7}


def log_volume(decoder: torch.nn.Module, z: np.ndarray, dtype: torch.dtype) -> float:
    """½ log det JᵀJ at one point, from the dense Jacobian."""
    J = torch.autograd.functional.jacobian(lambda x: decoder(x[None])[0], torch.as_tensor(z, dtype=dtype)).double()
    return float(torch.linalg.slogdet(J.T @ J).logabsdet / 2)


def pieces(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The curves of a trace, which rows of NaN divide."""
    points = np.stack([x, y], axis=1)
    gaps = np.flatnonzero(np.isnan(points).any(1))
    return [part[~np.isnan(part).any(1)] for part in np.split(points, gaps) if len(part) > 1]


@pytest.fixture(scope="module")
def figure(flat_scene: Scene) -> go.Figure:
    s = flat_scene
    return latent_map(s.manifold, s.z, s.labels, s.solution, names=["p", "q", "r"], resolution=11)


def test_it_is_a_plain_figure(figure: go.Figure):
    assert type(figure) is go.Figure


def test_the_background_is_the_log_volume(figure: go.Figure, flat_scene: Scene):
    heat = trace(figure, VOLUME)
    assert isinstance(heat, go.Heatmap)
    for row, column in [(0, 0), (3, 7), (len(heat.y) - 1, len(heat.x) - 1)]:
        expected = log_volume(flat_scene.manifold.decoder, [heat.x[column], heat.y[row]], torch.float64)
        assert math.isclose(heat.z[row][column], expected, rel_tol=1e-9)
    assert VOLUME in heat.colorbar.title.text


def test_the_background_covers_latents_and_curves_with_square_cells(figure: go.Figure, flat_scene: Scene):
    heat = trace(figure, VOLUME)
    cells = [np.diff(axis).mean() for axis in (heat.x, heat.y)]
    assert math.isclose(*cells, rel_tol=0.1)
    shown = torch.cat([flat_scene.z, flat_scene.solution.curve.nodes.flatten(0, 1)]).numpy()
    for k, (axis, cell) in enumerate(zip((heat.x, heat.y), cells, strict=True)):
        assert axis[0] - cell / 2 < shown[:, k].min()
        assert shown[:, k].max() < axis[-1] + cell / 2
        assert math.isclose(axis[0] - cell / 2, (figure.layout.xaxis, figure.layout.yaxis)[k].range[0], abs_tol=1e-9)


def test_both_axes_have_one_scale(figure: go.Figure):
    assert figure.layout.yaxis.scaleanchor == "x"
    assert figure.layout.yaxis.scaleratio == 1


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_latents_are_sorted_by_class(figure: go.Figure, flat_scene: Scene, name: str):
    dots = trace(figure, name)
    rows = np.flatnonzero(flat_scene.labels == name)
    np.testing.assert_array_equal(np.stack([dots.x, dots.y], 1), flat_scene.z[rows].numpy())
    np.testing.assert_array_equal(dots.customdata[:, 0], rows)
    expected = [log_volume(flat_scene.manifold.decoder, flat_scene.z[i], torch.float64) for i in rows]
    np.testing.assert_allclose(dots.customdata[:, 1], expected, rtol=1e-9)
    assert dots.showlegend is None
    assert f"class {name}" in dots.hovertemplate


def test_classes_have_their_own_colours(figure: go.Figure):
    assert len({trace(figure, name).marker.color for name in "abc"}) == 3


def test_without_labels_there_is_one_trace(flat_scene: Scene):
    dots = trace(latent_map(flat_scene.manifold, flat_scene.z, **FAST), "latents")
    np.testing.assert_array_equal(dots.x, flat_scene.z[:, 0].numpy())


def test_geodesics_are_the_curves_of_the_solution(figure: go.Figure, flat_scene: Scene):
    curves = pieces(trace(figure, "geodesic").x, trace(figure, "geodesic").y)
    assert len(curves) == 3
    for k, curve in enumerate(curves):
        t = torch.linspace(0, 1, len(curve), dtype=torch.float64)
        np.testing.assert_allclose(curve, flat_scene.solution.curve(t)[k].numpy(), atol=1e-12)
    assert not traces(figure, "not converged")


def test_straight_lines_join_the_same_ends(figure: go.Figure, flat_scene: Scene):
    lines = pieces(trace(figure, "straight line").x, trace(figure, "straight line").y)
    for k, line in enumerate(lines):
        ends = flat_scene.z[[k, k + 3]].numpy()
        np.testing.assert_allclose(line[[0, -1]], ends, atol=1e-12)
        np.testing.assert_allclose(line[len(line) // 2], ends.mean(0), atol=1e-12)
    assert trace(figure, "straight line").line.dash != trace(figure, "geodesic").line.dash


def test_the_pointer_reads_name_and_length(figure: go.Figure, flat_scene: Scene):
    text = trace(figure, "geodesic").text
    assert text[0] == f"geodesic<br>1: p: length {float(flat_scene.solution.length[0]):.4g}"
    assert len(text) == len(trace(figure, "geodesic").x)
    assert trace(figure, "number of a pair").text == ("1", "2", "3")


def test_what_did_not_converge_is_marked(unfinished_scene: Scene):
    s = unfinished_scene
    figure = latent_map(s.manifold, s.z, s.labels, s.solution, **FAST)
    bad = trace(figure, "not converged")
    assert len(pieces(bad.x, bad.y)) == 2
    assert len(pieces(trace(figure, "geodesic").x, trace(figure, "geodesic").y)) == 1
    assert bad.line.dash == "dash"
    assert bad.line.color != trace(figure, "geodesic").line.color
    assert Status.MAX_STEPS.value in bad.text[0]


def test_a_curve_and_its_casing_hide_together(figure: go.Figure):
    for name in ("geodesic", "straight line"):
        group = [t for t in figure.data if t.legendgroup == name]
        assert len(group) == 2
        assert [t.showlegend for t in group].count(False) == 1


def test_pictures_are_on_the_living_map(flat_scene: Scene):
    with pytest.warns(DeprecationWarning, match="image_shape has no effect any more; viz.explore"):
        latent_map(flat_scene.manifold, flat_scene.z, image_shape=(3, 5), **FAST)


def test_arrays_serve_like_tensors(deep_scene: Scene):
    as_array = deep_scene.z.double().numpy()
    first = latent_map(deep_scene.manifold, as_array, list(deep_scene.labels), **FAST)
    second = latent_map(deep_scene.manifold, deep_scene.z, deep_scene.labels, **FAST)
    assert first.to_json() == second.to_json()


def test_more_dimensions_are_shown_as_a_slice(deep_scene: Scene):
    s = deep_scene
    figure = latent_map(s.manifold, s.z, s.labels, s.solution, dims=(3, 1), **FAST)
    heat, at = trace(figure, VOLUME), s.z.mean(0).clone()
    at[3], at[1] = float(heat.x[4]), float(heat.y[2])
    assert math.isclose(heat.z[2][4], log_volume(s.manifold.decoder, at, torch.float32), rel_tol=1e-4)
    np.testing.assert_allclose(trace(figure, "a").x, s.z[::3, 3], rtol=1e-6)
    np.testing.assert_allclose(trace(figure, "a").y, s.z[::3, 1], rtol=1e-6)
    # a latent's own volume is that of the latent, not of its projection
    expected = log_volume(s.manifold.decoder, s.z[3], torch.float32)
    assert math.isclose(trace(figure, "a").customdata[1, 1], expected, rel_tol=1e-4)
    assert "slice" in figure.layout.title.subtitle.text
    assert "projected" in figure.layout.title.subtitle.text
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("z[3]", "z[1]")


def test_an_anchor_moves_the_slice(deep_scene: Scene):
    s, anchor = deep_scene, [0.5, -1.0, 2.0, 0.0, 1.0]
    heat = trace(latent_map(s.manifold, s.z, anchor=anchor, extent=((-1, 1), (-2, 2)), **FAST), VOLUME)
    at = torch.tensor([heat.x[1], heat.y[3], *anchor[2:]])
    assert math.isclose(heat.z[3][1], log_volume(s.manifold.decoder, at, torch.float32), rel_tol=1e-4)


def test_an_extent_is_obeyed(flat_scene: Scene):
    figure = latent_map(flat_scene.manifold, flat_scene.z, extent=((-1, 3), (0, 2)), resolution=8)
    heat = trace(figure, VOLUME)
    np.testing.assert_allclose(heat.x, -1 + 0.5 * (np.arange(8) + 0.5))
    np.testing.assert_allclose(heat.y, 0.5 * (np.arange(4) + 0.5))
    assert figure.layout.xaxis.range == (-1, 3)


def test_a_given_metric_has_a_map_too():
    def half_plane(z: torch.Tensor) -> torch.Tensor:
        return torch.eye(2, dtype=z.dtype) / z[:, 1].square()[:, None, None]

    manifold = MetricManifold(half_plane)
    z = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0]], dtype=torch.float64)
    heat = trace(latent_map(manifold, z, **FAST), VOLUME)
    np.testing.assert_allclose(heat.z, np.repeat(-2 * np.log(heat.y)[:, None], len(heat.x), axis=1), rtol=1e-9)


def test_places_where_the_metric_is_singular_stay_empty():
    class Fold(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return torch.stack([z[:, 0], z[:, 1].clamp(min=0)], dim=1)

    z = torch.tensor([[0.0, -1.0], [1.0, 1.0], [2.0, 1.0]])
    heat = trace(latent_map(PullbackManifold(Fold()), z, **FAST), VOLUME)
    np.testing.assert_array_equal(np.isnan(heat.z), np.repeat(heat.y[:, None] < 0, len(heat.x), axis=1))
    np.testing.assert_allclose(heat.z[heat.y > 0], 0, atol=1e-6)
    assert heat.zsmooth is False


def test_indicatrices_are_unit_balls_of_the_metric(deep_scene: Scene):
    s = deep_scene
    figure = latent_map(s.manifold, s.z, dims=(4, 2), indicatrices=3, **FAST)
    (rings,) = (t for t in figure.data if t.name.startswith("unit balls of G"))
    scale = float(rings.name.split("×")[1])
    curves = pieces(rings.x, rings.y)
    assert len(curves) in (3, 6, 9)
    for ring in curves:
        centre = ring[:-1].mean(0)
        z = s.z.mean(0).clone()
        z[[4, 2]] = torch.as_tensor(centre, dtype=torch.float32)
        J = torch.autograd.functional.jacobian(lambda x: s.manifold.decoder(x[None])[0], z)[:, [4, 2]].double().numpy()
        lengths = np.linalg.norm((ring - centre) / scale @ J.T, axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=5e-3)


def test_many_classes_differ_in_colour_or_symbol():
    z = torch.randn(50, 2)
    figure = latent_map(PullbackManifold(torch.nn.Linear(2, 3)), z, labels=torch.arange(50), **FAST)
    looks = {(t.marker.color, t.marker.symbol) for t in figure.data if t.type == "scatter"}
    assert len(looks) == 50


def test_markup_in_names_is_shown_as_text(flat_scene: Scene):
    labels = ["<b>x</b>"] * 12 + ["</script>"]
    s = flat_scene
    figure = latent_map(s.manifold, s.z, labels, s.solution, names=["<i>1</i>", "2", "3"], **FAST)
    assert traces(figure, "&lt;b&gt;x&lt;/b&gt;")
    assert "&lt;i&gt;1&lt;/i&gt;" in trace(figure, "geodesic").text[0]


def test_nothing_is_changed_or_drawn_at_random(flat_scene: Scene):
    z, state = flat_scene.z.clone(), torch.get_rng_state()
    arguments = (flat_scene.manifold, z, flat_scene.labels, flat_scene.solution)
    first, second = (latent_map(*arguments, **FAST).to_json() for _ in range(2))
    assert first == second
    assert torch.equal(z, flat_scene.z)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.usefixtures("without_type_checks")
class TestErrors:
    @pytest.mark.parametrize(
        ("change", "error", "words"),
        [
            ({"z": torch.zeros(3)}, ShapeError, r"z must have shape \(n, d\)"),
            ({"z": torch.zeros(3, 1)}, ShapeError, "latents of at least 2 dimensions"),
            ({"z": torch.full((3, 2), torch.nan)}, NonFiniteError, "rows of z hold NaN"),
            ({"z": [[0.0, 1.0]]}, DtypeError, "z must be a torch.Tensor"),
            ({"labels": [1, 2]}, ShapeError, r"labels must have shape \(13,\)"),
            ({"labels": np.zeros((13, 2))}, ShapeError, "argmax of one-hot"),
            ({"z": torch.zeros(60, 2), "labels": np.arange(60)}, OptionError, "60 different values"),
            ({"dims": (0, 0)}, OptionError, "dims must be two different"),
            ({"dims": (0, 2)}, OptionError, "dims must be two different whole numbers from 0 to 1"),
            ({"dims": 1}, OptionError, "dims must be"),
            ({"anchor": [0.0]}, ShapeError, "anchor must be one point"),
            ({"anchor": [0.0, torch.inf]}, NonFiniteError, "anchor holds NaN"),
            ({"extent": ((0, 1), (1, 1))}, OptionError, "extent must be"),
            ({"extent": 3}, OptionError, "extent must be"),
            ({"resolution": 0}, OptionError, "resolution must be a whole number of at least 1"),
            ({"indicatrices": -1}, OptionError, "indicatrices must be"),
        ],
    )
    def test_arguments(self, flat_scene: Scene, change: dict, error: type[Exception], words: str):
        with pytest.raises(error, match=f"latent_map: .*{words}"):
            latent_map(**{"manifold": flat_scene.manifold, "z": flat_scene.z.float(), **FAST, **change})

    def test_a_solution_of_another_space(self, flat_scene: Scene, deep_scene: Scene):
        with pytest.raises(ShapeError, match="curves have 5 coordinates and the latents 2"):
            latent_map(flat_scene.manifold, flat_scene.z, None, deep_scene.solution, **FAST)

    def test_names(self, flat_scene: Scene):
        with pytest.raises(ShapeError, match="one entry for each of the 3 pairs, got 1"):
            latent_map(flat_scene.manifold, flat_scene.z, None, flat_scene.solution, names=["x"], **FAST)

    def test_a_decoder_that_is_not_finite_beside_the_latents(self):
        class Root(torch.nn.Module):
            def forward(self, z: torch.Tensor) -> torch.Tensor:
                return torch.cat([z.sqrt(), z], dim=1)

        z = torch.tensor([[0.01, 0.01], [1.0, 2.0], [2.0, 1.0]])
        with pytest.raises(NonFiniteError, match=r"extent=.*NaN or infinity at \d+ of \d+ latents"):
            latent_map(PullbackManifold(Root()), z, resolution=40)
        assert latent_map(PullbackManifold(Root()), z, extent=((0.01, 2), (0.01, 2)), **FAST).data
