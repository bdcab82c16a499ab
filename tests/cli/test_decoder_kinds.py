"""Every kind of decoder in every precision, on every path of the command that takes one."""

import sys

import numpy as np
import pytest
import torch

from tests.cli.conftest import Folder
from tests.viz.reading import payload_in

MODEL = """
import functools
import torch
from torch import nn

torch.manual_seed(3)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 15), nn.Sigmoid())

    def decode(self, z):
        return self.net(z)

    def forward(self, z):
        return self.net(z)


class Wrapper:
    def __init__(self, net):
        self.net = net

    def __call__(self, z):
        return self.net(z)

    def decode(self, z):
        return self.net(z)


model = Model().to(torch.DTYPE).eval()
module = model
method = model.decode
lambda_ = lambda z: model.net(z)
casting = lambda z: model.net(z.to(torch.DTYPE))
partial = functools.partial(Model.decode, model)
bound = functools.partial(lambda net, z: net(z), model.net)
wrapper = Wrapper(model.net)
wrapped_method = wrapper.decode


def function(z):
    return model.net(z)


def nested():
    def inner(z):
        return (lambda u: model.decode(u))(z)

    return inner


def made():
    return model


def in_place(z):
    z.add_(0.0)
    return model.net(z)
"""
KINDS = (
    *("module", "method", "lambda_", "casting", "partial", "bound", "wrapper", "wrapped_method", "function"),
    *("nested", "made", "in_place"),
)
PATHS = {
    "bare": [],
    "pictures": ["--image-shape", "3,5"],
    "all": ["--image-shape", "1,3,5", "--labels", "y.npy", "--pairs", "2", "--seed", "1"],
    "labels": ["--labels", "y.npy"],
}


@pytest.fixture(autouse=True)
def light_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plotly's library, with coarse maps."""
    monkeypatch.setattr(sys.modules["pullgeo.viz.explore.page"], "get_plotlyjs", lambda: "")
    monkeypatch.setattr(sys.modules["pullgeo.viz.explore.payload"], "SIDE", 16)
    monkeypatch.setattr(sys.modules["pullgeo.viz.explore.payload"], "PAIRS", 2)


@pytest.mark.quick(4)
@pytest.mark.parametrize("weights", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder_takes_every_path(folder: Folder, kind: str, weights: str):
    folder.module("theirs", MODEL.replace("DTYPE", weights))
    z = np.load(folder.path / "z.npy")
    found = {}
    for latents, path in (("float32", "pictures"), ("float64", "all")):
        np.save(folder.path / "z.npy", z.astype(latents))
        done = folder.report("--pairs", "1", "--segments", "2", *PATHS[path], decoder=f"theirs:{kind}")
        assert (done.code, done.err) == (0, "")
        assert folder.left() == {"page.html"}
        found[latents] = payload_in(folder.path / "page.html")["curves"]
    net = sys.modules["theirs"].model.net.double()
    for curves in found.values():
        assert curves
        for curve in curves:
            ends = torch.tensor([curve["start"], curve["end"]], dtype=torch.float64)
            t = torch.linspace(0, 1, 4097, dtype=torch.float64)[:, None]
            images = net(ends[0] * (1 - t) + ends[1] * t).detach()
            truth = float(images.diff(dim=0).norm(dim=1).sum())
            assert curve["line"] == pytest.approx(truth, rel=2e-5)
            assert 0 < curve["length"] < truth * 1.01


@pytest.mark.parametrize("path", ["bare", "labels"])
@pytest.mark.parametrize("latents", ["float32", "float64"])
def test_pages_without_pictures_take_a_method_of_a_float32_module(folder: Folder, path: str, latents: str):
    folder.module("theirs", MODEL.replace("DTYPE", "float32"))
    np.save(folder.path / "z.npy", np.load(folder.path / "z.npy").astype(latents))
    done = folder.report("--pairs", "1", "--segments", "2", *PATHS[path], decoder="theirs:method")
    assert (done.code, done.err) == (0, "")
