"""The living map of a model of the user's own."""

import sys

import numpy as np
import pytest

from pullgeo.cli import explore
from tests.cli.conftest import Folder, Outcome


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, dict]]:
    """What the command would have served."""
    calls: list[tuple[tuple, dict]] = []

    def serve(*inputs: object, **options: object) -> None:
        calls.append((inputs, options))
        options["announce"]("http://127.0.0.1:7/token/")

    monkeypatch.setattr(explore, "serve", serve)
    return calls


def run(folder: Folder, *more: str, latents: str = "z.npy", decoder: str = "my_model:load") -> Outcome:
    return folder.run("explore", "--decoder", decoder, "--latents", latents, *more)


def test_it_serves_what_was_named(folder: Folder, served: list):
    done = run(
        folder,
        "--labels",
        "y.npy",
        "--no-browser",
        "--port",
        "7",
        "--time-limit",
        "3.5",
        "--segments",
        "16",
        "--image-shape",
        "3,5",
        "--plane",
        "dims:1,0",
    )
    assert (done.code, done.err) == (0, "")
    assert "http://127.0.0.1:7/token/" in done.out
    assert "Ctrl-C" in done.out
    ((manifold, z, labels), options) = served[0]
    assert np.array_equal(z, np.load("z.npy"))
    assert np.array_equal(labels, np.load("y.npy"))
    assert manifold.decode(z.float()[:3]).shape == (3, 15)
    assert options["solver"].segments == 16
    assert options["image_shape"] == (3, 5)
    assert options["plane"] == "dims:1,0"
    assert (options["host"], options["port"], options["limit"]) == ("127.0.0.1", 7, 3.5)
    assert not options["browser"]
    assert folder.left() == set()


def test_the_browser_is_opened_unless_it_is_not_wanted(folder: Folder, served: list):
    assert run(folder).code == 0
    assert served[0][1]["browser"]


def test_what_cannot_be_used_ends_in_one_sentence(folder: Folder, served: list):
    for done, word in (
        (run(folder, decoder="my_model:number"), "expected a torch.nn.Module"),
        (run(folder, latents="y.npy"), "--latents"),
        (run(folder, "--labels", "z.npy"), "--labels"),
        (run(folder, "--segments", "3"), "segments"),
    ):
        assert done.code == 2
        assert done.err.startswith("pullgeo explore: ")
        assert word in done.err
        assert done.err.count("\n") == 1
    assert not served


@pytest.mark.parametrize(("option", "value"), [("--port", "70000"), ("--threads", "0"), ("--time-limit", "0")])
def test_what_the_server_cannot_use_ends_in_one_sentence(folder: Folder, option: str, value: str):
    pytest.importorskip("uvicorn")
    done = run(folder, "--no-browser", option, value)
    assert done.code == 2
    assert value in done.err


def test_without_the_servers_packages_the_line_to_install_them_is_given(folder: Folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = run(folder)
    assert done.code == 2
    assert 'pip install "pullgeo[app]"' in done.err
