"""Speed and energy along curves."""

from typing import Literal

import numpy as np
import plotly.graph_objects as go
import torch

from pullgeo.curve.discrete import straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.lengths import cumulative_lengths
from pullgeo.viz.figures.canvas import Canvas, Look

_CHORDS = 128


def speed_profile(
    manifold: Manifold,
    solution: Solution,
    quantity: Literal["speed", "energy", "length"] = "speed",
    *,
    pair: int = 0,
    figure: go.Figure | None = None,
    row: int | None = None,
    col: int | None = None,
    look: Look = "print",
) -> go.Figure:
    """How fast the output changes along a geodesic and along the straight line between its ends.

    ``speed`` is ``‖ċ(t)‖_G``, from chords of 1/128 of the parameter; ``energy`` is ``∫₀ᵗ ‖ċ‖²``, which is least along a
    geodesic; ``length`` is ``∫₀ᵗ ‖ċ‖``. Along a geodesic the first is constant and the others are straight.

    Args:
        manifold: the latent space.
        solution: whose curve it is.
        quantity: which one.
        pair: which of its curves.
        figure: to draw on; a new one if ``None``.
        row: the subplot of ``figure``, counted from 1.
        col: likewise.
        look: ``"print"`` or ``"dark"``.

    Raises:
        OptionError: quantity, pair, or where to draw is invalid.

    Cost: 256 decodings.

    Example:
        >>> from pullgeo import PullbackManifold, viz
        >>> manifold = PullbackManifold(torch.nn.Linear(2, 3))
        >>> solution = manifold.geodesic(torch.zeros(1, 2), torch.ones(1, 2))
        >>> [trace.name for trace in viz.speed_profile(manifold, solution).data]
        ['straight line', 'geodesic']
    """
    where = "speed_profile"
    canvas = Canvas(where, figure, row, col, look, height=210)
    check_manifold(where, manifold)
    titles = {"speed": "speed ‖ċ(t)‖", "energy": "energy up to t", "length": "length up to t"}
    if quantity not in titles:
        raise OptionError(f"{where}: quantity must be one of {', '.join(titles)}, got {quantity!r}.")
    if not isinstance(pair, int) or not 0 <= pair < len(solution):
        raise OptionError(f"{where}: pair must be a whole number from 0 to {len(solution) - 1}, got {pair!r}.")
    curve = solution.curve[[pair]]
    times = torch.linspace(0, 1, _CHORDS + 1, dtype=torch.float64, device=curve.begin.device)
    with torch.no_grad():
        found = curve.to(torch.float64)(times)
        straight = straight_line(curve.begin.double(), curve.end.double(), _CHORDS).nodes
        steps = cumulative_lengths(manifold, torch.cat([straight, found])).diff(dim=1).numpy(force=True) * _CHORDS
    good = bool(solution.converged[pair])
    own = {"color": canvas.theme.ink, "width": 1.8} if good else {"color": canvas.theme.warning, "width": 1.8}
    lines = (
        ("straight line", steps[0], {"color": canvas.theme.lines[1], "width": 1.4, "dash": "3px,2px"}),
        ("geodesic" if good else "not converged", steps[1], own | ({} if good else {"dash": "8px,2px,1.5px,2px"})),
    )
    t = times.numpy(force=True)
    for name, speed, line in lines:
        if quantity == "speed":
            x, y = (t[1:] + t[:-1]) / 2, speed
        else:
            x, y = t, np.concatenate([[0.0], np.cumsum(speed ** (2 if quantity == "energy" else 1))]) / _CHORDS
        canvas.add(go.Scatter(x=x, y=y, mode="lines", line=line, name=name, legendgroup=f"profile {name}"))
    canvas.axes({"title": {"text": "t"}, "range": [0, 1]}, {"title": {"text": titles[quantity]}, "rangemode": "tozero"})
    canvas.legend(orientation="h", x=0, y=1.0, yanchor="bottom")
    return canvas.figure
