"""Many small pictures on one sheet, to be shown one at a time when the pointer meets a point."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pullgeo.viz.batches import at_home
from pullgeo.viz.pictures import Pictures
from pullgeo.viz.plane import Extent, Plane, grid_over
from pullgeo.viz.png import data_uri

# A hover panel is small, and a page should stay of a size that can be mailed.
_MAX_SIDE = 64
_MAX_PIXELS = 6_000_000
_GRID = 45


@dataclass(eq=False)
class SpriteSheet:
    """Decoded pictures, numbered in the order in which they were added, up to a budget of pixels.

    Traces say in their ``meta`` which picture belongs to which of their points; the page's script reads it there.
    """

    pictures: Pictures
    tiles: list[UInt8[np.ndarray, "n height width channels"]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of pictures so far."""
        return sum(len(t) for t in self.tiles)

    @property
    def room(self) -> int:
        """How many pictures still fit."""
        _, height, width = self.pictures.shape
        shrink = min(1.0, _MAX_SIDE / max(height, width))
        return max(0, int(_MAX_PIXELS / (height * width * shrink**2)) - self.count)

    def for_points(self, z: Float[Tensor, "n d"]) -> dict[str, Any] | None:
        """Decode the points of a trace; its ``meta``, or ``None`` where so many do not fit.

        Points that are not finite, which separate the curves of a trace, have the picture number -1.
        """
        finite = torch.isfinite(z).all(1)
        n = int(finite.sum())
        if n == 0 or n > self.room // 2:
            return None
        number = np.full(len(z), -1)
        number[finite.numpy(force=True)] = self._add(z[finite]) + np.arange(n)
        return {"images": number.tolist()}

    def for_plane(self, plane: Plane, extent: Extent) -> dict[str, Any] | None:
        """Decode cells over a part of a plane; the ``meta`` of a trace that covers it, ``None`` where nothing fits."""
        resolution = min(_GRID, int(self.room**0.5))
        if resolution == 0:
            return None
        grid = grid_over(extent, resolution)
        first = self._add(plane.lift(grid.points))
        return {"grid": {"first": first, "rows": len(grid.y), "columns": len(grid.x), "extent": extent}}

    def describe(self) -> dict[str, Any]:
        """The sheet: its picture as a data address, the number of columns, and the size of a tile in pixels."""
        tiles = np.concatenate(self.tiles)
        n, height, width, channels = tiles.shape
        columns = int(np.ceil(np.sqrt(n)))
        rows = -(-n // columns)
        sheet = np.zeros((rows * columns, height, width, channels), np.uint8)
        sheet[:n] = tiles
        sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
        pixels = np.ascontiguousarray(sheet.reshape(rows * height, columns * width, channels))
        return {"sheet": data_uri(pixels), "columns": columns, "height": height, "width": width, "count": n}

    def _add(self, z: Float[Tensor, "n d"]) -> int:
        first = self.count
        self.tiles.append(self.pictures(at_home(self.pictures.manifold, z), _MAX_SIDE))
        return first
