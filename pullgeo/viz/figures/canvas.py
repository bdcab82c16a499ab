"""Where a figure is drawn, and in which colours."""

from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from pullgeo.errors import OptionError
from pullgeo.viz.style import CLASS_COLOURS, CLASS_SYMBOLS, DENSITY_SCALE, FONT

Look = Literal["print", "dark"]
"""White ground with dark ink, or the reverse."""

DASHES = ("solid", "5px,3px", "1.5px,2px", "8px,2px,1.5px,2px", "10px,4px")
"""Lines are told apart by these as well as by their colours."""

_WIDTH, _HEIGHT = 340, 290
"""Of a new figure: a column of 90 mm, at 96 pixels an inch. Its letters are printed in 8 points then."""

_SIZE = 11


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Attributes:
        ink: lines and letters.
        paper: the ground.
        muted: what stands back.
        hairline: axes.
        warning: what did not converge, which is dashed as well.
        classes: one for each class, and for each of several lines.
        sequential: from little to much; lightness changes evenly.
        diverging: from negative over 0, as light or dark as the ground, to positive.
    """

    ink: str
    paper: str
    muted: str
    hairline: str
    warning: str
    classes: tuple[str, ...]
    sequential: tuple[str, ...]
    diverging: tuple[str, ...]

    def dash(self, k: int) -> dict[str, Any]:
        """Colour and dash of the k-th of several lines; no two of the first 25 agree in either all the way."""
        return {"color": self.lines[k % len(self.lines)], "dash": DASHES[(k + k // len(DASHES)) % len(DASHES)]}

    @property
    def lines(self) -> tuple[str, ...]:
        """Colours for thin lines: the ink first, and none as light as the ground."""
        return (self.ink, *(self.classes[k] for k in (0, 3, 2, 5)))

    def mark(self, k: int) -> dict[str, Any]:
        """Colour and symbol of the k-th class; no two of the first 50 agree in both."""
        turn, hue = divmod(k, len(self.classes))
        return {"color": self.classes[hue], "symbol": CLASS_SYMBOLS[(hue + turn) % len(CLASS_SYMBOLS)]}


PRINT = Theme(
    ink="#1b2129",
    paper="#ffffff",
    muted="#5b6673",
    hairline="#9aa4af",
    warning="#c1121f",
    classes=CLASS_COLOURS,
    sequential=DENSITY_SCALE,
    diverging=("#2b5c8a", "#6a93b8", "#b0c7da", "#f7f5f0", "#ecc19c", "#cf8a4c", "#9c5210"),
)

DARK = Theme(
    ink="#e8edf2",
    paper="#12161b",
    muted="#9aa7b4",
    hairline="#55616d",
    warning="#ff8a80",
    # the dark ones of the print palette exchanged for light ones
    classes=(
        "#56b4e9",
        "#e69f00",
        "#00b386",
        "#f0733a",
        "#a3d8f4",
        "#e091bd",
        "#f0e442",
        "#c8ccd0",
        "#8f8ce0",
        "#c05050",
    ),
    sequential=("#161b21", "#232c38", "#313f50", "#405369", "#506882", "#637e9a", "#7b95af", "#99aec4", "#bccad9"),
    diverging=("#8fc1ec", "#5b8fbd", "#35597a", "#20262d", "#70492a", "#b07a45", "#f0b578"),
)

_THEMES = {"print": PRINT, "dark": DARK}


def theme_of(where: str, look: Any) -> Theme:
    """The colours of a look.

    Raises:
        OptionError: there is no such look.
    """
    if not isinstance(look, str) or look not in _THEMES:
        raise OptionError(f"{where}: look must be 'print' or 'dark', got {look!r}.")
    return _THEMES[look]


class Canvas:
    """A new figure, or a subplot of one that was passed in.

    Args:
        where: the function that draws, for messages.
        figure: to draw on; a new one if ``None``.
        row: the subplot's, counted from 1, where the figure has several.
        col: likewise.
        look: see `Look`.
        title: of a new figure.
        scene: whether what is drawn has three dimensions.

    Raises:
        OptionError: the figure is none, has no such subplot, one of another kind, or there is no such look.
    """

    def __init__(
        self,
        where: str,
        figure: go.Figure | None,
        row: int | None,
        col: int | None,
        look: Look,
        *,
        title: str | None = None,
        scene: bool = False,
        width: int = _WIDTH,
        height: int = _HEIGHT,
    ) -> None:
        self.theme = theme_of(where, look)
        if figure is None and (row is not None or col is not None):
            raise OptionError(f"{where}: row and col name a subplot of figure=, which was not given.")
        if figure is not None and not isinstance(figure, go.Figure):
            raise OptionError(f"{where}: figure must be a plotly Figure, got {type(figure).__name__}.")
        self.is_new = figure is None
        self.figure = figure or go.Figure()
        self._place = _place(where, self.figure, row, col, scene)
        if self.is_new:
            self.figure.update_layout(template=template(look), width=width, height=height)
            if title is not None:
                self.figure.update_layout(title_text=title, margin_t=34)
            if scene:
                self.figure.update_layout(margin={"l": 0, "r": 0, "b": 0})

    def add(self, *traces: Any) -> None:
        """Draw traces."""
        for trace in traces:
            self.figure.add_trace(trace, **self._place)

    def axes(self, x: dict[str, Any], y: dict[str, Any], equal: bool = False) -> None:
        """Set properties of the subplot's axes; with ``equal`` both have the same scale."""
        place = self._place
        self.figure.update_xaxes(x, **place)
        self.figure.update_yaxes(y, **place)
        if equal:
            anchor = self._axis("xaxis").removeprefix("xaxis")
            self.figure.update_xaxes(constrain="domain", **place)
            self.figure.update_yaxes(scaleanchor=f"x{anchor}", scaleratio=1, constrain="domain", **place)

    def colorbar(self, title: str, **more: Any) -> dict[str, Any]:
        """A colour bar beside the subplot."""
        bar = {
            "title": {"text": title, "side": "right"},
            "thickness": 9,
            "outlinewidth": 0,
            "ticklen": 3,
            "xpad": 4,
            "tickcolor": self.theme.hairline,
        }
        if self._place:
            x, y = self._domains()
            bar |= {"x": x[1], "xanchor": "left", "y": sum(y) / 2, "len": y[1] - y[0], "lenmode": "fraction"}
        return bar | more

    def legend(self, **layout: Any) -> None:
        """Place the legend of a new figure; one that was passed in keeps its own."""
        if self.is_new:
            self.figure.update_layout(legend=layout)

    def scene(self, **properties: Any) -> None:
        """Set properties of the subplot of three dimensions."""
        self.figure.update_scenes(properties, **self._place)

    def _axis(self, name: str) -> str:
        return getattr(self.figure.get_subplot(**self._place), name).plotly_name if self._place else name

    def _domains(self) -> tuple[tuple[float, float], tuple[float, float]]:
        subplot = self.figure.get_subplot(**self._place)
        if isinstance(subplot, go.layout.Scene):
            return tuple(subplot.domain.x), tuple(subplot.domain.y)
        return tuple(subplot.xaxis.domain), tuple(subplot.yaxis.domain)


