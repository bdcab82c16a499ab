"""Every block of Python on a page runs: those of a page in order, in one namespace, as a reader would type them.

A block that cannot run stands below a comment ``.. not run: reason``. Blocks that begin with ``>>>`` are doctests, run
elsewhere. What needs a package of `OPTIONAL` is left out where that package is missing, and the test says so.
"""

import ast
import importlib.util
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.rst")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
OPTIONAL = {
    "anndata",
    "backpack",
    "curvlinops",
    "diffusers",
    "distributed",
    "geodesic_toolbox",
    "geomstats",
    "hdbscan",
    "laplace",
    "lightning",
    "nnj",
    "pythae",
    "scanpy",
    "stochman",
    "umap",
}
HEAD = re.compile(r"( *)\.\. (?:code-block|code|sourcecode):: *python3? *$|( *)```python *$")
NOT_RUN = ".. not run:"


@dataclass(frozen=True)
class Block:
    line: int  # of its first line of code, from 1
    code: str
    not_run: str | None  # the reason


def reason_above(lines: list[str]) -> str | None:
    """The reason in the paragraph that ends the lines, if it is a comment that a block is not run."""
    text = "\n".join(lines).rstrip()
    paragraph = re.split(r"\n\s*\n", text)[-1].strip()
    return " ".join(paragraph.removeprefix(NOT_RUN).split()) if paragraph.startswith(NOT_RUN) else None


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    lines = text.splitlines()
    found = []
    for at, line in enumerate(lines):
        head = HEAD.fullmatch(line)
        if head is None:
            continue
        fenced = head[1] is None
        indent = len(head[2] if fenced else head[1])
        end = at + 1
        while end < len(lines):
            text_at = lines[end].strip()
            if fenced and text_at == "```":
                break
            if not fenced and text_at and len(lines[end]) - len(lines[end].lstrip()) <= indent:
                break
            end += 1
        body = lines[at + 1 : end]
        start = at + 2
        if not fenced:
            options = next((n for n, row in enumerate(body) if not row.strip()), len(body))
            body, start = body[options + 1 :], start + options + 1
        margin = min((len(row) - len(row.lstrip()) for row in body if row.strip()), default=0)
        code = "\n".join(row[margin:] for row in body).rstrip() + "\n"
        found.append(Block(start, code, reason_above(lines[:at])))
    return found


def missing_package(code: str) -> str | None:
    """An optional package that the code imports and that is not installed here."""
    return next((name for name in optional_packages(code) if importlib.util.find_spec(name) is None), None)


def optional_packages(code: str) -> list[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            modules.append(node.module)
    return [name for name in (module.split(".")[0] for module in modules) if name in OPTIONAL]


def run(block: Block, page: Path, namespace: dict) -> None:
    # Lines of tracebacks are those of the page.
    program = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    if not optional_packages(block.code):
        exec(program, namespace)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other people's packages warn of is theirs
        exec(program, namespace)


@pytest.mark.quick(4)
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p.read_text("utf-8"))], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Classes that a page defines are looked up here, as those of a script are.
    document = ModuleType("document")
    monkeypatch.setitem(sys.modules, "document", document)
    ran, left_out = 0, []
    for block in blocks(page.read_text("utf-8")):
        if block.not_run is not None or block.code.startswith(">>>"):
            continue
        missing = missing_package(block.code)
        if missing is not None:
            left_out.append(f"line {block.line} needs {missing}")
            continue
        run(block, page, vars(document))
        ran += 1
    if left_out:
        pytest.skip(f"{ran} blocks ran; left out: {'; '.join(left_out)}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_has_a_reason(page: Path) -> None:
    reasons = [block.not_run for block in blocks(page.read_text("utf-8")) if block.not_run is not None]
    assert all(len(reason.split()) >= 3 for reason in reasons), f"{page.name}: say why a block is not run"
    assert len(reasons) <= 2, f"{page.name}: {len(reasons)} blocks are not run; complete them"
    comments = [line for line in page.read_text("utf-8").splitlines() if line.strip().startswith(NOT_RUN)]
    assert len(comments) == len(reasons), f"{page.name}: no block stands below a comment"


PAGE = """
Text.

.. code-block:: python
   :caption: a

   x = 1

   y = x

.. not run: it would take
   hours

.. code-block:: python

   hours()

.. code-block:: sh

   ls

*  Deeper

   .. code-block:: python

      def f():
          return y
   after

```python
z = f()
```
"""


def test_blocks_are_found_where_they_stand() -> None:
    found = blocks(PAGE)
    assert [block.code for block in found] == [
        "x = 1\n\ny = x\n",
        "hours()\n",
        "def f():\n    return y\n",
        "z = f()\n",
    ]
    assert [block.not_run for block in found] == [None, "it would take hours", None, None]
    lines = PAGE.splitlines()
    assert [lines[block.line - 1].strip() for block in found] == ["x = 1", "hours()", "def f():", "z = f()"]


def test_packages_are_seen_in_any_import() -> None:
    assert optional_packages("import os, umap\ndef f():\n    from laplace.curvature import x") == ["umap", "laplace"]
    assert missing_package("import os") is None


def test_a_failure_shows_the_line_of_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(Block(41, "x = 1\nx / 0\n", None), Path("page.rst"), {})
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == ("page.rst", 42)
