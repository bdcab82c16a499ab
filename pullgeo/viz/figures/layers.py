"""Quantities over a plane of a latent space, as maps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.volume import condition_number
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.batches import at_home, evaluate
from pullgeo.viz.explore.fields import decoder_uncertainty, latent_density
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.figures.canvas import Canvas, Look, colorscale
from pullgeo.viz.figures.plane import extent_around, plane_axes, plane_of
from pullgeo.viz.plane import Extent, checked_extent

LayerFunction = Callable[[Tensor], Tensor]
"""Points ``(n, d)`` of a latent space to numbers ``(n,)``."""

_LEVELS = 12
_FEW = 24
"""Nodes along each side where every value is a geodesic."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """What a map shows.

    Attributes:
        title: with its unit, as it stands beside the colours.
        values: at points of the latent space; or, where only the plane has them, on the grid over it.
        signed: whether 0 divides the colours.
    """

    title: str
    values: LayerFunction | np.ndarray
    signed: bool = False


@with_progress()
def layer_map(
    manifold: Manifold,
    z: Points,
    layer: str | LayerFunction = "log_volume",
    *,
    point: Any = None,
    plane: Slice | None = None,
    extent: Any = None,
    resolution: int | None = None,
    solver: Solver | None = None,
    label: str | None = None,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
    title: str | None = None,
    progress: bool = False,
) -> go.Figure:
    """A quantity of the latent space as filled contours: vectors, also in print.

    ================ =====================================================================================
    layer            shows
    ================ =====================================================================================
    ``log_volume``   ``log √det G``, how much volume the decoder makes of a unit of latent volume
    ``condition``    ``log₁₀ λ_max / λ_min`` of G: how much more one direction is stretched than another
    ``gauss``        the sectional curvature of the plane; the Gaussian curvature if d = 2; 1 / length²
    ``scalar``       the scalar curvature S, a sum over all planes; 1 / length²
    ``distance``     geodesic distances from ``point``, each solved for; where none was found there is a gap
    ``uncertainty``  the root mean square of the decoder's standard deviation, over its outputs
    ``density``      a kernel density estimate of the latents' positions on the plane
    ================ =====================================================================================

    Places where the quantity does not exist stay empty. Curvatures are coloured between their 2 % and 98 % quantiles,
    symmetrically to 0: they may be great in few places.

    Args:
        manifold: the latent space.
        z: latents ``(n, d)``, which place the map.
        layer: a name from the table, or a function of points ``(n, d)`` that returns numbers ``(n,)``.
        point: where distances begin: ``(d,)``, or a row of ``z``.
        plane: what is shown if d > 2; the first two dimensions, through the mean of the latents, if ``None``.
        extent: ``((x0, x1), (y0, y1))`` on the plane; a box around the latents if ``None``.
        resolution: nodes along each side: 64, and 24 for distances, if ``None``.
        solver: how distances are found; `Newton()` if ``None``.
        label: what stands beside the colours instead of the layer's own words.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.
        title: of a new figure.
        progress: show a progress bar, counting steps.

    Returns:
        The figure, with one more contour trace.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``, or point does not fit.
        OptionError: layer, plane, extent, resolution, or where to draw is invalid; a distance lacks its point; the
            decoder knows no uncertainty; latents on a line have no density.
        GeometryError: the metric jumps, so that there is no curvature.

    Cost: ``resolution²`` metrics, curvatures or geodesics.

    Example:
        >>> from pullgeo import PullbackManifold, viz
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5))
        >>> figure = viz.layer_map(PullbackManifold(decoder), torch.randn(7, 2), "condition", resolution=16)
        >>> figure.data[0].z.shape
        (16, 16)
    """
    where = "layer_map"
    canvas = Canvas(where, figure, row, col, look, title=title)
    check_manifold(where, manifold)
    points = as_points(where, z).double()
    shown = plane_of(where, plane, points)
    side = (_FEW if layer == "distance" else 64) if resolution is None else resolution
    if not isinstance(side, int) or side < 2:
        raise OptionError(f"{where}: resolution must be a whole number of at least 2, got {resolution!r}.")
    box = extent_around(shown.project(points)) if extent is None else checked_extent(where, extent)
    x, y = (np.linspace(*interval, side) for interval in box)
    if layer == "density":
        found = _density(where, shown, points, box, side)
    elif layer == "uncertainty":
        found = _uncertainty(where, manifold, shown, box, side)
    else:
        found = _layer(where, layer, manifold.in_double(), shown, points, point, solver)
    values = found.values
    if not isinstance(values, np.ndarray):
        nodes = torch.from_numpy(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
        double = manifold.in_double()
        values = _numbers(where, evaluate(double, values, at_home(double, shown.lift(nodes))), side)
    canvas.add(_contour(canvas, x, y, values, label or found.title, found.signed))
    plane_axes(canvas, shown, box)
    return canvas.figure


def _layer(
    where: str, layer: Any, manifold: Manifold, plane: Slice, z: Tensor, point: Any, solver: Solver | None
) -> _Layer:
    if callable(layer):
        return _Layer("", layer)

    def condition(x: Tensor) -> Tensor:
        return condition_number(manifold.metric(x)).log10()

    def gauss(x: Tensor) -> Tensor:
        first, second = (axis.to(x).expand_as(x) for axis in plane.axes)
        return manifold.sectional_curvature(x, first, second)

    known: dict[str, tuple[str, LayerFunction, bool]] = {
        "log_volume": ("log √det G", manifold.log_volume, False),
        "condition": ("log₁₀ condition number of G", condition, False),
        "gauss": ("Gaussian curvature" if z.shape[1] == 2 else "sectional curvature", gauss, True),
        "scalar": ("scalar curvature", manifold.scalar_curvature, True),
    }
    if layer == "distance":
        begin = _point(where, point, z)

        def distance(x: Tensor) -> Tensor:
            found = manifold.geodesic(begin.to(x).expand_as(x), x, solver)
            return torch.where(found.converged, found.length, torch.nan)

        return _Layer("geodesic distance", distance)
    if not isinstance(layer, str) or layer not in known:
        names = ", ".join([*known, "distance", "uncertainty", "density"])
        raise OptionError(f"{where}: layer must be one of {names}, or a function of points, got {layer!r}.")
    title, values, signed = known[layer]
    # where a metric or its derivatives do not exist there is a gap
    return _Layer(title, lambda x: where_defined(values, (), x), signed)


def _density(where: str, plane: Slice, z: Tensor, box: Extent, side: int) -> _Layer:
    found = latent_density(plane.project(z), *box, side=side)
    if found is None:
        raise OptionError(f"{where}: the latents have no density on the plane: fewer than three, or on one line.")
    return _Layer("density of the latents", found.values)


def _uncertainty(where: str, manifold: Manifold, plane: Slice, box: Extent, side: int) -> _Layer:
    found = decoder_uncertainty(manifold, plane, *box, side=side)
    if found is None:
        raise OptionError(
            f"{where}: the decoder does not say how uncertain it is. Wrap it as MeanAndDeviation(mean, deviation) or "
            "as Ensemble(members), or pass a function of points as layer."
        )
    return _Layer("decoder uncertainty (rms σ)", found.values)


def _point(where: str, point: Any, z: Tensor) -> Float[Tensor, " d"]:
    if point is None:
        raise OptionError(f"{where}: distances need point=, where they begin: a point (d,), or a row of z.")
    if isinstance(point, int) and not isinstance(point, bool):
        if not 0 <= point < len(z):
            raise OptionError(f"{where}: point must be a row of z, 0 to {len(z) - 1}, got {point}.")
        return z[point]
    given = torch.as_tensor(point).double()
    if given.shape != z.shape[1:]:
        raise ShapeError(f"{where}: point must have shape {tuple(z.shape[1:])}, got {tuple(given.shape)}.")
    return given


def _numbers(where: str, values: Any, side: int) -> Float64[np.ndarray, "ny nx"]:
    if not isinstance(values, Tensor) or values.shape != (side * side,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ShapeError(f"{where}: a layer maps points (n, d) to a tensor of numbers (n,), got {got}.")
    numbers = values.double().numpy(force=True).reshape(side, side)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _contour(
    canvas: Canvas, x: np.ndarray, y: np.ndarray, values: Float64[np.ndarray, "ny nx"], title: str, signed: bool
) -> go.Contour:
    theme = canvas.theme
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if signed and len(finite):
        high = max(abs(float(np.quantile(finite, q))) for q in (0.02, 0.98)) or 1.0
        low = -high
    step = (high - low) / _LEVELS or 1.0
    return go.Contour(
        x=x,
        y=y,
        # what lies beyond the levels has the colour of the last one
        z=np.clip(values, low, high),
        name=title,
        colorscale=colorscale(theme.diverging if signed else theme.sequential),
        zmin=low,
        zmax=high,
        autocontour=False,
        contours={"start": low, "end": high, "size": step, "coloring": "fill", "showlines": False},
        line={"width": 0},
        connectgaps=False,
        customdata=values,
        hovertemplate="%{x:.3g}, %{y:.3g}<br>%{customdata:.4g}<extra></extra>",
        colorbar=canvas.colorbar(title),
    )