def _place(where: str, figure: go.Figure, row: Any, col: Any, scene: bool) -> dict[str, int]:
    if (row is None) != (col is None):
        raise OptionError(f"{where}: row and col must be given together, got row={row!r}, col={col!r}.")
    if row is None:
        grid = getattr(figure, "_grid_ref", None) or [[]]
        if sum(len(line) for line in grid) > 1:
            raise OptionError(f"{where}: the figure has several subplots; say which one with row= and col=.")
        return {}
    try:
        found = figure.get_subplot(row, col)
    except Exception as error:  # plotly raises a bare one where there is no grid
        raise OptionError(
            f"{where}: the figure has no subplot in row {row!r} and column {col!r}. Make it with "
            "plotly.subplots.make_subplots(rows=..., cols=...)."
        ) from error
    if found is None or isinstance(found, go.layout.Scene) != scene or not hasattr(found, "xaxis"):
        need = "{'type': 'scene'}" if scene else "{'type': 'xy'}"
        raise OptionError(f"{where}: the subplot in row {row} and column {col} must be of the kind specs={need}.")
    return {"row": row, "col": col}


def template(look: Look = "print") -> go.layout.Template:
    """The template of the figures for papers, for figures of your own beside them.

    Letters have 8 points where the figure is printed as wide as a column (90 mm). Save a figure as vectors with
    ``figure.write_image("figure.pdf")``, which needs the package kaleido.

    Args:
        look: ``"print"``, dark ink on white, or ``"dark"``.

    Raises:
        OptionError: there is no such look.

    Example:
        >>> import plotly.graph_objects as go
        >>> from pullgeo import viz
        >>> figure = go.Figure(go.Scatter(x=[0, 1], y=[1, 0])).update_layout(template=viz.template("dark"))
        >>> figure.layout.template.layout.paper_bgcolor
        '#12161b'
    """
    theme = theme_of("template", look)
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": theme.hairline,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 3,
        "tickcolor": theme.hairline,
        "title": {"standoff": 6},
        "automargin": True,
    }
    solid = {"backgroundcolor": theme.paper, "gridcolor": theme.hairline, "color": theme.muted, "showspikes": False}
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": _SIZE, "color": theme.ink},
            "title": {"font": {"size": _SIZE + 1}, "x": 0.02, "xanchor": "left", "y": 0.98, "yanchor": "top"},
            "paper_bgcolor": theme.paper,
            "plot_bgcolor": theme.paper,
            "colorway": list(theme.classes),
            "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
            "xaxis": axis,
            "yaxis": axis,
            "scene": {"xaxis": solid, "yaxis": solid, "zaxis": solid},
            "legend": {
                "font": {"size": _SIZE - 1},
                "bgcolor": "rgba(0,0,0,0)",
                "itemsizing": "constant",
                "tracegroupgap": 2,
            },
            "hoverlabel": {
                "bgcolor": theme.paper,
                "bordercolor": theme.hairline,
                "font": {"family": FONT, "size": _SIZE, "color": theme.ink},
            },
            "hovermode": "closest",
        }
    )


def colorscale(colours: tuple[str, ...]) -> list[list[Any]]:
    """The colours at equal steps, as plotly takes them."""
    return [[k / (len(colours) - 1), colour] for k, colour in enumerate(colours)]
