"""Every figure: alone or as part of another one, printed or dark, told apart without colour."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from colorspacious import cspace_convert, deltaE
from plotly.subplots import make_subplots

from pullgeo import PullbackManifold, viz
from pullgeo.errors import OptionError, ShapeError
from pullgeo.viz.figures.canvas import DARK, DASHES, PRINT, Theme


def saddle(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z, z[:, :1] * z[:, 1:]], 1)


MANIFOLD = PullbackManifold(saddle)
Z = torch.randn(7, 2, generator=torch.Generator().manual_seed(3)).double()
SOLUTION = MANIFOLD.geodesic(Z[:3], Z[3:6])
LABELS = list("abcabca")

FIGURES: dict[str, Callable[..., go.Figure]] = {
    "layer_map": lambda **on: viz.layer_map(MANIFOLD, Z, resolution=5, **on),
    "latent_points": lambda **on: viz.latent_points(Z, LABELS, **on),
    "geodesics": lambda **on: viz.geodesics(SOLUTION, **on),
    "indicatrices": lambda **on: viz.indicatrices(MANIFOLD, Z, count=3, **on),
    "geodesic_fan": lambda **on: viz.geodesic_fan(MANIFOLD, [0, 0], 0.5, directions=5, balls=1, **on),
    "transported_frame": lambda **on: viz.transported_frame(MANIFOLD, SOLUTION, count=3, **on),
    "speed_profile": lambda **on: viz.speed_profile(MANIFOLD, SOLUTION, **on),
    "convergence": lambda **on: viz.convergence(SOLUTION, **on),
    "distance_matrix": lambda **on: viz.distance_matrix(torch.cdist(Z, Z), LABELS, **on),
    "distance_uncertainty": lambda **on: viz.distance_uncertainty(torch.rand(5, 3) + 1, **on),
    "embedded_surface": lambda **on: viz.embedded_surface(MANIFOLD, Z, SOLUTION, resolution=5, **on),
}
NAMES = pytest.mark.parametrize("name", FIGURES)


def test_every_figure_for_papers_is_tried_here():
    others = {
        "decoded_strip",
        "latent_map",
        "latent_report",
        "page",
        "pairs_table",
        "template",
        "explore",
        "distance_spread",
    }
    assert {n for n in viz.__all__ if n.islower()} - others - {"template"} == set(FIGURES)


@NAMES
@pytest.mark.parametrize("look", ["print", "dark"])
def test_alone_it_has_the_template_and_the_size_of_a_column(name: str, look: str):
    figure = FIGURES[name](look=look)
    assert type(figure) is go.Figure
    assert figure.layout.template.layout.paper_bgcolor == {"print": "#ffffff", "dark": DARK.paper}[look]
    # 90 mm are 340 pixels of 1/96 inch, and 11 of them 8.25 points
    assert figure.layout.width == 340
    assert figure.layout.template.layout.font.size == 11
    assert figure.data
    figure.to_json()


@NAMES
def test_in_a_subplot_it_touches_nothing_else(name: str):
    kind = {"type": "scene"} if name == "embedded_surface" else {"type": "xy"}
    figure = make_subplots(2, 2, specs=[[{}, {}], [{}, kind]])
    figure.add_scatter(x=[0, 1], y=[2, 3], row=1, col=1)
    figure.update_layout(title="mine", width=777, legend={"x": 0.25})
    before = figure.to_dict()
    drawn = FIGURES[name](figure=figure, row=2, col=2)
    assert drawn is figure
    after = figure.to_dict()
    assert after["data"][0] == before["data"][0]
    for key in ("title", "width", "legend", "xaxis", "yaxis", "xaxis2", "yaxis2", "xaxis3", "yaxis3", "template"):
        assert after["layout"].get(key) == before["layout"].get(key)
    places = {trace["scene" if "scene" in trace else "xaxis"] for trace in figure.data[1:]}
    assert places == {"scene" if name == "embedded_surface" else "x4"}


@NAMES
def test_on_a_figure_of_one_subplot_it_adds_to_it(name: str):
    if name == "embedded_surface":
        pytest.skip("a surface stands in a scene of its own")
    figure = viz.latent_points(Z)
    count = len(figure.data)
    assert FIGURES[name](figure=figure) is figure
    assert len(figure.data) > count


@NAMES
@pytest.mark.parametrize(
    ("on", "words"),
    [
        ({"look": "bright"}, "'print' or 'dark'"),
        ({"row": 1, "col": 1}, "not given"),
        ({"figure": {}}, "must be a plotly Figure"),
        ({"figure": make_subplots(1, 2), "row": 1}, "together"),
        ({"figure": make_subplots(1, 2), "row": 2, "col": 1}, "no subplot in row 2"),
        ({"figure": go.Figure(), "row": 1, "col": 1}, "make_subplots"),
        ({"figure": make_subplots(1, 2)}, "several subplots"),
        ({"figure": make_subplots(1, 1, specs=[[{"type": "domain"}]]), "row": 1, "col": 1}, "of the kind"),
    ],
)
def test_where_it_cannot_be_drawn_it_says_so(name: str, on: dict, words: str, without_type_checks: None):
    with pytest.raises(OptionError, match=words) as raised:
        FIGURES[name](**on)
    assert str(raised.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    "name",
    [
        "layer_map",
        "latent_points",
        "geodesics",
        "indicatrices",
        "geodesic_fan",
        "transported_frame",
        "embedded_surface",
    ],
)
def test_planes_of_another_latent_space_are_refused(name: str):
    with pytest.raises(ShapeError, match=f"{name}: plane lies in 3 dimensions"):
        FIGURES[name](plane=viz.Slice.of_dims(torch.zeros(4, 3)))


def test_a_map_and_a_scene_do_not_take_each_others_place():
    figure = make_subplots(1, 2, specs=[[{"type": "scene"}, {}]])
    with pytest.raises(OptionError, match="xy"):
        FIGURES["layer_map"](figure=figure, row=1, col=1)
    with pytest.raises(OptionError, match="scene"):
        FIGURES["embedded_surface"](figure=figure, row=1, col=2)


THEMES = pytest.mark.parametrize("theme", [PRINT, DARK], ids=["print", "dark"])
SIGHT = pytest.mark.parametrize("sight", ["normal", "protanomaly", "deuteranomaly", "tritanomaly"])


def seen(colours: tuple[str, ...], sight: str) -> np.ndarray:
    """What somebody sees, in sRGB, by the simulation of Machado, Oliveira and Fernandes (2009)."""
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    if sight == "normal":
        return rgb
    return np.clip(cspace_convert(rgb, {"name": "sRGB1+CVD", "cvd_type": sight, "severity": 100}, "sRGB1"), 0, 1)


def lightness(colours: tuple[str, ...], sight: str) -> np.ndarray:
    return cspace_convert(seen(colours, sight), "sRGB1", "CAM02-UCS")[:, 0]


@THEMES
@SIGHT
def test_colours_of_classes_differ_for_every_sight(theme: Theme, sight: str):
    rgb = seen(theme.classes, sight)
    for a, b in combinations(rgb, 2):
        assert deltaE(a, b, input_space="sRGB1", uniform_space="CAM02-UCS") > 5
    paper = seen((theme.paper,), sight)[0]
    assert min(deltaE(a, paper, input_space="sRGB1", uniform_space="CAM02-UCS") for a in rgb) > 15


@THEMES
@SIGHT
def test_a_scale_from_little_to_much_is_one_of_lightness_for_every_sight(theme: Theme, sight: str):
    steps = np.diff(lightness(theme.sequential, sight))
    steps = steps if theme is DARK else -steps
    assert (steps > 3).all()
    assert steps.max() < 3 * steps.min()


@THEMES
@SIGHT
def test_a_scale_with_two_ends_has_its_middle_at_the_ground_and_different_ends(theme: Theme, sight: str):
    levels = lightness(theme.diverging, sight)
    towards = levels if theme is PRINT else -levels
    assert (np.diff(towards[:4]) > 3).all()
    assert (np.diff(towards[3:]) < -3).all()
    low, high = seen((theme.diverging[0], theme.diverging[-1]), sight)
    assert deltaE(low, high, input_space="sRGB1", uniform_space="CAM02-UCS") > 20


@THEMES
def test_words_and_lines_stand_out_from_the_ground(theme: Theme):
    """WCAG: 4.5 for letters, 3 for graphical objects."""

    def luminance(colour: str) -> float:
        rgb = seen((colour,), "normal")[0]
        return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    def contrast(colour: str) -> float:
        one, other = sorted((luminance(colour), luminance(theme.paper)))
        return (other + 0.05) / (one + 0.05)

    assert contrast(theme.ink) > 7
    assert min(map(contrast, (theme.muted, theme.warning))) > 4.5
    assert min(map(contrast, theme.lines)) > 2.5


@THEMES
def test_nothing_is_told_apart_by_hue_alone(theme: Theme):
    marks = [theme.mark(k) for k in range(50)]
    assert len({(m["color"], m["symbol"]) for m in marks}) == 50
    for k in range(49):
        assert marks[k]["symbol"] != marks[k + 1]["symbol"]
    dashes = [theme.dash(k) for k in range(5)]
    assert len({d["dash"] for d in dashes}) == len({d["color"] for d in dashes}) == 5 == len(DASHES)
    assert len({tuple(theme.dash(k).values()) for k in range(25)}) == 25


def test_a_template_is_one_for_other_figures_too():
    figure = go.Figure(go.Scatter(x=[0], y=[1])).update_layout(template=viz.template())
    assert figure.layout.template.layout.plot_bgcolor == "#ffffff"
    with pytest.raises(OptionError, match="template: look"):
        viz.template("blue")
