"""A user's folder: latents, labels and modules of theirs, and the command line run in it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pullgeo.__main__ import main

MODEL = """
import torch
from torch import nn


def load():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 11), nn.Tanh(), nn.Linear(11, 15), nn.Sigmoid()).eval()


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = load()

    def forward(self, x):
        return x


decoder = load()
vae = Autoencoder()
double = load().double()


def decode(z):
    return double(z)


def decode_somehow(z, temperature=1.0):
    return double(z) / temperature


class Sized(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.net = nn.Linear(2, size)


class Ready(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = load()

    def forward(self, z):
        return self.net(z)


def class_of():
    return Sized


def from_file(path: str):
    return torch.load(path)


number = 7
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Folder:
    """The folder, and a way to run a command in it."""

    path: Path
    run: Callable[..., Outcome]

    def report(self, *more: str, decoder: str = "my_model:load", latents: str = "z.npy") -> Outcome:
        return self.run("report", "--decoder", decoder, "--latents", latents, "-o", "page.html", *more)

    def module(self, name: str, text: str) -> None:
        (self.path / f"{name}.py").write_text(text, encoding="utf-8")

    def left(self) -> set[str]:
        """What a command left behind: everything but what was there before it."""
        ours = {"z.npy", "y.npy", "__pycache__"}
        return {p.name for p in self.path.iterdir() if p.name not in ours and p.suffix != ".py"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Folder]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "z.npy", rng.standard_normal((13, 2)))
    np.save(tmp_path / "y.npy", np.arange(13) % 3)

    def run(*argv: str) -> Outcome:
        code = main(argv)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    made = Folder(tmp_path, run)
    made.module("my_model", MODEL)
    yield made
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
