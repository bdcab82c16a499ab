"""Figures and words on one page that opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from string import Template

import plotly.graph_objects as go
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from pullgeo._version import __version__
from pullgeo.errors import OptionError
from pullgeo.numerics.atomic_file import write_atomically
from pullgeo.viz.table import Cell, Table

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; worker-src blob:"
)
"""A browser enforces what a page promises: nothing is fetched. Plotly compiles its WebGL programs with eval."""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page.

    Attributes:
        heading: its heading.
        text: plain text under the heading; an empty line starts a new paragraph.
        body: a figure or a table, if any.
    """

    heading: str
    text: str = ""
    body: go.Figure | Table | None = None


def page(
    sections: Sequence[Section | go.Figure | Table],
    path: str | PathLike[str],
    *,
    title: str = "Latent geometry",
    lead: str = "",
) -> Path:
    """Write figures, tables and words as one HTML file.

    The file holds everything, plotly's library once, and loads nothing: a policy in its head has the browser forbid it.
    The file appears whole or not at all; an older one of its name is replaced.

    Args:
        sections: what to show, in order; bare figures and tables have no heading.
        path: where to write; the folder must exist.
        title: the page's title.
        lead: plain text under the title; an empty line starts a new paragraph.

    Returns:
        The path written to.

    Raises:
        OptionError: an entry of ``sections`` is not a section, figure or table.
        OSError: the file cannot be written.

    Example:
        >>> import plotly.graph_objects as go, tempfile
        >>> from pullgeo import viz
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     viz.page([go.Figure(go.Scatter(x=[0, 1], y=[1, 0]))], Path(folder) / "page.html").stat().st_size > 1e6
        True
    """
    css, html = (files("pullgeo.viz").joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "html"))
    content = Template(html).substitute(
        version=__version__,
        policy=POLICY,
        title=escape(title),
        lead=paragraphs(lead),
        css=css,
        js=page_script(),
        plotly=get_plotlyjs(),
        sections="\n".join(section_html(entry) for entry in sections),
    )
    target = Path(path)
    write_atomically(target, content)
    return target


def page_script() -> str:
    """What draws the figures of sections."""
    return files("pullgeo.viz").joinpath("page.js").read_text(encoding="utf-8")


def section_html(entry: Section | go.Figure | Table) -> str:
    """A section as markup.

    Raises:
        OptionError: it is not one.
    """
    if isinstance(entry, go.Figure | Table):
        entry = Section("", body=entry)
    if not isinstance(entry, Section) or not isinstance(entry.body, go.Figure | Table | None):
        got = f"a Section of a {type(entry.body).__name__}" if isinstance(entry, Section) else type(entry).__name__
        raise OptionError(f"page: sections must be Section, Figure or Table, got {got}.")
    heading = f"<h2>{escape(entry.heading)}</h2>" if entry.heading else ""
    body = _figure(entry.body) if isinstance(entry.body, go.Figure) else ""
    body = _table(entry.body) if isinstance(entry.body, Table) else body
    return f"<section>\n{heading}\n{paragraphs(entry.text)}\n{body}\n</section>"


def paragraphs(text: str) -> str:
    """Plain text as paragraphs."""
    return "\n".join(f"<p>{escape(' '.join(part.split()))}</p>" for part in text.split("\n\n") if part.strip())


def _figure(figure: go.Figure) -> str:
    height = figure.layout.height or 450
    # JSON in a script element must not contain "</"; plotly's own serialiser escapes it in figures alone
    data = to_json(figure, validate=False).replace("<", "\\u003c")
    return (
        f'<div class="figure"><div class="plot" style="height: {int(height)}px"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def _table(table: Table) -> str:
    kinds = [cell.kind for cell in table.rows[0]] if table.rows else ["text"] * len(table.columns)
    head = "".join(_head(column, kind) for column, kind in zip(table.columns, kinds, strict=True))
    rows = "\n".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    )


def _head(column: str, kind: str) -> str:
    # a heading stands over its column as the entries do
    aligned = ' class="number"' if kind == "number" else ""
    return f'<th scope="col"{aligned}>{escape(column)}</th>'


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.kind == "badge":
        return f'<td><span class="badge">{text}</span></td>'
    return f'<td class="{escape(cell.kind)}">{text}</td>'
