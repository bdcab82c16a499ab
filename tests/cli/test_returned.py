"""The command takes decoders whatever they return."""

import importlib

import pytest

from tests.cli.conftest import Folder
from tests.manifold.test_output import KINDS

SAID = {name: kind for name, kind in KINDS.items() if not callable(kind.output)}
MODEL = """
from tests.manifold.test_output import KINDS, Network

decoder = Network(KINDS[{name!r}]).eval()
"""


@pytest.fixture(autouse=True)
def light_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("pullgeo.viz.page"), "get_plotlyjs", lambda: "")


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", SAID)
def test_reports_of_every_kind(folder: Folder, name: str):
    folder.module("theirs", MODEL.format(name=name))
    kind = SAID[name]
    options = [] if kind.output is None else [f"--decoder-output={kind.output}"]
    done = folder.report("--pairs", "2", "--segments", "4", *options, decoder="theirs:decoder")
    assert (done.code, done.err) == (0, "")
    assert "2 of 2 converged" in done.out
    page = (folder.path / "page.html").read_text(encoding="utf-8")
    assert ("Fisher-Rao" in page) == (kind.likelihood is not None)


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["Ready", "vae_of_two"])
def test_classes_and_models_that_encode(folder: Folder, name: str):
    text = """
from my_model import Ready, load


class Model:
    def encode(self, x):
        return x[:, :2]

    def decode(self, z):
        return {"sample": self.net(z)}


vae_of_two = Model()
vae_of_two.net = load()
"""
    folder.module("theirs", text)
    done = folder.report("--pairs", "1", "--segments", "2", decoder=f"theirs:{name}")
    assert (done.code, done.err) == (0, "")
