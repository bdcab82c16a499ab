"""Decoders as surfaces."""

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pullgeo import Manifold, MetricManifold, PullbackManifold
from pullgeo.errors import NonFiniteError, OptionError
from pullgeo.likelihood import Bernoulli
from pullgeo.manifold import Ensemble, MeanAndDeviation
from pullgeo.metric import Diagonal
from pullgeo.viz.explore.surface import flat_map, sample_outputs, sample_surface
from tests.viz.explore.decoders import KINDS, Clipped, mlp

BOX = ((-2.0, 2.0), (-1.9, 2.1))


def places(n: int, generator: torch.Generator, size: float = 1.9) -> Tensor:
    return (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1) * size


def metric_error(manifold: Manifold, xy: Tensor, **options: int) -> Tensor:
    surface = sample_surface(manifold, *BOX, **options)
    exact = manifold.in_double().metric(xy).dense()
    found = surface.manifold.metric(xy).dense()
    return ((exact - found).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).detach()


def ambient_manifolds() -> dict[str, Manifold]:
    ball = geoopt.PoincareBall()
    inside = nn.Sequential(mlp(outputs=3), nn.Tanh()).double()
    return {
        "constant metric": PullbackManifold(mlp(), ambient=Diagonal(torch.linspace(0.1, 2, 31))),
        "Fisher-Rao": PullbackManifold(mlp(), ambient=Bernoulli()),
        "mean and deviation": PullbackManifold(
            MeanAndDeviation(mlp(outputs=7), nn.Sequential(mlp(outputs=7), nn.Softplus()))
        ),
        "ensemble": PullbackManifold(Ensemble([mlp(seed=k) for k in range(3)])),
        "scaled": PullbackManifold(mlp(), ambient=geoopt.Scaled(geoopt.Euclidean(1), 3.0)),
        "Poincaré ball": PullbackManifold(lambda z: inside(z) / 2, ambient=ball),
        "field": PullbackManifold(mlp(), ambient=lambda y: Diagonal(1 + y.square())),
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("relu", "disc")])
def test_the_metric_is_the_manifolds(kind: str, generator: torch.Generator) -> None:
    error = metric_error(KINDS[kind](), places(211, generator), side=64)
    assert float(error.quantile(0.95)) < 1e-3


@pytest.mark.parametrize(
    "kind", ["constant metric", "Fisher-Rao", "mean and deviation", "ensemble", "scaled", "Poincaré ball", "field"]
)
def test_every_space_of_outputs_is_served(kind: str, generator: torch.Generator) -> None:
    manifold = ambient_manifolds()[kind]
    embedded = kind not in ("Poincaré ball", "field")
    assert (flat_map(manifold.in_double()) is not None) == embedded
    assert (sample_surface(manifold, *BOX, side=32).components > 0) == embedded
    # a metric by itself, nearly singular here, is harder to carry than coordinates
    limit = 2e-3 if embedded else 1e-2
    assert float(metric_error(manifold, places(101, generator), side=64).quantile(0.95)) < limit


def test_components_that_are_left_out_are_carried_as_a_metric(generator: torch.Generator) -> None:
    manifold, xy = KINDS["tanh"](), places(101, generator)
    surface = sample_surface(manifold, *BOX, side=64, components=5)
    assert surface.components == 5
    assert surface.rest is not None
    assert surface.shares[1] > 1e-3
    assert float(metric_error(manifold, xy, side=64, components=5).quantile(0.95)) < 1e-3


def test_small_but_steep_outputs_are_kept(generator: torch.Generator) -> None:
    # one output is large, another has nearly all of the metric
    def decoder(z: Tensor) -> Tensor:
        large = 100 + 100 * torch.sigmoid(0.1 * z[:, :1])
        return torch.cat([large.expand(-1, 9), torch.sin(9 * z)], 1)

    surface = sample_surface(PullbackManifold(decoder), *BOX, side=96)
    assert surface.shares[1] < 2e-3
    assert float(metric_error(PullbackManifold(decoder), places(101, generator), side=96).quantile(0.95)) < 2e-2


def test_outputs_are_decoded(generator: torch.Generator) -> None:
    net, xy = mlp().double().requires_grad_(False), places(53, generator)
    surface = sample_surface(PullbackManifold(net), *BOX, side=64)
    size = net(xy).std()
    assert float((surface.decode(xy) - net(xy)).abs().max()) < 0.1 * float(size)
    shown = sample_outputs(lambda z: torch.sigmoid(net(z)).unflatten(1, (31, 1)), *BOX, side=48)
    assert float((shown.decode(xy) - torch.sigmoid(net(xy))).abs().max()) < 0.02
    assert shown.decode_payload(own=True)["own"]["r"] == shown.components


def test_empty_places_stay_empty() -> None:
    surface = sample_surface(KINDS["disc"](), *BOX, side=64)
    radius = torch.linspace(0, 1.85, 38, dtype=torch.float64)
    along = torch.stack([radius, torch.zeros_like(radius)], 1)
    assert bool(surface.inside(along).all())
    corners = torch.tensor([[1.9, 2.0], [-1.99, -1.89], [9.0, 0.0], [torch.nan, 0.0]], dtype=torch.float64)
    assert not bool(surface.inside(corners).any())
    assert surface.payload()["mask"]["shape"] == [surface.nodes[0] - 1, surface.nodes[1] - 1]
    with pytest.raises(NonFiniteError, match=r"viz\.explore: the decoder returned NaN"):
        sample_surface(PullbackManifold(Clipped(mlp(), 50.0, 60.0)), *BOX)
    with pytest.raises(NonFiniteError, match="the metric is finite and positive nowhere"):
        sample_surface(MetricManifold(lambda z: torch.full((len(z), 2, 2), torch.nan, dtype=z.dtype)), *BOX, side=16)


def test_sizes_follow_the_budget() -> None:
    manifold = KINDS["tanh"]()
    small = sample_surface(manifold, *BOX, budget=100_000)
    large = sample_surface(manifold, *BOX, budget=400_000)
    assert small.bytes < large.bytes < 600_000
    assert max(small.nodes) < max(large.nodes)
    wide = sample_surface(manifold, (-2.0, 2.0), (-0.5, 0.5), side=60)
    assert wide.nodes == (60, 20)
    with pytest.raises(OptionError, match="side must be at least 8"):
        sample_surface(manifold, *BOX, side=5)
    with pytest.raises(OptionError, match="components must be at least 1"):
        sample_surface(manifold, *BOX, components=0)


def test_few_components_keep_single_precision_and_a_constant_decoder_has_one() -> None:
    line = sample_surface(PullbackManifold(nn.Linear(2, 5)), *BOX, side=16)
    assert line.components == 2
    assert line.levels.dtype == np.float32
    constant = sample_surface(PullbackManifold(lambda z: torch.ones_like(z) + 0 * z), *BOX, side=16)
    assert constant.components == 1
    assert float(constant.decode(torch.zeros(3, 2, dtype=torch.float64)).sub(1).abs().max()) < 1e-12


def test_sampling_leaves_no_graph_and_works_in_inference_mode() -> None:
    net = mlp()
    plain = sample_surface(PullbackManifold(net), *BOX, side=16)
    with torch.inference_mode():
        other = sample_surface(PullbackManifold(net), *BOX, side=16)
    assert np.array_equal(plain.levels, other.levels)
    assert all(parameter.grad is None for parameter in net.parameters())
