"""What is drawn on a map: geodesics and straight lines, latents by class, unit balls of the metric."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.stats.lengths import curve_points, straight_lines
from pullgeo.viz.batches import evaluate, log_volumes
from pullgeo.viz.classes import Classes, visible
from pullgeo.viz.pairs import converged_mask, pair_names
from pullgeo.viz.plane import Extent, Plane, grid_over
from pullgeo.viz.style import INK, MUTED, PAPER, WARNING, class_style

_STEPS = 101
# Where on a curve its number stands: before the middle, where many curves meet.
_NUMBER_AT = 0.3
_CORNERS = 41
# All but the longest balls reach at most this share of the way to their neighbours.
_FILL = 0.46
# Vector graphics serve this many points well.
_MANY = 10_000


@dataclass(frozen=True, eq=False)
class Curves:
    """What a map shows of a solution.

    Attributes:
        geodesics: points on each curve, at equal steps of its parameter.
        lines: points on the straight line between the ends of each curve.
        converged: which curves are solutions.
        names: a name for each pair.
        text: what the pointer's box says of each pair.
    """

    geodesics: Float[Tensor, "b steps d"]
    lines: Float[Tensor, "b steps d"]
    converged: Bool[np.ndarray, " b"]
    names: list[str]
    text: list[str]

    def traces(self, plane: Plane) -> list[go.Scatter]:
        """Straight lines, geodesics, and what did not converge, one trace each; then ends and numbers."""
        everything = np.ones_like(self.converged)
        kinds = (
            ("straight line", self.lines, everything, {"color": INK, "width": 1.6, "dash": "3px,3px"}),
            ("geodesic", self.geodesics, self.converged, {"color": INK, "width": 2.5}),
            ("not converged", self.geodesics, ~self.converged, {"color": WARNING, "width": 2.5, "dash": "dash"}),
        )
        shown = [self._lines(plane, *kind) for kind in kinds if kind[2].any()]
        return [trace for pair in shown for trace in pair] + self._marks(plane)

    def _lines(
        self,
        plane: Plane,
        name: str,
        curves: Tensor,
        which: Bool[np.ndarray, " b"],
        line: dict[str, Any],
    ) -> tuple[go.Scatter, go.Scatter]:
        picked = np.flatnonzero(which)
        steps, d = curves.shape[1:]
        # one trace holds them all: a row of NaN lifts the pen
        gap = curves.new_full((len(picked), 1, d), torch.nan)
        points = torch.cat([curves[picked], gap], dim=1).reshape(-1, d)
        x, y = plane.project(points).T
        text = [words for i in picked for words in [f"{name}<br>{self.text[i]}"] * (steps + 1)]
        group = {"legend": "legend2", "legendgroup": name, "x": x, "y": y, "mode": "lines"}
        # a pale casing keeps a line readable on every background
        casing = go.Scatter(**group, line={"color": PAPER, "width": 5}, hoverinfo="skip", showlegend=False, opacity=0.8)
        drawn = go.Scatter(
            **group,
            name=name,
            line=line,
            text=text,
            hovertemplate="%{text}<extra></extra>",
        )
        return casing, drawn

    def _marks(self, plane: Plane) -> list[go.Scatter]:
        """The ends of all curves, and on each curve its number: several may begin in one place."""
        common = {"legend": "legend2", "hovertemplate": "%{customdata}<extra></extra>"}
        ends = plane.project(self.geodesics[:, [0, -1]]).reshape(-1, 2)
        numbered = plane.project(self.geodesics[:, round(_NUMBER_AT * (_STEPS - 1))])
        names = [visible(name) for name in self.names]
        return [
            go.Scatter(
                x=ends[:, 0],
                y=ends[:, 1],
                mode="markers",
                name="ends",
                legendgroup="ends",
                marker={"size": 9, "color": PAPER, "line": {"color": INK, "width": 2}},
                customdata=[f"{name}, {end}" for name in names for end in ("start", "end")],
                **common,
            ),
            go.Scatter(
                x=numbered[:, 0],
                y=numbered[:, 1],
                mode="markers+text",
                name="number of a pair",
                legendgroup="numbers",
                text=[str(i + 1) for i in range(len(numbered))],
                textfont={"size": 10, "color": PAPER},
                marker={"size": 16, "color": INK, "line": {"color": PAPER, "width": 1.5}},
                customdata=names,
                **common,
            ),
        ]


def curves_of(where: str, solution: Solution, names: Sequence[str] | None, d: int) -> Curves:
    """Evaluate the curves of a solution.

    Raises:
        ShapeError: the curves do not live in d dimensions, or there is not one name for each pair.
    """
    named = pair_names(where, solution, names)
    geodesics = curve_points(solution, _STEPS)
    if geodesics.shape[2] != d:
        raise ShapeError(
            f"{where}: the solution's curves have {geodesics.shape[2]} coordinates and the latents {d}. "
            "Pass a solution on the same latent space."
        )
    converged = converged_mask(solution)
    text = [
        f"{visible(name)}: length {float(length):.4g}" if good else f"{visible(name)}: {visible(status.value)}"
        for name, length, good, status in zip(named, solution.length.detach(), converged, solution.status, strict=True)
    ]
    return Curves(geodesics, straight_lines(solution, _STEPS), converged, named, text)


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


def latent_traces(
    manifold: Manifold, z: Float[Tensor, "n d"], classes: Classes | None, plane: Plane
) -> list[go.Scatter | go.Scattergl]:
    """Latents by class; the pointer's box says a latent's row, class, coordinates and log-volume."""
    volumes = log_volumes(manifold, z, "latent_map: a latent")
    x = plane.project(z)
    kind = go.Scattergl if len(z) > _MANY else go.Scatter
    size = 6 if len(z) < 3000 else 4
    groups = [("latents", np.arange(len(z)), {"color": MUTED, "symbol": "circle"})]
    if classes is not None:
        groups = [(name, np.flatnonzero(classes.index == k), class_style(k)) for k, name in enumerate(classes.names)]
    first, second = plane.dims
    return [
        kind(
            x=x[rows, 0],
            y=x[rows, 1],
            mode="markers",
            name=visible(name),
            marker={**style, "size": size, "opacity": 0.9, "line": {"color": PAPER, "width": 0.7}},
            customdata=np.stack([rows, volumes[rows]], axis=1),
            hovertemplate=(
                f"latent %{{customdata[0]:d}}{'' if classes is None else f', class {visible(name)}'}<br>"
                f"z[{first}] %{{x:.3g}}, z[{second}] %{{y:.3g}}<br>log √det G %{{customdata[1]:.3f}}<extra></extra>"
            ),
        )
        for name, rows, style in groups
    ]
