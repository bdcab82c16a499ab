"""Colours, fonts and the layout that all figures share."""

import plotly.graph_objects as go

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
INK = "#1b2129"
MUTED = "#5b6673"
HAIRLINE = "#d9dee4"
PAPER = "#ffffff"
WARNING = "#c1121f"

# Okabe and Ito's colours, with black (the geodesics' own) exchanged for three dark hues. They are at least 0.07 apart
# in OKLab, for normal sight and for each kind of dichromacy.
CLASS_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
    "#f0e442",
    "#640000",
    "#3a1d8a",
    "#a02828",
)
# Neighbours differ in their symbols as well, and so do rounds of the same colours.
CLASS_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
MAX_CLASSES = len(CLASS_COLOURS) * len(CLASS_SYMBOLS)

# Lightness falls linearly in OKLab and chroma stays low, so that equal steps look equal, the scale survives every kind
# of colour vision, and points drawn on it keep their own colours.
DENSITY_SCALE = (
    "#fdfaf3",
    "#e2e3e3",
    "#c9cdd3",
    "#afb7c3",
    "#97a1b4",
    "#7f8ca4",
    "#677894",
    "#516385",
    "#3b5075",
)


def styled(figure: go.Figure, **layout: object) -> go.Figure:
    """Give a new figure the common fonts, paper and hover boxes, and the layout passed in."""
    figure.update_layout(
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        hoverlabel={"bgcolor": PAPER, "bordercolor": HAIRLINE, "font": {"family": FONT, "size": 12, "color": INK}},
        hovermode="closest",
        **layout,
    )
    return figure


def class_style(k: int) -> dict[str, str]:
    """Colour and symbol of the k-th class."""
    turn, hue = divmod(k, len(CLASS_COLOURS))
    return {"color": CLASS_COLOURS[hue], "symbol": CLASS_SYMBOLS[(hue + turn) % len(CLASS_SYMBOLS)]}
