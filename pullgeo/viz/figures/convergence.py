"""How solvers converge, pair by pair."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from pullgeo.errors import OptionError
from pullgeo.geodesic.solution import Solution
from pullgeo.viz.classes import visible
from pullgeo.viz.figures.canvas import Canvas, Look
from pullgeo.viz.pairs import converged_mask

_LEAST = 1e-16
"""What is smaller is drawn here: a logarithm has no place for 0."""


def convergence(
    solutions: Solution | Mapping[str, Solution],
    quantity: Literal["steps", "residual", "error"] = "steps",
    *,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """The share of pairs that were solved within so many steps, to such a residual, or with such an error estimate.

    One curve for each solver, a distribution function over the pairs: the higher and the further left, the better. It
    ends at the share of pairs that converged at all; those that did not count as never.

    Args:
        solutions: a solution, or several by the names of what found them.
        quantity: ``steps``; ``residual``, the scale-free norm of the energy's gradient; or ``error``, the error
            estimate relative to the length.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Raises:
        OptionError: these are no solutions, one has no pairs, or quantity or where to draw is invalid.

    Source: Dolan and Moré, *Benchmarking optimization software with performance profiles*, 2002.

    Example:
        >>> import torch
        >>> from pullgeo import Newton, PullbackManifold, viz
        >>> manifold = PullbackManifold(torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh()))
        >>> z = torch.randn(3, 2)
        >>> found = {f"{n} segments": manifold.geodesic(z, z + 1, Newton(segments=n)) for n in (8, 16)}
        >>> [trace.name for trace in viz.convergence(found).data]
        ['8 segments, 3 of 3', '16 segments, 3 of 3']
    """
    where = "convergence"
    canvas = Canvas(where, figure, row, col, look, height=250)
    titles = {"steps": "steps", "residual": "residual", "error": "error estimate / length"}
    if quantity not in titles:
        raise OptionError(f"{where}: quantity must be one of {', '.join(titles)}, got {quantity!r}.")
    named = {"pairs": solutions} if isinstance(solutions, Solution) else solutions
    if not isinstance(named, Mapping) or not named or not all(isinstance(s, Solution) for s in named.values()):
        raise OptionError(f"{where}: expected a Solution, or several by name, got {solutions!r}.")
    for k, (name, solution) in enumerate(named.items()):
        if not len(solution):
            raise OptionError(f"{where}: the solution {name!r} has no pairs.")
        good = converged_mask(solution)
        values = np.sort(_values(solution, quantity)[good])
        share = np.arange(1, len(values) + 1) / len(good)
        if quantity != "steps":
            values = np.maximum(values, _LEAST)
        first = values[:1] if len(values) else np.zeros(0)
        canvas.add(
            go.Scatter(
                # from 0 up at the first pair
                x=np.concatenate([first, values]),
                y=np.concatenate([np.zeros(len(first)), share]),
                mode="lines",
                line={**canvas.theme.dash(k), "width": 1.6, "shape": "hv"},
                name=f"{visible(name)}, {int(good.sum())} of {len(good)}",
            )
        )
    logarithmic = {"type": "log", "exponentformat": "power", "dtick": 2}
    x = {"rangemode": "tozero"} if quantity == "steps" else logarithmic
    canvas.axes(
        {"title": {"text": titles[quantity]}, **x},
        {"title": {"text": "share of pairs"}, "range": [0, 1.03], "tickformat": ".0%"},
    )
    canvas.legend(orientation="h", x=0, y=-0.28, yanchor="top")
    return canvas.figure


def _values(solution: Solution, quantity: str) -> np.ndarray:
    if quantity == "steps":
        return solution.iterations.numpy(force=True).astype(np.float64)
    if quantity == "residual":
        return solution.residual.double().numpy(force=True)
    length = solution.length.detach().double()
    return (solution.error_estimate.double() / length.clamp_min(1e-300)).numpy(force=True)
