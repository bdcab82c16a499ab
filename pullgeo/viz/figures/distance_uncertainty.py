"""How uncertain distances are, from those that several decoders give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from pullgeo.errors import OptionError, ShapeError
from pullgeo.viz.classes import visible
from pullgeo.viz.figures.canvas import Canvas, Look

_MANY = 40


def distance_uncertainty(
    distances: Any,
    names: Sequence[str] | None = None,
    *,
    level: float = 0.9,
    reference: Any = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """Median and interval of each pair's distance over the members of an ensemble, pairs ordered by their medians.

    Bars run between the quantiles ``(1 - level)/2`` and ``(1 + level)/2`` of the members; each member is a faint dot as
    long as there are at most 40. Members for which a distance is not known (NaN) do not count.

    Args:
        distances: ``(members, pairs)``, tensor or array.
        names: a name for each pair.
        level: the share of the members within a bar.
        reference: ``(pairs,)``, distances to compare with, such as Euclidean ones, drawn as crosses.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Returns:
        The figure; ``customdata`` of the medians holds the pairs' positions in the argument.

    Raises:
        ShapeError: distances, names or reference do not fit.
        OptionError: level or where to draw is invalid.

    Example:
        >>> import torch
        >>> from pullgeo import viz
        >>> figure = viz.distance_uncertainty(torch.tensor([[2.0, 1.0], [4.0, 1.5], [3.0, 2.0]]))
        >>> next(t for t in figure.data if t.name == "median").y
        array([1.5, 3. ])
    """
    where = "distance_uncertainty"
    canvas = Canvas(where, figure, row, col, look, height=240)
    values = _array(where, "distances", distances)
    if values.ndim != 2 or not values.size:
        raise ShapeError(f"{where}: distances must have shape (members, pairs), got {values.shape}.")
    members, pairs = values.shape
    if names is not None and len(names) != pairs:
        raise ShapeError(f"{where}: names must have one entry for each of the {pairs} pairs, got {len(names)}.")
    if not isinstance(level, int | float) or not 0 < level <= 1:
        raise OptionError(f"{where}: level must lie above 0 and be at most 1, got {level!r}.")
    other = None if reference is None else _array(where, "reference", reference)
    if other is not None and other.shape != (pairs,):
        raise ShapeError(f"{where}: reference must have shape ({pairs},), got {other.shape}.")
    known = np.isfinite(values).any(0)
    quantiles = np.full((3, pairs), np.nan)
    shares = [(1 - level) / 2, 0.5, (1 + level) / 2]
    quantiles[:, known] = np.nanquantile(np.where(np.isfinite(values), values, np.nan)[:, known], shares, axis=0)
    order = np.argsort(quantiles[1], kind="stable")
    low, middle, high = quantiles[:, order]
    x = np.arange(pairs)
    theme = canvas.theme
    shown = [f"pair {i}" for i in order] if names is None else [visible(names[i]) for i in order]
    if members <= _MANY:
        dots = values[:, order]
        canvas.add(
            go.Scatter(
                x=np.broadcast_to(x, dots.shape).ravel(),
                y=dots.ravel(),
                mode="markers",
                marker={"color": theme.muted, "size": 3, "opacity": 0.55},
                name="members",
                hoverinfo="skip",
            )
        )
    canvas.add(
        go.Scatter(
            x=x,
            y=middle,
            mode="markers",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": high - middle,
                "arrayminus": middle - low,
                "color": theme.ink,
                "thickness": 1.3,
                "width": 2.5,
            },
            marker={"color": theme.ink, "size": 6},
            customdata=order,
            text=shown,
            hovertemplate="%{text}<br>median %{y:.4g}<extra></extra>",
            name="median",
        )
    )
    if other is not None:
        cross = {
            "color": theme.lines[2],
            "symbol": "x-thin",
            "size": 7,
            "line": {"color": theme.lines[2], "width": 1.6},
        }
        canvas.add(go.Scatter(x=x, y=other[order], mode="markers", marker=cross, name="reference", hoverinfo="y"))
    few = names is not None and pairs <= 20
    ticks = {"tickvals": x, "ticktext": shown} if few else {"showticklabels": False, "ticks": ""}
    title = {} if few else {"title": {"text": f"{pairs} pairs, by median"}}
    canvas.axes(
        {**ticks, **title, "range": [-0.7, pairs - 0.3]},
        {"title": {"text": f"distance, {level:.0%} of {members} members"}, "rangemode": "tozero"},
    )
    canvas.legend(orientation="h", x=0, y=1.0, yanchor="bottom")
    return canvas.figure


def _array(where: str, name: str, given: Any) -> np.ndarray:
    array = given.numpy(force=True) if hasattr(given, "numpy") else np.asarray(given)
    if array.dtype.kind not in "fiu":
        raise ShapeError(f"{where}: {name} must hold numbers, got {array.dtype}.")
    return array.astype(np.float64)
