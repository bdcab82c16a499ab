"""The surface that a decoder makes of a plane of its latent space, in three dimensions."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.lengths import curve_points
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import at_home, evaluate
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas, Look, colorscale
from pullgeo.viz.figures.plane import extent_around, plane_of
from pullgeo.viz.pairs import converged_mask
from pullgeo.viz.plane import checked_extent

_STEPS = 101


@with_progress()
def embedded_surface(
    manifold: Manifold,
    z: Points,
    solution: Solution | None = None,
    *,
    plane: Slice | None = None,
    extent: Any = None,
    resolution: int = 48,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
    progress: bool = False,
) -> go.Figure:
    """The decoded plane as a surface in space, coloured by ``log √det G``, with geodesics on it.

    Outputs of more than three numbers are projected onto the three principal components of the surface itself; the
    axes say what share of its variance each of them has. Places where the decoder is not finite are holes.

    Args:
        manifold: the latent space of a decoder.
        z: latents ``(n, d)``, which place the surface.
        solution: geodesics to draw on it; if d > 2 they are decoded in full, and may leave the surface.
        plane: what is decoded if d > 2; the first two dimensions, through the mean of the latents, if ``None``.
        extent: ``((x0, x1), (y0, y1))`` on the plane; a box around the latents if ``None``.
        resolution: nodes along each side.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, of the kind ``{"type": "scene"}``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.
        progress: show a progress bar, counting steps.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``.
        ShapeError: the decoder returns fewer than three numbers.
        OptionError: the manifold decodes nothing; resolution, extent, or where to draw is invalid.

    Cost: ``resolution²`` metrics.

    Example:
        >>> from pullgeo import PullbackManifold, viz
        >>> def saddle(z):
        ...     return torch.cat([z, z[:, :1] * z[:, 1:]], 1)
        >>> figure = viz.embedded_surface(PullbackManifold(saddle), torch.randn(5, 2), resolution=8)
        >>> figure.data[0].type, figure.data[0].z.shape
        ('surface', (8, 8))
    """
    where = "embedded_surface"
    canvas = Canvas(where, figure, row, col, look, scene=True, height=320)
    check_manifold(where, manifold)
    if not isinstance(manifold, PullbackManifold):
        raise OptionError(f"{where}: manifold must be a PullbackManifold, got {type(manifold).__name__}.")
    if not isinstance(resolution, int) or resolution < 2:
        raise OptionError(f"{where}: resolution must be a whole number of at least 2, got {resolution!r}.")
    points = as_points(where, z).double()
    shown = plane_of(where, plane, points)
    box = extent_around(shown.project(points)) if extent is None else checked_extent(where, extent)
    double = manifold.in_double()
    nodes = np.stack(np.meshgrid(*(np.linspace(*interval, resolution) for interval in box)), -1).reshape(-1, 2)
    places = at_home(double, shown.lift(torch.from_numpy(nodes)))
    decoded = evaluate(double, lambda x: double.decode(x).flatten(1), places).numpy(force=True)
    if decoded.shape[1] < 3:
        raise ShapeError(f"{where}: the decoder returns {decoded.shape[1]} numbers, and a surface in space needs 3.")
    whole = np.isfinite(decoded).all(1)
    if not whole.any():
        raise OptionError(f"{where}: the decoder is finite nowhere on the plane. Choose another extent.")
    decoded[~whole] = np.nan
    centre, axes, titles = _space(decoded[whole])
    surface = ((decoded - centre) @ axes.T).reshape(resolution, resolution, 3)
    volume = evaluate(double, lambda x: where_defined(double.log_volume, (), x), places).numpy(force=True)
    theme = canvas.theme
    canvas.add(
        go.Surface(
            **dict(zip("xyz", np.moveaxis(surface, -1, 0), strict=True)),
            surfacecolor=np.where(np.isfinite(volume), volume, np.nan).reshape(resolution, resolution),
            colorscale=colorscale(theme.sequential),
            colorbar=canvas.colorbar("log √det G", len=0.6) if canvas.is_new else canvas.colorbar("log √det G"),
            lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05, "roughness": 0.9},
            hoverinfo="skip",
            name="surface",
        )
    )
    if solution is not None:
        curves = curve_points(solution, _STEPS).double()
        good = converged_mask(solution)
        for name, which, colour, dash in (
            ("geodesic", good, theme.ink, "solid"),
            ("not converged", ~good, theme.warning, "dash"),
        ):
            if which.any():
                lines = double.decode(curves[which].flatten(0, 1)).flatten(1).detach().numpy(force=True)
                lifted = ((lines - centre) @ axes.T).reshape(int(which.sum()), _STEPS, 3)
                gap = np.full((len(lifted), 1, 3), np.nan)
                x, y, height = np.concatenate([lifted, gap], 1).reshape(-1, 3).T
                line = {"color": colour, "width": 5, "dash": dash}
                canvas.add(go.Scatter3d(x=x, y=y, z=height, mode="lines", line=line, name=name, hoverinfo="name"))
    named = {f"{letter}axis": {"title": {"text": title}} for letter, title in zip("xyz", titles, strict=True)}
    canvas.scene(aspectmode="data", camera={"eye": {"x": 1.7, "y": -1.9, "z": 1.1}}, **named)
    canvas.legend(x=0.01, y=0.99)
    return canvas.figure


def _space(decoded: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The origin, three axes and their names."""
    if decoded.shape[1] == 3:
        return np.zeros(3), np.eye(3), ["output 0", "output 1", "output 2"]
    centre = decoded.mean(0)
    _, sizes, axes = np.linalg.svd(decoded - centre, full_matrices=False)
    total = float((sizes**2).sum()) or 1.0
    rows = min(3, len(axes))
    shares = [float(size**2) / total for size in sizes[:rows]] + [0.0] * (3 - rows)
    padded = np.concatenate([axes[:rows], np.zeros((3 - rows, axes.shape[1]))])
    # the sign of a component is arbitrary: its largest entry points up
    signs = np.sign(np.take_along_axis(padded, np.abs(padded).argmax(1)[:, None], 1))
    return centre, padded * np.where(signs == 0, 1, signs), [f"PC {k + 1} ({s:.0%})" for k, s in enumerate(shares)]
