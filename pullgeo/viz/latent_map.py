"""The map of a latent space: volume, latents by class, geodesics beside straight lines."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import at_home, evaluated, log_volumes
from pullgeo.viz.classes import Labels, classes_of
from pullgeo.viz.curves import Curves, curves_of, indicatrix_trace, latent_traces
from pullgeo.viz.plane import Extent, Plane, checked_extent, extent_of, grid_over, plane_through
from pullgeo.viz.style import DENSITY_SCALE, HAIRLINE, MUTED, styled

VOLUME = "log √det G"


@with_progress()
def latent_map(
    manifold: Manifold,
    z: Points,
    labels: Labels | None = None,
    solution: Solution | None = None,
    *,
    names: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    anchor: Any = None,
    extent: Sequence[Sequence[float | int]] | None = None,
    resolution: int = 100,
    indicatrices: int = 0,
    image_shape: tuple[int, ...] | None = None,
    title: str | None = None,
    progress: bool = False,
) -> go.Figure:
    """Latents by class on the logarithm of the volume density, with geodesics beside straight lines.

    The background is ``log √det G(z)``, the natural logarithm of how much volume the decoder makes of a unit of latent
    volume: dark places are stretched. Cells where the metric is singular stay empty. Curves that did not converge are
    dashed, red and named so. Nothing is solved here: pass a solution to see its curves.

    For ``d > 2`` the background is a slice: ``G`` is the full metric, evaluated at points that differ from ``anchor``
    in the two dimensions ``dims`` alone. Latents and curves are projected onto it, and the figure says so.

    Args:
        manifold: the latent space.
        z: latents ``(n, d)``, d at least 2, tensor or numpy array.
        labels: the class of each latent, ``(n,)``; at most 50 classes.
        solution: geodesics to draw, with the straight lines between their ends.
        names: a name for each pair of ``solution``, for the pointer's box.
        dims: the horizontal and the vertical dimension.
        anchor: a point ``(d,)`` of the slice; the mean of the latents if ``None``.
        extent: ``((x0, x1), (y0, y1))`` of the background; a box around latents and curves if ``None``.
        resolution: the number of cells of the background along its longer side.
        indicatrices: the number of unit balls of the metric to draw along the longer side, all scaled by the same
            factor: steps from the centre to the rim have the same length everywhere. None if 0.
        image_shape: has no effect, and warns: what is decoded under the pointer is shown by `explore`.
        title: the figure's title.
        progress: show a progress bar, counting steps.

    Returns:
        A figure with equal scales on both axes.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``, or the decoder is not finite
            somewhere on the background; ``extent`` can avoid such places.
        ShapeError: labels, names, anchor or the curves do not fit.
        OptionError: dims, extent, resolution or indicatrices is invalid.

    Cost: one metric at each of at most ``resolution²`` cells and at each latent.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold, viz
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
        >>> figure = viz.latent_map(PullbackManifold(decoder), torch.randn(7, 2), labels=[0, 1, 0, 1, 0, 1, 0])
        >>> [trace.name for trace in figure.data]
        ['log √det G', '0', '1']
    """
    where = "latent_map"
    _check_count(where, "resolution", resolution, 1)
    _check_count(where, "indicatrices", indicatrices, 0)
    check_manifold(where, manifold)
    manifold = evaluated(manifold)
    points = at_home(manifold, as_points(where, z))
    plane = plane_through(where, points, dims, anchor)
    classes = None if labels is None else classes_of(where, labels, len(points))
    curves = None if solution is None else curves_of(where, solution, names, points.shape[1])
    if image_shape is not None:
        warnings.warn(
            "latent_map: image_shape has no effect any more; viz.explore shows what is decoded under the pointer.",
            DeprecationWarning,
            stacklevel=2,
        )

    lines = [] if curves is None else curves.traces(plane)
    dots = latent_traces(manifold, points, classes, plane)
    box = _box_around(plane, points, curves) if extent is None else checked_extent(where, extent)
    volume = _volume(manifold, plane, box, resolution)
    balls = [indicatrix_trace(manifold, plane, box, indicatrices)] if indicatrices else []

    figure = go.Figure([volume, *balls, *dots, *lines])
    note = "" if plane.is_everything else _slice_note(plane, anchor is None)
    return styled(
        figure,
        title={"text": title, "subtitle": {"text": note, "font": {"color": MUTED, "size": 12}}},
        xaxis=_axis(plane.dims[0], box[0]),
        yaxis=_axis(plane.dims[1], box[1]) | {"scaleanchor": "x", "scaleratio": 1},
        height=720,
        margin={"l": 56, "r": 16, "t": 40 + (52 if title or note else 0), "b": 48},
        legend={
            "title": {"text": "" if classes is None else "class"},
            "itemsizing": "constant",
            "x": 1.02,
            "y": 1,
            "maxheight": 0.46,
        },
        legend2={"orientation": "h", "tracegroupgap": 0, "x": 0, "y": 1.01, "yanchor": "bottom"},
    )


def _volume(manifold: Manifold, plane: Plane, box: Extent, resolution: int) -> go.Heatmap:
    grid = grid_over(box, resolution)
    where = "latent_map: on the background, of which extent=((x0, x1), (y0, y1)) shows a part"
    values = log_volumes(manifold, plane.lift(grid.points), where)
    first, second = plane.dims
    return go.Heatmap(
        x=grid.x,
        y=grid.y,
        z=values.reshape(len(grid.y), len(grid.x)),
        name=VOLUME,
        colorscale=[[i / (len(DENSITY_SCALE) - 1), colour] for i, colour in enumerate(DENSITY_SCALE)],
        # smoothing would paint over the cells left empty
        zsmooth="best" if np.isfinite(values).all() else False,
        hovertemplate=f"z[{first}] %{{x:.3g}}, z[{second}] %{{y:.3g}}<br>{VOLUME} %{{z:.3f}}<extra></extra>",
        colorbar={
            # below the legend, its title above it: side by side they overlap where a figure is narrow
            "title": {"text": VOLUME, "side": "top", "font": {"size": 12}},
            "thickness": 12,
            "outlinewidth": 0,
            "x": 1.01,
            "y": 0,
            "yanchor": "bottom",
            "len": 0.5,
        },
    )


def _box_around(plane: Plane, points: Tensor, curves: Curves | None) -> Extent:
    shown = [points] if curves is None else [points, curves.geodesics.flatten(0, 1).to(points)]
    x = plane.project(torch.cat(shown))
    return extent_of(x[np.isfinite(x).all(1)])


def _axis(dim: int, interval: tuple[float, float]) -> dict[str, Any]:
    return {
        "title": {"text": f"z[{dim}]", "standoff": 8},
        "range": list(interval),
        "constrain": "domain",
        "zeroline": False,
        "showgrid": False,
        "ticks": "outside",
        "tickcolor": HAIRLINE,
        "linecolor": HAIRLINE,
    }


def _slice_note(plane: Plane, at_mean: bool) -> str:
    middle = "the mean latent" if at_mean else "the anchor"
    first, second = plane.dims
    return f"Background: slice of dimensions {first} and {second} through {middle}; latents and curves are projected"


def _check_count(where: str, name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise OptionError(f"{where}: {name} must be a whole number of at least {least}, got {value!r}.")
