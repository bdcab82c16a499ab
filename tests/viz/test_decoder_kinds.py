"""Every figure takes every kind of decoder, in every precision, and shows the same numbers."""

import copy
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, Newton, PullbackManifold, viz
from pullgeo.errors import ModuleError, OptionError
from pullgeo.geodesic import Solution


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 15), nn.Sigmoid())

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)

    def several(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, self.net(z)


def nested(model: Model) -> Callable[[Tensor], Tensor]:
    def outer(z: Tensor) -> Tensor:
        def inner(u: Tensor) -> Tensor:
            return model.decode(u)

        return inner(z)

    return outer


def in_place(model: Model) -> Callable[[Tensor], Tensor]:
    return lambda z: model.net(z.mul_(2.0).div_(2.0))


MANIFOLDS: dict[str, Callable[[Model], PullbackManifold]] = {
    "module": lambda m: PullbackManifold(m.net),
    "method": lambda m: PullbackManifold(m.decode),
    "forward": lambda m: PullbackManifold(m.net.forward),
    "lambda": lambda m: PullbackManifold(lambda z: m.net(z)),
    "partial": lambda m: PullbackManifold(functools.partial(Model.decode, m)),
    "nested": lambda m: PullbackManifold(nested(m)),
    "in place": lambda m: PullbackManifold(in_place(m)),
    "casting": lambda m: PullbackManifold(lambda z: m.net(z.to(m.net[0].weight.dtype))),
    "moving": lambda m: PullbackManifold(lambda z: m.to(z.device).net(z)),
    "picked": lambda m: PullbackManifold(m.several, output=1),
    "picked by a function": lambda m: PullbackManifold(lambda z: m.several(z), output=lambda out: out[1]),
}
LATENTS: dict[str, Callable[[Tensor], Tensor | np.ndarray]] = {
    "float32": lambda z: z.float(),
    "float64": lambda z: z,
    "numpy float32": lambda z: z.float().numpy(),
    "numpy float64": lambda z: z.numpy(),
}


@pytest.fixture(scope="module")
def z() -> Tensor:
    return torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def solution(z: Tensor) -> Solution:
    return PullbackManifold(Model().net.double()).geodesic(z[:2], z[2:4], Newton(segments=2))


@pytest.mark.quick(7)
@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", MANIFOLDS)
def test_every_figure(z: Tensor, solution: Solution, kind: str, weights: torch.dtype) -> None:
    model = Model().to(weights)
    before = copy.deepcopy(model.state_dict())
    manifold = MANIFOLDS[kind](model)
    shape = {"image_shape": (3, 5)}
    net = Model().net.double()
    J = torch.stack([torch.autograd.functional.jacobian(net, point) for point in z])
    truth = ((J.mT @ J).logdet() / 2).numpy()
    for number, latents in enumerate(LATENTS.values()):
        rich = {"indicatrices": 2} if number == 0 else {}
        figure = viz.latent_map(manifold, latents(z), [0, 1, 0, 1, 0], solution, resolution=3, **rich)
        shown = np.concatenate([t.customdata for t in figure.data if t.name in ("0", "1")])
        np.testing.assert_allclose(shown[shown[:, 0].argsort(), 1], truth, atol=2e-5)

    strip = viz.decoded_strip(manifold, solution, steps=2, pairs=[1], **shape)
    table = viz.pairs_table(manifold, solution)
    straight = viz.pairs_table(PullbackManifold(net), solution)
    assert len(strip.layout.images) == 4
    for row, other in zip(table.rows, straight.rows, strict=True):
        assert abs(float(row[4].text) - float(other[4].text)) <= 1.01e-4
    if kind == "method":
        assert len(viz.latent_report(manifold, z, None, solution)) == 2
    for name, value in model.state_dict().items():
        assert value.dtype == weights
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("latents", LATENTS)
@pytest.mark.parametrize("kind", ["lambda", "module"])
def test_metrics_of_ones_own_are_drawn_too(z: Tensor, kind: str, latents: str) -> None:
    scale = nn.Linear(2, 1)
    field = {
        "lambda": lambda z: torch.eye(2, dtype=z.dtype) * scale(z).exp()[:, None],
        "module": nn.Sequential(scale, nn.Flatten(0), nn.Softplus(), nn.Unflatten(0, (-1, 1, 1))),
    }[kind]
    if kind == "module":
        field = nn.Sequential(field, Identical())
    figure = viz.latent_map(MetricManifold(field), LATENTS[latents](z), resolution=2)
    assert np.isfinite(figure.data[0].z).all()


class Identical(nn.Module):
    def forward(self, factor: Tensor) -> Tensor:
        return factor * torch.eye(2, dtype=factor.dtype)


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_no_manifold_or_returns_several_things_is_named(z: Tensor, solution: Solution) -> None:
    model = Model()
    figures = (
        lambda m: viz.latent_map(m, z),
        lambda m: viz.decoded_strip(m, solution),
        lambda m: viz.pairs_table(m, solution),
        lambda m: viz.latent_report(m, z, None, solution),
    )
    for figure in figures:
        for decoder in (model.net, lambda z: model.net(z), None):
            with pytest.raises(OptionError, match=r"manifold must be a pullgeo Manifold.*PullbackManifold"):
                figure(decoder)
        with pytest.raises(
            ModuleError, match=r"returned tuple.*\[0\] of shape.*\[1\] of shape.*output=lambda out: out"
        ):
            figure(PullbackManifold(model.several))
