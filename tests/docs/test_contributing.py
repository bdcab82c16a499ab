"""The two pages for contributors name what there is: files, folders, rooms, and names in files."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pullgeo"
TABLE, GUIDE = ROOT / "docs" / "contributing.rst", ROOT / "CONTRIBUTING.md"
PAGES = (GUIDE, TABLE)
BUILT = {"docs/_build"}
ENDINGS = ("cfg", "js", "json", "md", "mjs", "py", "pyi", "rst", "svg", "toml")
FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"(`+)([^`]+)\1")
PATH = re.compile(r"(?<![\w/.<>*-])\.?[\w<>*-][\w.<>*-]*(?:/[\w.<>*-]+)*/?(?![\w/])")
NAME_IN_FILE = re.compile(r"``(\w+)``\s+in\s+``([\w./]+)``")


def spans(text: str) -> list[str]:
    """What is written as code on a page: fenced blocks, and what stands between backticks."""
    return [*FENCED.findall(text), *(code for _, code in QUOTED.findall(FENCED.sub("", text)))]


def is_path(word: str) -> bool:
    return "/" in word or word.rsplit(".", 1)[-1] in ENDINGS


def paths(text: str) -> list[str]:
    """The paths that a page names; a sentence's full stop is none of theirs."""
    words = (word.rstrip(".") for code in spans(text) for word in PATH.findall(code))
    return [word for word in dict.fromkeys(words) if is_path(word) and word not in BUILT]


def found(path: str) -> list[Path]:
    """Where a path leads, from the root or from the package; one to be chosen must have neighbours of its kind.

    A path without an ending is that of a folder or of a file of Python.
    """
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    return [at for base in (ROOT, PACKAGE) for end in ("", ".py") for at in base.glob(pattern + end)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_of_a_page_for_contributors_exists(page: Path) -> None:
    named = paths(page.read_text("utf-8"))
    assert len(named) > 15
    missing = [path for path in named if not found(path)]
    assert not missing, f"{page.name} names what does not exist: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_said_to_be_in_a_file_is_there(page: Path) -> None:
    for name, path in NAME_IN_FILE.findall(page.read_text("utf-8")):
        files = [at for at in found(path) if at.is_file()]
        assert any(re.search(rf"\b{name}\b", at.read_text("utf-8")) for at in files), f"{page.name}: {name} in {path}"


def test_every_room_that_names_are_exported_from_can_be_imported() -> None:
    rows = re.split(r"^   \* - ", TABLE.read_text("utf-8"), flags=re.MULTILINE)[2:]
    assert len(rows) > 15
    for row in rows:
        cells = re.split(r"^     - ", row.split("\n\n")[0], flags=re.MULTILINE)
        assert len(cells) == 4, cells[0]
        for name in re.findall(r"``([\w.]+)``", cells[3]):
            assert importlib.import_module(f"pullgeo.{name}").__all__


def test_the_table_of_rooms_has_every_room_and_what_is_in_it() -> None:
    rows = re.findall(r"^\| (`.+?) \| .+? \|(.*)\|$", GUIDE.read_text("utf-8"), flags=re.MULTILINE)
    rooms = {name: inside for names, inside in rows for name in re.findall(r"`(\w+)`", names)}
    there = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    beside = {"__init__", "__main__", "__pycache__", "_lazy", "_repr", "_version", "py", "testing"}
    assert set(rooms) == there - beside
    for room, inside in rooms.items():
        for name in re.findall(r"`(\w+)`", inside):
            assert any(path.stem == name for path in (PACKAGE / room).rglob("*")), f"{name} in {room}"


PAGE = """
In `a/b.py`, or ``docs/*.rst``; ``NAMES`` in ``a/<kind>.py``. Not 1/2, `x / y`, `Ambient.metric` or `1.5`.

```sh
python tests/a.py --seed 0 && sphinx-build -W docs docs/_build
```
"""


def test_paths_are_seen_where_they_stand() -> None:
    assert paths(PAGE) == ["tests/a.py", "a/b.py", "docs/*.rst", "a/<kind>.py"]
    assert found("jacobian/rules/<family>.py")
    assert found("geodesic/solvers")
    assert not found("metric/dense.py")
    assert not found("jacobian/nowhere/<family>.py")
