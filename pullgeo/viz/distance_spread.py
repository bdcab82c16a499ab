"""Distances of pairs as the members of an ensemble see them."""

import plotly.graph_objects as go

from pullgeo.stats.uncertainty import DistanceUncertainty, Verdict
from pullgeo.viz.style import CLASS_COLOURS, HAIRLINE, INK, WARNING, styled

_COLOURS = {
    Verdict.AGREE: CLASS_COLOURS[2],
    Verdict.ROUGH: CLASS_COLOURS[1],
    Verdict.DISAGREE: WARNING,
    Verdict.NOT_SOLVED: HAIRLINE,
}


def distance_spread(found: DistanceUncertainty) -> go.Figure:
    """A picture of `stats.distance_uncertainty`: pairs by their mean distance, with what each way to measure says.

    Bars reach one standard deviation over the members to both sides and have the colour of the pair's verdict; beside
    them stand the expected metric and the independent members, whose floor is a thin line.

    Example:
        >>> import torch
        >>> from pullgeo.stats import distance_uncertainty
        >>> from pullgeo.viz import distance_spread
        >>> decoders = [torch.nn.Linear(2, 5).double() for _ in range(3)]
        >>> z = torch.randn(2, 4, 2, dtype=torch.float64)
        >>> figure = distance_spread(distance_uncertainty(decoders, z[0], z[1]))
        >>> [trace.name for trace in figure.data][-3:]
        ['expected metric', 'independent members, T = 16', 'their floor']
    """
    # NaN, of pairs without a geodesic, goes last
    order = found.mean.nan_to_num(nan=float("inf")).argsort()
    place = list(range(len(order)))
    mean, std = found.mean[order].tolist(), found.std[order].tolist()
    verdicts = [found.verdict[i] for i in order.tolist()]
    figure = go.Figure()
    for verdict, colour in _COLOURS.items():
        rows = [k for k in place if verdicts[k] is verdict]
        if rows:
            figure.add_scatter(
                x=rows,
                y=[mean[k] for k in rows],
                error_y={"type": "data", "array": [std[k] for k in rows], "color": colour},
                mode="markers",
                marker={"color": colour, "size": 8},
                name=f"members: {verdict.name}",
                customdata=[int(order[k]) for k in rows],
                hovertemplate="pair %{customdata}: %{y:.4g}<extra>" + verdict.name + "</extra>",
            )
    others = (
        ("expected metric", found.expected, "markers", "line-ew-open"),
        (f"independent members, T = {found.segments}", found.independent, "markers", "x-thin-open"),
    )
    for name, values, mode, symbol in others:
        figure.add_scatter(
            x=place, y=values[order].tolist(), mode=mode, name=name, marker={"symbol": symbol, "color": INK, "size": 8}
        )
    figure.add_scatter(
        x=place, y=found.floor[order].tolist(), mode="lines", name="their floor", line={"color": HAIRLINE, "width": 1}
    )
    return styled(
        figure,
        xaxis={"title": "pairs, by mean distance", "gridcolor": HAIRLINE},
        yaxis={"title": "distance, in units of the output", "gridcolor": HAIRLINE, "rangemode": "tozero"},
    )
