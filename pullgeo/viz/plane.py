"""The two-dimensional slice of a latent space that a map shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pullgeo.errors import NonFiniteError, OptionError, ShapeError

Extent = tuple[tuple[float, float], tuple[float, float]]
"""A box, ``((x0, x1), (y0, y1))``."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The points that differ from ``anchor`` in two coordinates alone.

    Attributes:
        dims: which two coordinates, horizontal and vertical.
        anchor: a point of the plane, which gives all other coordinates.
    """

    dims: tuple[int, int]
    anchor: Float[Tensor, " d"]

    @property
    def is_everything(self) -> bool:
        """Whether the latent space has no other dimensions."""
        return len(self.anchor) == 2

    def project(self, z: Float[Tensor, "*b d"]) -> Float64[np.ndarray, "*b 2"]:
        """The two coordinates of points; the others are dropped."""
        return z[..., list(self.dims)].double().numpy(force=True)

    def lift(self, x: Float64[np.ndarray, "n 2"]) -> Float[Tensor, "n d"]:
        """The points of the plane with these coordinates."""
        z = self.anchor.repeat(len(x), 1)
        z[:, list(self.dims)] = torch.as_tensor(x).to(z)
        return z


@dataclass(frozen=True, eq=False)
class Grid:
    """Square cells over an extent; ``x`` and ``y`` are their centres."""

    x: Float64[np.ndarray, " columns"]
    y: Float64[np.ndarray, " rows"]

    @property
    def points(self) -> Float64[np.ndarray, "n 2"]:
        """All centres, row by row."""
        return np.stack(np.meshgrid(self.x, self.y), axis=-1).reshape(-1, 2)


def plane_through(where: str, z: Float[Tensor, "n d"], dims: Any, anchor: Any) -> Plane:
    """The plane of two dimensions of a latent space.

    Raises:
        ShapeError: the latent space has one dimension, or ``anchor`` is no point of it.
        OptionError: ``dims`` are not two different dimensions.
        NonFiniteError: ``anchor`` holds NaN or infinity.
    """
    d = z.shape[1]
    if d < 2:
        raise ShapeError(f"{where}: a map needs latents of at least 2 dimensions, got {tuple(z.shape)}.")
    entries = tuple(dims) if isinstance(dims, list | tuple) else ()
    if len(entries) != 2 or not all(isinstance(k, int) and 0 <= k < d for k in entries) or entries[0] == entries[1]:
        raise OptionError(f"{where}: dims must be two different whole numbers from 0 to {d - 1}, got {dims!r}.")
    point = z.mean(0) if anchor is None else torch.as_tensor(anchor).detach().to(z)
    if point.shape != (d,):
        raise ShapeError(f"{where}: anchor must be one point of shape ({d},), got {tuple(point.shape)}.")
    if not bool(torch.isfinite(point).all()):
        raise NonFiniteError(f"{where}: anchor holds NaN or infinity: {point.tolist()}.")
    return Plane(entries, point)


def extent_of(x: Float64[np.ndarray, "n 2"], margin: float = 0.06) -> Extent:
    """The box around points, with a margin of a share of its longer side."""
    low, high = x.min(0), x.max(0)
    pad = margin * (high - low).max() or 1.0
    (x0, y0), (x1, y1) = low - pad, high + pad
    return (float(x0), float(x1)), (float(y0), float(y1))


def checked_extent(where: str, extent: Any) -> Extent:
    """The same extent, as floats.

    Raises:
        OptionError: it is no pair of finite intervals.
    """
    box = np.asarray(extent, dtype=np.float64) if isinstance(extent, list | tuple) else np.zeros(0)
    if box.shape != (2, 2) or not np.isfinite(box).all() or (box[:, 1] <= box[:, 0]).any():
        raise OptionError(f"{where}: extent must be ((x0, x1), (y0, y1)) with x0 < x1 and y0 < y1, got {extent!r}.")
    (x0, x1), (y0, y1) = box.tolist()
    return (x0, x1), (y0, y1)


def grid_over(extent: Extent, resolution: int) -> Grid:
    """``resolution`` square cells along the longer side, and as many as fit along the shorter one."""
    spans = [high - low for low, high in extent]
    cell = max(spans) / resolution
    axes = []
    for (low, _), span in zip(extent, spans, strict=True):
        n = max(1, round(span / cell))
        axes.append(low + (np.arange(n) + 0.5) * span / n)
    return Grid(*axes)
