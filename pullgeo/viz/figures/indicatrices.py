"""Unit balls of the metric on maps."""

from typing import Any

import plotly.graph_objects as go
import torch
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import at_home, evaluate
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas, Look
from pullgeo.viz.figures.plane import extent_around, plane_axes, plane_of, polylines
from pullgeo.viz.plane import checked_extent, grid_over

_CORNERS = 49
_FILL = 0.45


@with_progress()
def indicatrices(
    manifold: Manifold,
    z: Points,
    *,
    count: int = 9,
    plane: Slice | None = None,
    extent: Any = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
    progress: bool = False,
) -> go.Figure:
    """Unit balls of the metric, ``{c + s u : uᵀ G(c) u = 1}``, with one scale s for all of them.

    A long axis is a direction in which the decoder changes slowly. On a plane of more than two latents, u lies in the
    plane. Where the metric is singular, or not finite, there is no ball.

    Args:
        manifold: the latent space.
        z: latents ``(n, d)``, which place the map.
        count: of balls along the longer side.
        plane: what is shown if d > 2; the first two dimensions, through the mean of the latents, if ``None``.
        extent: ``((x0, x1), (y0, y1))`` on the plane; a box around the latents if ``None``.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.
        progress: show a progress bar, counting steps.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``.
        OptionError: count, extent, or where to draw is invalid.

    Cost: at most ``count²`` metrics.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> viz.indicatrices(PullbackManifold(torch.nn.Linear(2, 3)), torch.randn(7, 2), count=3).data[0].mode
        'lines'
    """
    where = "indicatrices"
    canvas = Canvas(where, figure, row, col, look)
    check_manifold(where, manifold)
    if not isinstance(count, int) or count < 1:
        raise OptionError(f"{where}: count must be a whole number of at least 1, got {count!r}.")
    points = as_points(where, z).double()
    shown = plane_of(where, plane, points)
    box = extent_around(shown.project(points)) if extent is None else checked_extent(where, extent)
    grid = grid_over(box, count)
    double = manifold.in_double()
    axes = shown.axes

    def block(x: Tensor) -> Tensor:
        return axes.to(x) @ where_defined(double.metric_matrix, (x.shape[1],) * 2, x) @ axes.to(x).T

    G = evaluate(double, block, at_home(double, shown.lift(torch.from_numpy(grid.points)))).cpu()
    known = torch.isfinite(G).flatten(1).all(1)
    values, vectors = torch.linalg.eigh(G[known])
    regular = values[:, 0] > torch.finfo(torch.float64).eps * values[:, 1]
    angle = torch.linspace(0, 2 * torch.pi, _CORNERS, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()])
    rims = vectors[regular] @ (circle / values[regular].sqrt().unsqueeze(-1))
    cell = (box[0][1] - box[0][0]) / len(grid.x)
    # not the greatest: one place that the decoder all but ignores must not shrink the others to dots
    scale = _FILL * cell / float(rims.norm(dim=1).amax(1).quantile(0.9)) if len(rims) else 1.0
    balls = grid.points[known.numpy()][regular.numpy(), None] + scale * rims.mT.numpy()
    line = {"color": canvas.theme.ink, "width": 0.8}
    canvas.add(polylines(balls, line=line, name=f"unit balls, × {scale:.3g}", hoverinfo="skip"))
    plane_axes(canvas, shown, box)
    return canvas.figure
