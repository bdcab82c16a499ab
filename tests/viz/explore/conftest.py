"""What the tests of the living map share."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FRONT = Path(__file__).parent / "front"


@pytest.fixture
def in_front(node: str, tmp_path: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Runs the front end's mathematics on a case; see front/compare.mjs."""

    def run(work: dict[str, Any]) -> dict[str, Any]:
        case = tmp_path / "case.json"
        case.write_text(json.dumps(work))
        done = subprocess.run(
            [node, str(FRONT / "compare.mjs"), str(case)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run
