"""Draws which room of the package imports which, from the code: ``python docs/imports.py`` writes ``imports.svg``."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_name("imports.svg")

ROOMS = (
    *("cli", "app", "viz", "stats", "manifold", "geodesic", "curve", "nnj", "likelihood", "metric", "jacobian"),
    *("zoo", "datasets", "numerics", "_torch"),
)
"""From top to bottom; imports lead downwards. Every room imports `errors` and `typing`, which are left out."""

WIDTH, ROW, BOX, LEFT = 420, 34, 118, 16


def imports() -> Counter[tuple[str, str]]:
    """How many files of one room import something of another."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted((ROOT / "pullgeo").rglob("*.py")):
        room = path.relative_to(ROOT / "pullgeo").parts[0].removesuffix(".py")
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("pullgeo."):
                wanted.add(node.module.split(".")[1])
            elif isinstance(node, ast.ImportFrom) and node.module == "pullgeo":
                wanted.update(alias.name for alias in node.names)
        found.update((room, other) for other in wanted if room in ROOMS and other in ROOMS and other != room)
    return found


def picture() -> str:
    """The rooms as a column, an arc to the right for each pair of rooms, as wide as its files are many."""
    place = {room: LEFT + ROW * i for i, room in enumerate(ROOMS)}
    height = LEFT + ROW * len(ROOMS)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            ' role="img" aria-label="Imports between the rooms of pullgeo" font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for (above, below), files in sorted(imports().items(), key=lambda entry: entry[::-1]):
        a, b = place[above] + 12, place[below] + 12
        reach = LEFT + BOX + 26 + 22 * abs(ROOMS.index(above) - ROOMS.index(below))
        x = LEFT + BOX
        color = "#3b6ea8" if b > a else "#c0392b"
        parts.append(
            f'<path d="M{x} {a} C{reach} {a} {reach} {b} {x} {b}" fill="none" stroke="{color}"'
            f' stroke-opacity="0.55" stroke-width="{0.6 + files**0.5 / 2:.2f}">'
            f"<title>{above} imports {below}: {files} files</title></path>"
        )
    for room, y in place.items():
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="24" rx="4" fill="#f2f4f7" stroke="#5b6470"/>')
        parts.append(f'<text x="{LEFT + BOX / 2}" y="{y + 16}" text-anchor="middle" fill="#1c2430">{room}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
