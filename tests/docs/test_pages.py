"""Pages that are made by programs, and programs that stand on pages."""

import ast
import doctest
import importlib.util
import re
import runpy
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import torch

from pullgeo import nnj

ROOT = Path(__file__).parents[2]


def torch_version() -> str:
    return ".".join(torch.__version__.split(".")[:2])


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_page", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_imports_is_up_to_date() -> None:
    imports = script("imports")
    assert imports.PICTURE.read_text(encoding="utf-8") == imports.picture(), "run python docs/imports.py"
    order = imports.ROOMS
    assert all(order.index(above) < order.index(below) for above, below in imports.imports())


def test_the_page_of_benchmarks_is_made_from_the_stored_results() -> None:
    benchmarks = script("benchmarks")
    assert benchmarks.PAGE.read_text(encoding="utf-8") == benchmarks.page(), "run python docs/benchmarks.py"
    assert benchmarks.PICTURE.read_text(encoding="utf-8") == benchmarks.picture(), "run python docs/benchmarks.py"
    stored = benchmarks.results()
    grouped = [name for names in benchmarks.GROUPS.values() for name in names]
    assert len(set(grouped)) == len(grouped)
    assert set(stored) <= set(grouped), "a result without a heading in docs/benchmarks.py"
    for result in stored.values():
        assert len({tuple(row) for row in result["rows"]}) == 1
        file, test = result["command"].split()[-1].split("::")
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
        for cell in (cell for row in result["rows"] for cell in row.values() if isinstance(cell, dict)):
            assert cell["low"] <= cell["median"] <= cell["high"]
            assert cell["turns"] >= 1


def test_the_names_that_type_checkers_read_are_those_of_nnj() -> None:
    page = script("nnj_stub")
    committed = page.PAGE.read_text(encoding="utf-8")
    if page.HEAD.format(version=torch_version()) not in committed:
        pytest.skip("the names were written down from another release of torch")
    assert committed == page.stub(), "run python docs/nnj_stub.py"
    body = ast.parse(committed).body
    names = {alias.asname for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {node.name for node in body if isinstance(node, ast.ClassDef)}
    assert set(nnj.__all__) == names


@pytest.mark.filterwarnings("ignore")  # of layers that torch deprecates
def test_the_table_of_coverage_is_up_to_date() -> None:
    coverage = script("coverage")
    committed = coverage.PAGE.read_text(encoding="utf-8")
    if f"from torch {coverage.VERSION}:" not in committed:
        pytest.skip(f"the page was made from another release than torch {coverage.VERSION}")
    assert coverage.page() == committed, "run python docs/coverage.py"


def test_the_layer_that_is_added_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "add_a_layer.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "1              Snake       rule   its class has a rule" in printed


def test_the_page_takes_every_part_of_that_example() -> None:
    page = (ROOT / "docs" / "add_a_layer.rst").read_text(encoding="utf-8")
    example = (ROOT / "examples" / "add_a_layer.py").read_text(encoding="utf-8")
    for mark in ("# rule:", "# weight rule:", "# proof", "if __name__"):
        assert mark in page
        assert example.count(mark) == 1


PRIMER = sorted((ROOT / "docs" / "primer").glob("*.svg"))


def test_the_primer_shows_every_picture_that_there_is() -> None:
    page = (ROOT / "docs" / "primer.rst").read_text(encoding="utf-8")
    assert len(PRIMER) == 5
    for path in PRIMER:
        assert f".. image:: primer/{path.name}" in page
        text = path.read_text(encoding="utf-8")
        assert len(text) < 150_000
        ElementTree.fromstring(text)


@pytest.mark.full
def test_the_pictures_of_the_primer_can_be_drawn_again() -> None:
    drawn = script("primer_figures").pictures()
    assert {path.stem for path in PRIMER} == set(drawn)
    for path in PRIMER:
        assert words(path.read_text(encoding="utf-8")) == words(drawn[path.stem]), "run python docs/primer_figures.py"


def words(svg: str) -> list[str]:
    """What is written on a picture, but for numbers, which may differ in the last digit from torch to torch."""
    return [re.sub(r"\d[\d.,]*", "#", text) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]


@pytest.mark.parametrize("page", ["jacobians.rst"])
def test_what_pages_print_is_what_it_prints(page: str) -> None:
    results = doctest.testfile(
        str(ROOT / "docs" / page), module_relative=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert results.attempted > 0
    assert results.failed == 0
