"""What lies along geodesics and along straight lines, decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float64, UInt8

from pullgeo.errors import OptionError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.lengths import cumulative_lengths, curve_points, straight_lines
from pullgeo.viz.batches import at_home, evaluated
from pullgeo.viz.classes import visible
from pullgeo.viz.pairs import chosen_pairs, converged_mask, pair_names
from pullgeo.viz.pictures import Pictures, pictures_of
from pullgeo.viz.png import data_uri
from pullgeo.viz.style import INK, MUTED, WARNING, styled

# Chords between neighbouring pictures, so that the lengths shown are right to their last digit.
_CHORDS = 32
# All in units of a picture's width.
_GAP, _CAPTION, _HEADING, _BETWEEN, _LABEL = 0.08, 0.30, 0.42, 0.30, 1.55
_PIXELS_PER_UNIT = 96
# Browsers smooth small pictures when they enlarge them; enough pixels keep the decoder's own visible.
_LEAST_SIDE = 96


@dataclass(frozen=True, eq=False)
class _Row:
    """One row of pictures: a curve's name, its pictures, and the length up to each of them."""

    name: str
    colour: str
    pictures: UInt8[np.ndarray, "steps height width channels"]
    lengths: Float64[np.ndarray, " steps"]


def decoded_strip(
    manifold: Manifold,
    solution: Solution,
    *,
    image_shape: tuple[int, ...] | None = None,
    steps: int = 9,
    pairs: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> go.Figure:
    """Pictures along each geodesic and along the straight line between its ends, two rows for each pair.

    Both rows are at equal steps of the parameter: along a geodesic these are equal steps of length too, along a
    straight line some steps hardly change the picture and others change it much. Under each picture stands the length
    from the start, in ambient units, as the sum of 32 chords for each step. A curve that did not converge is red and
    named so.

    Args:
        manifold: the latent space of a decoder that returns pictures.
        solution: the geodesics.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` of what the decoder returns; outputs of such
            a shape need not be told.
        steps: the number of pictures along each curve, both ends included; at least 2.
        pairs: which pairs of the solution; all of them if ``None``.
        names: a name for each pair of the solution.

    Returns:
        A figure with one picture in ``layout.images`` for each point shown, pair by pair, the geodesic's row first.

    Raises:
        OptionError: the decoder returns no pictures and ``image_shape`` does not say how to see them so; or steps,
            pairs or image_shape is invalid.
        ShapeError: image_shape or names do not fit.
        NonFiniteError: the decoder returned NaN or infinity on a curve.

    Cost: ``32 · steps`` decodings for each curve.

    Example:
        >>> from pullgeo import PullbackManifold, viz
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 15), torch.nn.Sigmoid())
        >>> manifold = PullbackManifold(decoder)
        >>> solution = manifold.geodesic(torch.zeros(1, 2), torch.ones(1, 2))
        >>> len(viz.decoded_strip(manifold, solution, image_shape=(3, 5), steps=7).layout.images)
        14
    """
    where = "decoded_strip"
    if not isinstance(steps, int) or steps < 2:
        raise OptionError(f"{where}: steps must be a whole number of at least 2, got {steps!r}.")
    check_manifold(where, manifold)
    manifold = evaluated(manifold)
    chosen = chosen_pairs(where, solution, pairs)
    named = pair_names(where, solution, names)
    fine = (steps - 1) * _CHORDS + 1
    curves = torch.stack([curve_points(solution, fine), straight_lines(solution, fine)], dim=1)[chosen]
    pictures = pictures_of(where, manifold, curves[:, :, ::_CHORDS].flatten(0, 2), image_shape)
    if pictures is None:
        raise OptionError(
            f"{where}: the decoder does not return pictures. If its output is one, flattened, say of which shape: "
            "image_shape=(height, width) or (channels, height, width)."
        )
    rows = [
        _rows(manifold, pictures, pair, bool(good))
        for pair, good in zip(curves, converged_mask(solution)[chosen], strict=True)
    ]
    headings = [
        _heading(solution, i, named[i], float(line.lengths[-1])) for i, (_, line) in zip(chosen, rows, strict=True)
    ]
    return _draw(rows, headings, steps, pictures.shape[1] / pictures.shape[2])


def _rows(manifold: Manifold, pictures: Pictures, pair: torch.Tensor, converged: bool) -> tuple[_Row, _Row]:
    lengths = cumulative_lengths(manifold, pair)[:, ::_CHORDS].numpy(force=True)
    shown = [pictures(at_home(manifold, curve)) for curve in pair[:, ::_CHORDS]]
    geodesic = ("geodesic", INK) if converged else ("not converged", WARNING)
    return _Row(*geodesic, shown[0], lengths[0]), _Row("straight line", MUTED, shown[1], lengths[1])


def _heading(solution: Solution, i: int, name: str, straight: float) -> str:
    found = f"geodesic {float(solution.length[i].detach()):.4g}"
    if not solution.status[i].converged:
        found = visible(solution.status[i].value)
    return f"<b>{visible(name)}</b>&nbsp;&nbsp; {found}, straight line {straight:.4g}"


def _draw(rows: list[tuple[_Row, _Row]], headings: list[str], steps: int, aspect: float) -> go.Figure:
    """Lay everything out on one pair of axes whose unit is the width of a picture; y grows downwards."""
    figure = go.Figure()
    images: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    y = 0.0
    for (geodesic, line), heading in zip(rows, headings, strict=True):
        notes.append(_note(-_LABEL, y + _HEADING / 2, heading, INK, 13))
        y += _HEADING
        for row in (geodesic, line):
            notes.append(_note(-_LABEL, y + aspect / 2, row.name, row.colour, 12))
            images += [_image(picture, k * (1 + _GAP), y, aspect) for k, picture in enumerate(row.pictures)]
            figure.add_trace(_captions(row, heading, y + aspect, aspect))
            y += aspect + _CAPTION
        y += _BETWEEN
    width, height = _LABEL + steps * (1 + _GAP), y - _BETWEEN
    hidden = {"visible": False, "fixedrange": True, "constrain": "domain", "constraintoward": "left"}
    return styled(
        figure,
        images=images,
        annotations=notes,
        showlegend=False,
        xaxis=hidden | {"range": [-_LABEL, width - _LABEL]},
        yaxis=hidden | {"range": [height, 0], "constraintoward": "top", "scaleanchor": "x", "scaleratio": 1},
        height=round(height * _PIXELS_PER_UNIT) + 16,
        margin={"l": 0, "r": 0, "t": 8, "b": 8},
    )


def _captions(row: _Row, heading: str, y: float, aspect: float) -> go.Scatter:
    """The lengths under the pictures, and invisible marks on them that the pointer meets."""
    n = len(row.lengths)
    x = np.arange(n) * (1 + _GAP) + 0.5
    total = row.lengths[-1]
    return go.Scatter(
        x=np.tile(x, 2),
        y=np.repeat([y + _CAPTION * 0.45, y - aspect / 2], n),
        mode="text+markers",
        name=row.name,
        text=[f"{length:.3g}" for length in row.lengths] + [""] * n,
        textfont={"size": 11, "color": MUTED},
        marker={"size": 40, "opacity": 0, "symbol": "square"},
        customdata=np.tile(np.stack([row.lengths, np.linspace(0, 1, n)], axis=1), (2, 1)),
        hovertemplate=(
            f"{heading}<br>{row.name}, t = %{{customdata[1]:.3f}}<br>"
            f"length so far %{{customdata[0]:.4g}} of {total:.4g}<extra></extra>"
        ),
    )


def _image(picture: UInt8[np.ndarray, "height width channels"], x: float, y: float, aspect: float) -> dict[str, Any]:
    times = max(1, -(-_LEAST_SIDE // max(picture.shape[:2])))
    large = picture.repeat(times, axis=0).repeat(times, axis=1)
    place = {"xref": "x", "yref": "y", "x": x, "y": y, "sizex": 1, "sizey": aspect}
    return place | {"source": data_uri(large), "sizing": "stretch", "layer": "below"}


def _note(x: float, y: float, text: str, colour: str, size: int) -> dict[str, Any]:
    place = {"x": x, "y": y, "xref": "x", "yref": "y", "xanchor": "left", "yanchor": "middle"}
    return place | {"text": text, "showarrow": False, "font": {"size": size, "color": colour}}
