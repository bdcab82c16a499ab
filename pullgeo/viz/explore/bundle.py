"""The modules of the front end, joined into one script."""

import re
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

_IMPORT = re.compile(r"^import\s+\{[^}]*\}\s+from\s+\"(?P<path>[^\"]+)\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export\s+(?=(?:async\s+)?(?:function|class|const|let)\b)", re.MULTILINE)


@cache
def bundle(entry: str) -> str:
    """A module and all that it imports, each before those that use it, without the lines that join modules.

    Args:
        entry: its path below ``front``, such as ``hosts/server.js``.

    Raises:
        FileNotFoundError: a module is missing.
    """
    parts: dict[str, str] = {}
    _collect(entry, parts)
    return "\n".join(parts.values())


def front(name: str) -> str:
    """The text of a file of the front end."""
    return files("pullgeo.viz.explore").joinpath("front", *name.split("/")).read_text(encoding="utf-8")


def _collect(path: str, parts: dict[str, str]) -> None:
    if path in parts:
        return
    text = front(path)
    for found in _IMPORT.finditer(text):
        _collect(_resolved(PurePosixPath(path).parent / found["path"]), parts)
    # after what it imports; a circle of functions that call each other is no obstacle
    parts.setdefault(path, f"// {path}\n" + _EXPORT.sub("", _IMPORT.sub("", text)))


def _resolved(path: PurePosixPath) -> str:
    kept: list[str] = []
    for part in path.parts:
        if part == "..":
            kept.pop()
        elif part != ".":
            kept.append(part)
    return "/".join(kept)
