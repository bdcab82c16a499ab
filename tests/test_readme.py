"""The documents for people: what they show must run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def code_blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), flags=re.DOTALL | re.MULTILINE)


def cases() -> list:
    documents = {"README.md": 2, "CONTRIBUTING.md": 1}
    found = [(document, block) for document in documents for block in code_blocks(document)]
    assert len(found) == sum(documents.values())
    return [pytest.param(block, id=f"{document}-{n}") for n, (document, block) in enumerate(found)]


@pytest.mark.parametrize("block", cases())
def test_the_code_of_the_documents_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "<document>", "exec"), {"__name__": "document"})
