"""All distances between points, ordered by class."""

from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from pullgeo.errors import ShapeError
from pullgeo.viz.classes import Labels, classes_of, visible
from pullgeo.viz.figures.canvas import Canvas, Look, colorscale

_MARGIN = 0.035

Span = tuple[float | int, float | int]


def distance_matrix(
    distances: Any,
    labels: Labels | None = None,
    *,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """A matrix of distances, its points ordered by class and within a class by what is near, classes in the margins.

    Within a class, neighbours in the order of an average-linkage tree stand side by side. Distances that are not known
    (NaN) stay empty. Classes have names beside their margins, so that no colour need be told from another.

    Args:
        distances: ``(n, n)``, symmetric, such as `pairwise_distances` returns; tensor or array.
        labels: the class of each point, ``(n,)``; one class if ``None``.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Returns:
        The figure; the heat map's ``customdata`` holds the rows of ``distances`` that stand in each cell.

    Raises:
        ShapeError: ``distances`` is not a symmetric square matrix of numbers that are not negative, or labels do not
            fit.
        OptionError: there are too many classes, or where to draw is invalid.

    Example:
        >>> import torch
        >>> from pullgeo import viz
        >>> z = torch.tensor([[0.0], [10.0], [1.0], [12.0]])
        >>> figure = viz.distance_matrix(torch.cdist(z, z), ["a", "b", "a", "b"])
        >>> figure.data[0].customdata[0, :, 0].tolist()
        [0, 2, 1, 3]
    """
    where = "distance_matrix"
    canvas = Canvas(where, figure, row, col, look, width=340, height=300)
    matrix = _checked(where, distances)
    n = len(matrix)
    classes = classes_of(where, ["points"] * n if labels is None else labels, n)
    order = np.concatenate([_ordered(matrix, np.flatnonzero(classes.index == k)) for k in range(len(classes.names))])
    names = np.array([visible(name) for name in classes.names])[classes.index[order]]
    cells = np.stack([np.broadcast_to(order, (n, n)), np.broadcast_to(order[:, None], (n, n))], axis=-1)
    canvas.add(
        go.Heatmap(
            z=matrix[np.ix_(order, order)],
            x0=0.5,
            dx=1,
            y0=0.5,
            dy=1,
            customdata=cells,
            colorscale=colorscale(canvas.theme.sequential),
            hovertemplate="rows %{customdata[0]} and %{customdata[1]}<br>distance %{z:.4g}<extra></extra>",
            colorbar=canvas.colorbar("distance"),
            name="distance",
        )
    )
    if labels is None:
        canvas.axes({"range": [0, n], "visible": False}, {"range": [n, 0], "visible": False}, equal=True)
        return canvas.figure
    width = max(1.0, _MARGIN * n)
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), n]
    for k, (low, high) in enumerate(pairwise(edges)):
        fill = canvas.theme.mark(k)["color"]
        for x, y in (((low, high), (-width, 0)), ((-width, 0), (low, high))):
            canvas.add(_block(x, y, fill, canvas.theme.paper, str(names[low])))
    inner = edges[1:-1]
    lines = {"color": canvas.theme.paper, "width": 1}
    gaps = [[(e, 0), (e, n)] for e in inner] + [[(0, e), (n, e)] for e in inner]
    if gaps:
        corners = np.concatenate([np.array(gaps, float), np.full((len(gaps), 1, 2), np.nan)], 1).reshape(-1, 2)
        canvas.add(
            go.Scatter(x=corners[:, 0], y=corners[:, 1], mode="lines", line=lines, hoverinfo="skip", showlegend=False)
        )
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    ticks = {"tickvals": middles, "ticktext": [str(names[low]) for low in edges[:-1]], "ticks": "", "showline": False}
    canvas.axes({**ticks, "range": [-width, n], "side": "top"}, {**ticks, "range": [n, -width]}, equal=True)
    return canvas.figure


def _block(x: Span, y: Span, fill: str, rim: str, name: str) -> go.Scatter:
    return go.Scatter(
        x=[x[0], x[1], x[1], x[0], x[0]],
        y=[y[0], y[0], y[1], y[1], y[0]],
        mode="lines",
        fill="toself",
        fillcolor=fill,
        line={"color": rim, "width": 1},
        name=name,
        hoverinfo="name",
        hoveron="fills",
        showlegend=False,
    )


def _checked(where: str, distances: Any) -> np.ndarray:
    given = distances.numpy(force=True) if hasattr(distances, "numpy") else np.asarray(distances)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not len(given) or given.dtype.kind not in "fiu":
        raise ShapeError(f"{where}: expected a square matrix of numbers, got {given.dtype} of shape {given.shape}.")
    matrix = given.astype(np.float64)
    scale = np.nanmax(np.abs(matrix), initial=0.0)
    if not np.allclose(matrix, matrix.T, rtol=0, atol=1e-5 * scale, equal_nan=True) or (matrix < 0).any():
        raise ShapeError(f"{where}: distances must be symmetric and not negative; is this another matrix?")
    return matrix


def _ordered(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of one class, near ones side by side."""
    if len(rows) < 3:
        return rows
    part = matrix[np.ix_(rows, rows)].copy()
    # a distance that is not known is no reason to stand apart, nor together
    known = part[np.isfinite(part)]
    part[~np.isfinite(part)] = known.mean() if len(known) else 1.0
    part = (part + part.T) / 2
    np.fill_diagonal(part, 0)
    return rows[leaves_list(linkage(squareform(part, checks=False), "average", optimal_ordering=len(rows) <= 300))]
