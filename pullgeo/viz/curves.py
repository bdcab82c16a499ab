"""Geodesics and straight lines as traces on a map."""

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
from pullgeo.stats.lengths import curve_points, straight_lines
from pullgeo.viz.classes import visible
from pullgeo.viz.pairs import converged_mask, pair_names
from pullgeo.viz.plane import Plane
from pullgeo.viz.sprites import SpriteSheet
from pullgeo.viz.style import INK, PAPER, WARNING

_STEPS = 101
# Where on a curve its number stands: before the middle, where many curves meet.
_NUMBER_AT = 0.3


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

    def traces(self, plane: Plane, sprites: SpriteSheet | None) -> list[go.Scatter]:
        """Straight lines, geodesics, and what did not converge, one trace each; then ends and numbers."""
        everything = np.ones_like(self.converged)
        kinds = (
            ("straight line", self.lines, everything, {"color": INK, "width": 1.6, "dash": "3px,3px"}),
            ("geodesic", self.geodesics, self.converged, {"color": INK, "width": 2.5}),
            ("not converged", self.geodesics, ~self.converged, {"color": WARNING, "width": 2.5, "dash": "dash"}),
        )
        shown = [self._lines(plane, sprites, *kind) for kind in kinds if kind[2].any()]
        return [trace for pair in shown for trace in pair] + self._marks(plane)

    def _lines(
        self,
        plane: Plane,
        sprites: SpriteSheet | None,
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
            meta=None if sprites is None else sprites.for_points(points),
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
