"""The package as a whole: what it says of itself, what it ships, how it is built."""

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
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
ROOMS = ("app", "curve", "geodesic", "jacobian", "likelihood", "manifold", "metric", "stats", "testing", "viz")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Where the name to import is not the name to install.
IMPORT_NAMES = {"laplace-torch": "laplace", "scikit-learn": "sklearn"}


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


def test_names_that_come_when_they_are_used_are_those_that_type_checkers_see():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    seen = next(node for node in ast.walk(tree) if isinstance(node, ast.If))
    typed = {alias.name for node in seen.body for alias in node.names}
    assert typed | {"__version__"} == set(pullgeo.__all__)
    assert set(dir(pullgeo)) == typed
    for name in typed:
        assert getattr(pullgeo, name).__doc__
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = pullgeo.nothing_of_ours


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import pullgeo", "torch numpy scipy geoopt plotly sklearn pandas joblib"),
        ("from pullgeo.cli.arguments import parser; parser().format_help()", "torch numpy scipy geoopt plotly"),
        ("from pullgeo import nnj, linearize, likelihood", "scipy geoopt plotly sklearn pandas joblib"),
        ("from pullgeo import PullbackManifold, solve", "plotly sklearn pandas scipy.stats joblib"),
        ("from pullgeo import frechet_mean, pairwise_distances", "plotly sklearn pandas scipy.stats"),
        (
            "from pullgeo import datasets, zoo; datasets.digits(); zoo.digits_vae()",
            "plotly sklearn pandas scipy geoopt",
        ),
    ],
)
def test_importing_brings_nothing_that_is_not_needed_yet(statement: str, absent: str):
    ask = f"{statement}; import sys; print(*(set({absent.split()!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_in_the_reference(room: str):
    """A room is documented as a whole, so that what its ``__all__`` lists is what the reference shows."""
    reference = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.rst"))
    whole = re.compile(rf"^\.\. automodule:: pullgeo\.{room}\n   :members:\n", re.MULTILINE)
    assert whole.search(reference)
    assert getattr(pullgeo, room).__all__


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
            own = parts[0] in {room, "_lazy", "_repr", "_version", "_torch"}
            private += [part for part in parts if part.startswith("_") and not part.endswith("__") and not own]
    assert not private


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    texts = [path for folder in ("pullgeo", "tests", "examples", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = [path for path in texts if path.suffix in {".py", ".md", ".rst", ".html", ".js", ".toml"}]
    texts += [*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "setup.cfg", ROOT / ".ci" / "run"]
    absolute = re.compile("/(?:" + "|".join(["home", "root", "tmp", "work", "Users"]) + ")/")
    assert not [relative(path) for path in texts if absolute.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    ("room", "old", "new"),
    [
        ("geodesic", "Corridor", "LatticeSearch"),
        ("geodesic", "Given", "InitialCurve"),
        ("geodesic", "Line", "StraightLine"),
        ("geodesic", "EnergyExpansion", "QuadraticModel"),
        ("geodesic", "EnergySlope", "EnergyGradient"),
        ("geodesic", "Minimised", "SearchResult"),
        ("geodesic", "Space", "ManifoldEnergy"),
        ("manifold", "Onto", "ProjectOnto"),
        ("metric", "Gaussian", "GaussianProbe"),
        ("metric", "RootMetric", "FactoredMetric"),
        ("metric", "Rooted", "Factored"),
    ],
)
def test_old_names_warn_and_work(room: str, old: str, new: str):
    module = importlib.import_module(f"pullgeo.{room}")
    with pytest.warns(DeprecationWarning, match=rf"pullgeo\.{room}\.{old} is now called {new}"):
        assert getattr(module, old) is getattr(module, new)
    assert old not in module.__all__
    with pytest.raises(AttributeError, match="Nothing"):
        _ = module.Nothing


def test_old_statuses_warn_and_work():
    for old, new in (("PATH", "UPPER_BOUND"), ("UNSETTLED", "NOT_REFINED")):
        with pytest.warns(DeprecationWarning, match=f"Status.{old} is now called Status.{new}"):
            assert getattr(pullgeo.Status, old) is pullgeo.Status[new]
        assert old not in pullgeo.Status.__members__
    with pytest.raises(AttributeError, match="no member 'NOTHING'"):
        _ = pullgeo.Status.NOTHING
    assert pullgeo.Status.CONVERGED is pullgeo.Status["CONVERGED"]
