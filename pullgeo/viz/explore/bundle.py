"""The page's JavaScript: ES modules joined into one script, in the order of their imports."""

import functools
import re
from importlib.resources import files

_IMPORT = re.compile(r'^import\s+(?:\{[^}]*\}\s+from\s+)?"(?P<path>[^"]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export\s+(?=(?:async\s+)?(?:function|class|const|let)\b)", re.MULTILINE)


@functools.cache
def bundle(entry: str) -> str:
    """A module of ``front`` and all that it imports as one script, without ``import`` and ``export``.

    The modules' top-level names must differ from each other; a test sees to that.

    Args:
        entry: its path in ``front``, such as ``"hosts/page.js"``.

    Example:
        >>> script = bundle("hosts/page.js")
        >>> "import " in script.split("function mount")[0].split("*/")[-1], "class Surface" in script
        (False, True)
    """
    parts: dict[str, str] = {}
    _collect(entry, parts)
    return "\n".join(parts.values())


def front(name: str) -> str:
    """The text of a file of ``front``."""
    return files("pullgeo.viz.explore").joinpath("front", name).read_text(encoding="utf-8")


def modules(entry: str) -> tuple[str, ...]:
    """The paths of a module and of all that it imports, those it needs first."""
    parts: dict[str, str] = {}
    _collect(entry, parts)
    return tuple(parts)


def _collect(path: str, parts: dict[str, str]) -> None:
    if path in parts:
        return
    text = front(path)
    folder = path.rpartition("/")[0]
    for match in _IMPORT.finditer(text):
        _collect(_resolved(folder, match["path"]), parts)
    parts[path] = _EXPORT.sub("", _IMPORT.sub("", text))


def _resolved(folder: str, path: str) -> str:
    steps = [step for step in folder.split("/") if step]
    for step in path.split("/"):
        if step == "..":
            steps.pop()
        elif step != ".":
            steps.append(step)
    return "/".join(steps)
