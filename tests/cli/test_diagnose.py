"""The command that says whether geometry is worth it."""

import numpy as np
import pytest

from tests.cli.conftest import Folder, Outcome
from tests.cli.test_misuse import assert_one_sentence


def diagnosed(folder: Folder, *more: str, decoder: str = "my_model:load", latents: str = "z.npy") -> Outcome:
    return folder.run("diagnose", "--decoder", decoder, "--latents", latents, "--pairs", "5", *more)


def test_it_prints_what_it_measured_and_advice(folder: Folder):
    folder.module("theirs", "def net(z):\n    return 3 * z")
    done = diagnosed(folder, decoder="theirs:net")
    assert (done.code, done.err) == (0, "")
    assert "13 latents of dimension 2" in done.out
    assert "G = JᵀJ" in done.out
    assert "100% of 5 pairs" in done.out
    assert "Euclidean distances serve as well" in done.out
    assert folder.left() == set()


def test_it_takes_what_decoders_return(folder: Folder):
    text = (
        "import torch\ndef pair(z):\n    return z, z\ndef counts(z):\n    return torch.distributions.Poisson(z.exp())"
    )
    folder.module("theirs", text)
    assert "Fisher-Rao" in diagnosed(folder, decoder="theirs:counts").out
    assert diagnosed(folder, "--decoder-output", "mean+logvar", decoder="theirs:pair").code == 0
    done = diagnosed(folder, decoder="theirs:pair")
    assert done.code == 2
    assert "output='mean+logvar'" in done.err


def test_latents_of_one_dimension(folder: Folder):
    np.save(folder.path / "z.npy", np.linspace(0, 1, 13)[:, None])
    folder.module("theirs", "import torch\ndef net(z):\n    return torch.cat([z.sin(), z.cos()], 1)")
    done = diagnosed(folder, "--segments", "8", "--seed", "3", decoder="theirs:net")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pairs", "0"], ["--pairs", "from 1 to"]),
        (["--seed", "-1"], ["--seed", "from 0 upwards"]),
        (["--latents", "none.npy"], ["no such file"]),
        (["--decoder", "my_model:Sized"], ["is a class that needs arguments"]),
        (["--segments", "3"], ["segments"]),
    ],
)
def test_misuse_ends_in_one_sentence(folder: Folder, options: list[str], words: list[str]):
    done = diagnosed(folder, *options)
    assert done.err.startswith("pullgeo diagnose: ")
    assert_one_sentence(Outcome(done.code, done.out, done.err.replace("diagnose", "report", 1)), *words)
