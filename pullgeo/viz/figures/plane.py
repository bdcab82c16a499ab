"""The axes of a plane of a latent space, and what is drawn on them."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas
from pullgeo.viz.plane import Extent, extent_of


def plane_of(where: str, plane: Slice | None, z: Float64[Tensor, "n d"], anchor: Tensor | None = None) -> Slice:
    """The plane that is passed in, or that of the first two dimensions.

    Raises:
        ShapeError: it is a plane of another latent space.
    """
    if plane is None:
        return Slice.of_dims(z, anchor=anchor)
    if len(plane.origin) != z.shape[1]:
        raise ShapeError(f"{where}: plane lies in {len(plane.origin)} dimensions and the points in {z.shape[1]}.")
    return plane


def extent_around(*xy: Float64[np.ndarray, "*n 2"]) -> Extent:
    """A box around points, those that are finite."""
    together = np.concatenate([x.reshape(-1, 2) for x in xy])
    return extent_of(together[np.isfinite(together).all(1)])


def plane_axes(canvas: Canvas, plane: Slice, box: Extent | None) -> None:
    """Name the axes after the plane's, with equal scales; ``box`` is what they show of it."""
    ranges: tuple[dict[str, Any], ...] = ({}, {}) if box is None else tuple({"range": list(i)} for i in box)
    x, y = ({"title": {"text": name}, **shown} for name, shown in zip(plane.names, ranges, strict=True))
    canvas.axes(x, y, equal=True)
    # below, since colours have their bar at the right
    canvas.legend(orientation="h", x=0, y=-0.17, yanchor="top")


def polylines(curves: Float64[np.ndarray, "b steps 2"], **properties: object) -> go.Scatter:
    """Several curves as one trace: a gap lifts the pen."""
    gap = np.full((len(curves), 1, 2), np.nan)
    x, y = np.concatenate([curves, gap], axis=1).reshape(-1, 2).T
    return go.Scatter(x=x, y=y, mode="lines", **properties)
