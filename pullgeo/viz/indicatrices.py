"""Unit balls of the metric on a map."""

import numpy as np
import plotly.graph_objects as go
import torch

from pullgeo.manifold.base import Manifold
from pullgeo.viz.batches import evaluate
from pullgeo.viz.plane import Extent, Plane, grid_over
from pullgeo.viz.style import INK

_CORNERS = 41
# All but the longest balls reach at most this share of the way to their neighbours.
_FILL = 0.46


def indicatrix_trace(manifold: Manifold, plane: Plane, extent: Extent, count: int) -> go.Scatter:
    """Ellipses ``{c + s u : uᵀ G(c) u = 1}`` at the centres of a grid, one scale ``s`` for all of them.

    ``u`` lies in the plane, so that ``G`` stands for its block of the plane's two dimensions. A long axis is a
    direction in which the decoder changes slowly. Points where that block is singular have none.
    """
    grid = grid_over(extent, count)
    centres = grid.points
    block = list(plane.dims)
    G = evaluate(manifold, lambda z: manifold.metric_matrix(z)[:, block][:, :, block], plane.lift(centres))
    values, axes = torch.linalg.eigh(G.double())
    good = (values > 0).all(1)
    angle = torch.linspace(0, 2 * torch.pi, _CORNERS, dtype=torch.float64, device=G.device)
    circle = torch.stack([angle.cos(), angle.sin()])
    rims = axes[good] @ (circle / values[good].sqrt().unsqueeze(-1))
    cell = (extent[0][1] - extent[0][0]) / len(grid.x)
    # not the greatest: a single place that the decoder all but ignores must not shrink the others to dots
    scale = _FILL * cell / float(rims.norm(dim=1).amax(1).quantile(0.9)) if len(rims) else 1.0
    shapes = centres[good.numpy(force=True), None] + scale * rims.transpose(1, 2).numpy(force=True)
    x, y = np.concatenate([shapes, np.full((len(shapes), 1, 2), np.nan)], axis=1).reshape(-1, 2).T
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=f"unit balls of G, × {scale:.3g}",
        legend="legend2",
        line={"color": INK, "width": 0.8},
        opacity=0.55,
        hoverinfo="skip",
    )
