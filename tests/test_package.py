"""The package as a whole: what it says of itself, what it ships, how it is built."""

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import pullgeo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pullgeo"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], prefix="pullgeo."))
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Where the name to import is not the name to install.
IMPORT_NAMES = {"scikit-learn": "sklearn"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return found


def requirement_names(requirements: list[str]) -> set[str]:
    names = {re.match(r"[\w.-]+", requirement).group() for requirement in requirements}
    return {IMPORT_NAMES.get(name, name) for name in names}


def test_the_version_is_the_same_everywhere():
    assert pullgeo.__version__ == importlib.metadata.version("pullgeo")
    assert f"## [{pullgeo.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version = {{{pullgeo.__version__}}}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_has_what_it_lists(name: str):
    module = importlib.import_module(name)
    missing = [public for public in getattr(module, "__all__", []) if not hasattr(module, public)]
    assert not missing


def test_every_public_name_exists_and_is_documented():
    assert pullgeo.__all__
    undocumented = [name for name in pullgeo.__all__ if name != "__version__" and not getattr(pullgeo, name).__doc__]
    assert not undocumented


def test_every_folder_with_sources_is_a_package():
    folders = {path.parent for path in SOURCES}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_source_file_holds_more_than_one_concept_needs(path: Path):
    assert len(path.read_text().splitlines()) < 600


def test_everything_that_is_not_source_is_shipped():
    patterns = SETTINGS["tool"]["setuptools"]["package-data"]["pullgeo"]
    data = [path for path in PACKAGE.rglob("*.*") if path.suffix not in {".py", ".pyc"} and path.is_file()]
    assert PACKAGE / "py.typed" in data
    assert [path for path in data if path.suffix == ".safetensors"]
    unshipped = [relative(path) for path in data if not any(path.match(p) for p in patterns)]
    assert not unshipped


def test_what_the_package_imports_is_what_it_requires():
    optional = requirement_names([*chain.from_iterable(SETTINGS["project"]["optional-dependencies"].values())])
    required = requirement_names(SETTINGS["project"]["dependencies"])
    library = {name.split(".")[0] for path in SOURCES for name in imported_modules(path)}
    outside = library - sys.stdlib_module_names - {"pullgeo"}
    assert outside - optional == required


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_room_uses_what_another_keeps_to_itself(path: Path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    private = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("pullgeo."):
            parts = node.module.split(".")[1:] + [alias.name for alias in node.names]
            own = parts[0] in {room, "_version", "_torch"}
            private += [part for part in parts if part.startswith("_") and not part.endswith("__") and not own]
    assert not private


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    texts = [path for folder in ("pullgeo", "tests", "examples", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = [path for path in texts if path.suffix in {".py", ".md", ".rst", ".html", ".js", ".toml"}]
    texts += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "setup.cfg", ROOT / ".ci" / "run"]
    absolute = re.compile("/(?:" + "|".join(["home", "root", "tmp", "work", "Users"]) + ")/")
    assert not [relative(path) for path in texts if absolute.search(path.read_text(encoding="utf-8"))]
