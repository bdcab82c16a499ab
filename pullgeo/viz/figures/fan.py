"""Geodesics that leave a point, and its balls."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.frame import Frame
from pullgeo.metric.structured import Dense
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_manifold
from pullgeo.viz.batches import at_home
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas, Look
from pullgeo.viz.figures.plane import extent_around, plane_axes, plane_of, polylines

_STEPS = 8
"""From one rim to the next."""


@with_progress()
def geodesic_fan(
    manifold: Manifold,
    point: Any,
    radius: float,
    *,
    directions: int = 24,
    balls: int = 4,
    plane: Slice | None = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
    progress: bool = False,
) -> go.Figure:
    """Geodesics that leave a point at equal angles, and the points at equal lengths along them.

    Angles are those of the metric at the point, so that equal wedges hold equal shares of directions. The rims are
    ``exp_x(r u)`` over unit tangents u: the balls of distance r, as far as geodesics are still shortest. A geodesic
    that leaves the region where the metric is regular is left out, with a gap in the rims.

    Args:
        manifold: the latent space.
        point: ``(d,)``, where they begin.
        radius: their length, in ambient units.
        directions: how many.
        balls: how many rims, at equal steps of length up to ``radius``.
        plane: whose directions they take at the point if d > 2, and onto which they are projected; that of the first
            two dimensions if ``None``.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.
        progress: show a progress bar, counting steps.

    Raises:
        ShapeError: ``point`` does not have two or more coordinates.
        OptionError: radius, directions, balls, or where to draw is invalid.
        SingularMetricError, NonFiniteError: the metric at the point is singular or not finite.
        GeometryError: the metric jumps, so that geodesics have no equation.

    Cost: ``8 · balls · directions`` short exponentials.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> figure = viz.geodesic_fan(PullbackManifold(torch.nn.Linear(2, 3)), [0, 0], 1.0, directions=6)
        >>> [trace.name for trace in figure.data]
        ['geodesics', 'rims at steps of 0.25', 'centre']
    """
    where = "geodesic_fan"
    canvas = Canvas(where, figure, row, col, look)
    check_manifold(where, manifold)
    centre = torch.as_tensor(point).detach().double()
    if centre.ndim != 1 or len(centre) < 2:
        raise ShapeError(f"{where}: point must have shape (d,) with d at least 2, got {tuple(centre.shape)}.")
    if not isinstance(radius, int | float) or not 0 < radius < float("inf"):
        raise OptionError(f"{where}: radius must be positive and finite, got {radius!r}.")
    for name, value, least in (("directions", directions, 3), ("balls", balls, 1)):
        if not isinstance(value, int) or value < least:
            raise OptionError(f"{where}: {name} must be a whole number of at least {least}, got {value!r}.")
    shown = plane_of(where, plane, centre[None], centre)
    double = manifold.in_double()
    centre = at_home(double, centre[None])[0]
    with torch.no_grad():
        axes = shown.axes.to(centre)
        tangents = unit_tangents(double.metric_matrix(centre[None])[0], axes, directions)
        curves = _shot(double, centre.expand(directions, -1), radius * tangents, _STEPS * balls)
    xy = shown.project(curves)
    closed = np.concatenate([xy, xy[:1]])[:, _STEPS::_STEPS].swapaxes(0, 1)
    ink = canvas.theme.ink
    rims = f"rims at steps of {radius / balls:.3g}"
    canvas.add(
        polylines(xy, line={"color": canvas.theme.muted, "width": 0.7}, name="geodesics", hoverinfo="skip"),
        polylines(closed, line={"color": ink, "width": 1.4}, name=rims, hoverinfo="skip"),
        go.Scatter(
            x=xy[:1, 0, 0],
            y=xy[:1, 0, 1],
            mode="markers",
            name="centre",
            marker={"color": ink, "size": 6},
            hoverinfo="skip",
        ),
    )
    plane_axes(canvas, shown, extent_around(xy) if canvas.is_new else None)
    return canvas.figure


def unit_tangents(G: Tensor, axes: Tensor, count: int) -> Tensor:
    """Tangents of length 1 in a plane, at equal angles of the metric."""
    frame = Frame.of(Dense((axes @ G @ axes.T)[None]), 1).vectors[0].T
    angle = torch.arange(count, dtype=G.dtype, device=G.device) * (2 * torch.pi / count)
    return torch.stack([angle.cos(), angle.sin()], 1) @ frame @ axes


def _shot(manifold: Manifold, z: Tensor, u: Tensor, steps: int) -> Tensor:
    """Geodesics ``(b, steps + 1, d)`` from z with the velocities u, step by step, NaN where they cannot go on."""
    d = z.shape[1]

    def step(x: Tensor, v: Tensor) -> Tensor:
        return torch.cat(manifold.expmap_transp(x, v / steps, v), 1)

    nodes = [z]
    for _ in range(steps):
        z, u = where_defined(step, (2 * d,), z, u).split(d, dim=1)
        nodes.append(z)
    return torch.stack(nodes, 1)
