"""Frames that are transported along curves."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas, Look
from pullgeo.viz.figures.fan import unit_tangents
from pullgeo.viz.figures.plane import extent_around, plane_axes, plane_of, polylines

_STEPS = 101


def transported_frame(
    manifold: Manifold,
    solution: Solution,
    *,
    pair: int = 0,
    frame: Any = None,
    count: int = 9,
    size: float = 0.12,
    plane: Slice | None = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """A curve, and a frame of two tangents that is transported along it by parallel transport.

    Transport keeps lengths and angles, as the metric measures them. On the map the arrows change their lengths:
    one that is long points where the decoder changes slowly.

    Args:
        manifold: the latent space.
        solution: whose curve it is.
        pair: which of its curves.
        frame: two tangents at the beginning, ``(2, d)``; orthonormal ones in the plane if ``None``.
        count: of frames along the curve, at equal steps of its parameter, both ends included.
        size: the length of the longest arrow, as a share of the map's longer side.
        plane: what is shown if d > 2; the first two dimensions if ``None``.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Raises:
        ShapeError: ``frame`` is no pair of tangents.
        OptionError: pair, count, size, or where to draw is invalid.
        SingularMetricError, GeometryError: the curve meets a place where the metric is singular or jumps.

    Cost: that of `Manifold.parallel_transport`, ``count`` times.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> manifold = PullbackManifold(torch.nn.Linear(2, 3).double())
        >>> solution = manifold.geodesic(torch.zeros(1, 2).double(), torch.ones(1, 2).double())
        >>> [trace.name for trace in viz.transported_frame(manifold, solution, count=3).data]
        ['curve', 'first tangent', 'second tangent']
    """
    where = "transported_frame"
    canvas = Canvas(where, figure, row, col, look)
    check_manifold(where, manifold)
    if not isinstance(pair, int) or not 0 <= pair < len(solution):
        raise OptionError(f"{where}: pair must be a whole number from 0 to {len(solution) - 1}, got {pair!r}.")
    if not isinstance(count, int) or count < 2:
        raise OptionError(f"{where}: count must be a whole number of at least 2, got {count!r}.")
    if not isinstance(size, int | float) or not 0 < size < 1:
        raise OptionError(f"{where}: size must lie between 0 and 1, got {size!r}.")
    curve = solution.curve[[pair]].to(torch.float64)
    begin = curve.begin[0].detach()
    shown = plane_of(where, plane, begin[None], begin)
    double = manifold.in_double()
    with torch.no_grad():
        if frame is None:
            tangents = unit_tangents(double.metric_matrix(begin[None])[0], shown.axes.to(begin), 4)[:2]
        else:
            tangents = torch.as_tensor(frame).to(begin)
        if tangents.shape != (2, len(begin)):
            raise ShapeError(f"{where}: frame must be two tangents, (2, {len(begin)}), got {tuple(tangents.shape)}.")
        times = torch.linspace(0, 1, count, dtype=torch.float64, device=begin.device)
        transported = [tangents]
        # from place to place: a transport begins where the last one ended
        for start, end in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            transported.append(_transported(double, curve, start, end, transported[-1]))
        places = shown.project(curve(times)[0])
        arrows = np.stack([(t.cpu() @ torch.linalg.pinv(shown.axes)).numpy() for t in transported], 1)
        path = shown.project(curve(torch.linspace(0, 1, _STEPS, dtype=torch.float64, device=begin.device)))
    box = extent_around(path)
    side = max(high - low for low, high in box)
    scale = size * side / max(float(np.linalg.norm(arrows, axis=2).max()), 1e-300)
    line = {"color": canvas.theme.ink, "width": 1.4}
    canvas.add(polylines(path, line=line, name="curve", hoverinfo="skip"))
    for k, (name, which) in enumerate((("first tangent", arrows[0]), ("second tangent", arrows[1]))):
        canvas.add(_arrows(places, places + scale * which, canvas.theme.dash(k + 1), name))
    plane_axes(canvas, shown, None)
    return canvas.figure


def _transported(manifold: Manifold, curve: Any, start: float, end: float, tangents: Tensor) -> Tensor:
    def both(t: Tensor) -> Tensor:
        return curve(start + (end - start) * t).expand(2, -1, -1)

    return manifold.parallel_transport(both, tangents)


def _arrows(tail: np.ndarray, tip: np.ndarray, line: dict[str, Any], name: str) -> go.Scatter:
    """Shafts with heads of two strokes, as vectors of the map."""
    back = tail - tip
    left, right = (0.28 * back @ np.array([[c, s], [-s, c]]) for c, s in ((0.9, 0.44), (0.9, -0.44)))
    strokes = np.stack([tail, tip, tip + left, tip, tip + right], 1)
    return polylines(strokes, line={"color": line["color"], "width": 1.2}, name=name, hoverinfo="skip")
