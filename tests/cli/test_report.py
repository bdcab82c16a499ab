"""A report on a model of the user's own."""

import re
from pathlib import Path

import numpy as np
import pytest

from pullgeo import Newton
from pullgeo.cli import arguments
from tests.cli.conftest import Folder
from tests.viz.reading import figures_in, payload_in, payloads_in


def table(page: Path) -> list[list[str]]:
    rows = re.findall(r"<tr>(<td.*?)</tr>", page.read_text(encoding="utf-8"))
    return [re.findall(r"<td[^>]*>(?:<span[^>]*>)?([^<]*)", row) for row in rows]


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "decoder",
    ["my_model:load", "my_model:decoder", "my_model:vae.decoder", "my_model:decode", "my_model:decode_somehow"],
)
def test_every_kind_of_decoder_is_taken(folder: Folder, decoder: str):
    done = folder.report("--pairs", "1", "--segments", "8", decoder=decoder)
    assert (done.code, done.err) == (0, "")
    assert folder.left() == {"page.html"}
    assert str(folder.path / "page.html") in done.out


def test_the_page_shows_what_was_asked_for(folder: Folder):
    done = folder.report("--labels", "y.npy", "--image-shape", "3,5", "--pairs", "4", "--seed", "3", "--segments", "16")
    assert done.code == 0, done.err
    page = folder.path / "page.html"
    (strips,) = figures_in(page)
    payload = payload_in(page)
    assert payload["latents"]["labels"]["names"] == ["0", "1", "2"]
    assert (payload["decode"]["kind"], payload["decode"]["shape"]) == ("image", [3, 5])
    assert len(payload["curves"]) == 4
    assert len(strips["layout"]["images"]) == 4 * 2 * 9
    rows = table(page)
    labels = np.load(folder.path / "y.npy")
    for row in rows:
        i, j = map(int, re.search(r"latents (\d+) and (\d+)", row[1]).groups())
        assert row[1].startswith(f"{labels[i]} → {labels[j]} ")
        assert labels[i] != labels[j]
        assert float(row[2]) <= float(row[4])
        assert row[-1] == "converged"
    assert len({row[1] for row in rows}) == 4


def test_without_labels_and_pictures_there_is_a_map_and_a_table(folder: Folder):
    assert folder.report("--pairs", "2", "--segments", "8").code == 0
    assert figures_in(folder.path / "page.html") == []
    assert payload_in(folder.path / "page.html")["decode"]["kind"] == "bars"
    assert len(table(folder.path / "page.html")) == 2


@pytest.mark.full
def test_the_seed_decides_the_pairs(folder: Folder):
    pages = []
    for seed in ("1", "1", "2"):
        assert folder.report("--pairs", "3", "--segments", "4", "--seed", seed).code == 0
        pages.append([row[1] for row in table(folder.path / "page.html")])
    assert pages[0] == pages[1] != pages[2]


def test_what_does_not_converge_is_reported_not_hidden(folder: Folder):
    net = "nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 5))"
    folder.module("kinked", f"from torch import nn, manual_seed\nmanual_seed(0)\nnet = {net}")
    done = folder.report("--pairs", "5", "--segments", "16", decoder="kinked:net")
    assert done.code == 0, done.err
    statuses = [row[-1] for row in table(folder.path / "page.html")]
    converged = statuses.count("converged")
    assert f"{converged} of 5 converged" in done.out
    assert all(
        status == "converged" or row[2] == "–"
        for status, row in zip(statuses, table(folder.path / "page.html"), strict=True)
    )


def test_a_new_page_takes_the_place_of_the_old_one(folder: Folder):
    (folder.path / "page.html").write_text("old")
    assert folder.report("--pairs", "1", "--segments", "4").code == 0
    assert (folder.path / "page.html").stat().st_size > 1e6


def test_a_latent_space_of_more_dimensions_is_sliced(folder: Folder):
    folder.module(
        "deep", "from torch import nn, manual_seed\nmanual_seed(0)\nnet = nn.Sequential(nn.Linear(5, 7), nn.Tanh())"
    )
    np.save(folder.path / "z.npy", np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32))
    assert folder.report("--pairs", "1", "--segments", "4", decoder="deep:net").code == 0
    plane = payload_in(folder.path / "page.html")["plane"]
    assert plane["kind"] == "components"
    assert "geodesics of the slice" in plane["words"]
    more = ("--plane", "dims:3,1", "--plane", "latents:4,0,6")
    assert folder.report("--pairs", "1", "--segments", "4", *more, decoder="deep:net").code == 0
    assert [one["plane"]["name"] for one in payloads_in(folder.path / "page.html")] == ["dims:3,1", "latents:4,0,6"]
    assert [one["name"] for one in payloads_in(folder.path / "page.html")] == ["dims:3,1", "latents:4,0,6"]
    done = folder.report("--plane", "rows", decoder="deep:net")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "plane must be" in done.err


def test_the_help_names_the_segments_of_the_default_solver() -> None:
    assert Newton().segments == arguments.SEGMENTS
    parsed = arguments.parser().parse_args(["report", "--decoder", "m:d", "--latents", "z.npy"])
    assert parsed.segments == Newton().segments
