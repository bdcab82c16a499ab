"""The modules of the front end as one script."""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pullgeo.viz.explore.bundle import bundle, front, modules


@pytest.mark.parametrize("entry", ["scene.js", "hosts/server.js", "hosts/widget.js"])
def test_each_module_stands_once_before_those_that_use_it(entry: str):
    script = bundle(entry)
    assert not re.findall(r"^(?:import|export)\b", script, re.MULTILINE)
    order = modules(entry)
    assert len(order) == len(set(order))
    assert order[-1] == entry
    first = [next(line for line in front(name).splitlines() if line.startswith("export ")) for name in order]
    places = [script.index(line.removeprefix("export ")) for line in first]
    assert places == sorted(places)
    own = [line for line in front(entry).splitlines() if not line.startswith(("import ", "export "))]
    assert all(line in script for line in own)


def test_no_two_modules_have_a_name_in_common():
    names = Counter(
        re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", bundle("hosts/widget.js"), re.MULTILINE)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_it_is_a_script(tmp_path: Path):
    file = tmp_path / "bundle.mjs"
    file.write_text(bundle("hosts/widget.js"), encoding="utf-8")
    try:
        done = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no node on PATH")
    assert done.stderr == ""
