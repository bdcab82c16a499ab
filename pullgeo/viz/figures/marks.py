"""Latents and geodesics on maps."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from pullgeo.geodesic.solution import Solution
from pullgeo.stats.lengths import curve_points, straight_lines
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.classes import Labels, classes_of, visible
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas, Look
from pullgeo.viz.figures.plane import plane_axes, plane_of, polylines
from pullgeo.viz.pairs import converged_mask

_STEPS = 101


def latent_points(
    z: Points,
    labels: Labels | None = None,
    *,
    plane: Slice | None = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """Latents by class, each class with a colour and a symbol of its own.

    Args:
        z: latents ``(n, d)``.
        labels: the class of each latent, ``(n,)``; at most 50 classes.
        plane: what they are projected onto; the first two dimensions if ``None``.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``, or labels do not fit.
        OptionError: there are too many classes, or where to draw is invalid.

    Example:
        >>> import torch
        >>> from pullgeo import viz
        >>> [trace.name for trace in viz.latent_points(torch.randn(5, 2), list("abaab")).data]
        ['a', 'b']
    """
    where = "latent_points"
    canvas = Canvas(where, figure, row, col, look)
    points = as_points(where, z).double()
    shown = plane_of(where, plane, points)
    xy = shown.project(points)
    groups: list[tuple[str, np.ndarray, dict[str, Any]]]
    groups = [("latents", np.arange(len(xy)), {"color": canvas.theme.muted, "symbol": "circle"})]
    if labels is not None:
        classes = classes_of(where, labels, len(xy))
        groups = [
            (visible(name), np.flatnonzero(classes.index == k), canvas.theme.mark(k))
            for k, name in enumerate(classes.names)
        ]
    size = 5 if len(xy) < 500 else 3.5
    for name, rows, mark in groups:
        rim = {"color": canvas.theme.paper, "width": 0.5}
        canvas.add(
            go.Scatter(
                x=xy[rows, 0],
                y=xy[rows, 1],
                mode="markers",
                name=name,
                legendgroup=f"class {name}",
                marker={**mark, "size": size, "line": rim},
                customdata=rows,
                hovertemplate=f"{name}, row %{{customdata}}<extra></extra>",
            )
        )
    plane_axes(canvas, shown, None)
    return canvas.figure


def geodesics(
    solution: Solution,
    *,
    straight: bool = True,
    plane: Slice | None = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """Geodesics, solid, beside the straight lines between the same ends, dotted; what did not converge is dashed.

    Args:
        solution: the curves.
        straight: whether straight lines are drawn.
        plane: what they are projected onto; the first two dimensions if ``None``.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Raises:
        OptionError: where to draw is invalid.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> solution = PullbackManifold(torch.nn.Linear(2, 3)).geodesic(torch.zeros(3, 2), torch.randn(3, 2))
        >>> [trace.name for trace in viz.geodesics(solution).data if trace.name]
        ['straight line', 'geodesic', 'ends']
    """
    canvas = Canvas("geodesics", figure, row, col, look)
    nodes = curve_points(solution, _STEPS).double()
    shown = plane_of("geodesics", plane, nodes[:, 0])
    curves, lines = shown.project(nodes), shown.project(straight_lines(solution, 2).double())
    good, ink = converged_mask(solution), canvas.theme.ink
    kinds: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("straight line", lines, np.full(len(good), straight), {"color": ink, "width": 1, "dash": "1.5px,2px"}),
        ("geodesic", curves, good, {"color": ink, "width": 1.6}),
        ("not converged", curves, ~good, {"color": canvas.theme.warning, "width": 1.6, "dash": "5px,3px"}),
    ]
    for name, points, which, line in kinds:
        if which.any():
            # a casing keeps a line readable on every ground
            casing = {"color": canvas.theme.paper, "width": line["width"] + 1.8}
            drawn = points[which]
            canvas.add(
                polylines(drawn, line=casing, opacity=0.7, hoverinfo="skip", showlegend=False, legendgroup=name),
                polylines(drawn, line=line, name=name, hoverinfo="name", legendgroup=name),
            )
    ends = curves[:, [0, -1]].reshape(-1, 2)
    marker = {"size": 5, "color": canvas.theme.paper, "line": {"color": ink, "width": 1.2}}
    canvas.add(go.Scatter(x=ends[:, 0], y=ends[:, 1], mode="markers", name="ends", marker=marker, hoverinfo="skip"))
    plane_axes(canvas, shown, None)
    return canvas.figure
