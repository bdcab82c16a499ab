"""Writes the page of benchmarks and its picture from stored results: ``python docs/benchmarks.py``."""

import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
PAGE = Path(__file__).with_name("benchmarks.rst")
PICTURE = Path(__file__).with_name("benchmarks.svg")

PICTURED = "geodesic-solvers"
"""The result that the picture shows."""

GROUPS = {
    "Geodesics": [
        "geodesic-solvers",
        "geomstats",
        "stochman-64-pairs",
        "stochman-512-pairs",
        "minima",
        "our-solvers",
        "spheres",
        "one-pair",
        "one-pair-convolutions-2",
        "one-pair-convolutions-10",
        "segments",
        "methods-geodesics",
    ],
    "Metrics": [
        "pullback-metric",
        "pullback-metric-convolutions",
        "networks-2-16",
        "networks-8-16",
        "small-1",
        "small-512",
        "one-point",
        "methods-metrics",
    ],
    "Products over weights": [
        "exact-diagonal",
        "propagated-diagonal",
        "sample-gradients",
        "weight-products-mlp-batch-128",
        "weight-products-lstm-batch-16",
        "weight-products-fourier-layer-batch-16",
        "weight-products-u-net-batch-1",
        "weight-products-gpt-batch-8",
        "weight-diagonal-memory",
    ],
    "Many points": ["means", "kmeans", "exact-pairs", "graphs", "graph-10", "neighbours"],
    "Growth": ["growth", "growth-points"],
}
"""Headings, and the results below each, of which those are shown that are stored."""

WIDTH, LEFT, ROW, TOP, RIGHT = 760, 250, 26, 34, 210

TEXT = """Benchmarks
==========

Made by ``docs/benchmarks.py`` from results that are stored in ``tests/benchmarks/results``. Under each table stand the
command that measures it again, the machine, and the versions of what took part.

Times are ratios of processor time of contenders that took turns in one process: the ratio is taken in each turn, in
which the machine is as busy for one as for the other, and given as its median over all turns, with both quartiles
behind it. Such ratios say little of another machine's seconds and much of who waits longer; lengths, counts and bytes
hardly depend on the machine.

.. code-block:: sh

   pip install -e ".[test,bench]"
   pip install --no-deps backpack-for-pytorch==1.7.1 && pip install finslerax==1.1.0     # where these take part
   PULLGEO_KEEP_BENCHMARKS=1 pytest -n 0 -s tests/benchmarks && python docs/benchmarks.py

.. figure:: benchmarks.svg
   :alt: For each solver its time relative to Newton(), on a logarithmic scale, and how many of its curves are longer

   {caption}
"""

CAPTION = (
    "Time of each solver for a pair of digits, relative to ``Newton()``, on a logarithmic scale; and how many of its "
    "curves are more than 0.1 % longer than the shortest that any of them found."
)


def results() -> dict[str, dict[str, Any]]:
    """All stored tables by their names."""
    files = sorted(RESULTS.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def page() -> str:
    """The text of the page."""
    stored, parts = results(), [TEXT.format(caption=CAPTION)]
    for heading, names in GROUPS.items():
        shown = [section(stored[name]) for name in names if name in stored]
        if shown:
            parts += ["\n".join(["", heading, "-" * len(heading), ""]), *shown]
    return "".join(parts)


def section(result: dict[str, Any]) -> str:
    """One table with its title, what it shows, and how it came about."""
    title, rows = result["title"][0].upper() + result["title"][1:], result["rows"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = ["", title, "~" * len(title), ""]
    if result["note"]:
        lines += [*_wrapped(result["note"]), ""]
    lines += [".. list-table::", "   :header-rows: 1", ""]
    for cells in (list(rows[0]), *(row.values() for row in rows)):
        lines += [f"   {'* -' if i == 0 else '  -'} {_cell(cell)}" for i, cell in enumerate(cells)]
    told = _turns(rows)
    lines += ["", *_wrapped(f"{told}``{result['command']}``; {result['machine']}; {versions}."), ""]
    return "\n".join(lines)


def _turns(rows: list[dict[str, Any]]) -> str:
    """How often was measured what has a spread."""
    found = {cell["turns"] for row in rows for cell in row.values() if isinstance(cell, dict)}
    if not found:
        return ""
    least, most = min(found), max(found)
    if most == 1:
        return "Times of one turn. "
    return f"Medians and quartiles of {f'{least} to {most}' if least < most else most} turns. "


def picture() -> str:
    """A bar for each solver."""
    rows = results()[PICTURED]["rows"]
    ratios = [max(float(row["time / Newton()"]["median"]), 0.1) for row in rows]
    decades = range(max(1, math.ceil(math.log10(max(ratios)))) + 1)
    width, height = WIDTH - LEFT - RIGHT, TOP + ROW * len(rows) + 8
    pixels = width / decades[-1]
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" aria-label="Time of solvers relative to Newton()" font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for decade in decades:
        x = LEFT + pixels * decade
        parts.append(f'<path d="M{x:.1f} {TOP - 8} V{height - 8}" stroke="#d5dae1"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 14}" text-anchor="middle" fill="#5b6470">{10**decade} ×</text>')
    for i, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        y, own = TOP + ROW * i, row["solver"].startswith("Newton")
        long = max(2.0, pixels * math.log10(ratio))
        label = row["solver"].replace('"', "&quot;")
        told = f"{row['longer than the best by over 0.1 %']} of {row['pairs']} longer"
        if row["not found"]:
            told += f", {row['not found']} not found"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end" fill="#1c2430">{label}</text>')
        parts.append(
            f'<rect x="{LEFT}" y="{y + 1}" width="{long:.1f}" height="18" fill="{"#3b6ea8" if own else "#a8b3c2"}"/>'
        )
        parts.append(f'<text x="{LEFT + long + 6:.1f}" y="{y + 14}" fill="#1c2430">{ratio:.3g} ×, {told}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _cell(value: object) -> str:
    if isinstance(value, dict):
        middle, low, high = (_number(value[part]) for part in ("median", "low", "high"))
        return middle if low == high else f"{middle} ({low} to {high})"
    if isinstance(value, float):
        return _number(value)
    text = "—" if value is None else str(value)
    return f"``{text}``" if text.endswith(")") and "(" in text else text


def _number(value: float) -> str:
    """Three digits, without an exponent where that is short."""
    if value == 0:
        return "0"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _wrapped(text: str, width: int = 118) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")
