"""What a page shows of a place."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import Manifold, MetricManifold, PullbackManifold
from pullgeo.likelihood import Bernoulli
from pullgeo.manifold import Ensemble, MeanAndDeviation
from pullgeo.viz.explore.outputs import shown_map, shown_payload
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.explore.surface import sample_surface
from tests.viz.explore.decoders import bump_metric, mlp

BOX = ((-2.0, 2.0), (-1.9, 2.1))


def wide(seed: int = 0, outputs: int = 6) -> nn.Sequential:
    """A decoder of three latents to ``(outputs, 1)``."""
    return nn.Sequential(nn.Linear(3, 2), *mlp(outputs=outputs, seed=seed), nn.Unflatten(1, (outputs, 1)))


def cases() -> dict[str, tuple[Manifold, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None, bool]]:
    """Manifolds of three latents, what they show, the render, and whether the surface does not decode it."""
    one, two, other = (wide(seed).double().requires_grad_(False) for seed in range(3))
    deviation = nn.Sequential(other, nn.Softplus())
    return {
        "plain": (PullbackManifold(one), one, None, False),
        "function": (PullbackManifold(lambda z: one(z)), one, None, False),
        "mean": (PullbackManifold(MeanAndDeviation(one, deviation)), one, None, False),
        "ensemble": (PullbackManifold(Ensemble([one, two])), lambda z: (one(z) + two(z)) / 2, None, False),
        "likelihood": (PullbackManifold(one, ambient=Bernoulli()), one, None, True),
        "render": (
            PullbackManifold(one),
            lambda z: torch.sigmoid(one(z)[:, :4, 0]),
            lambda y: torch.sigmoid(y[:, :4, 0]),
            True,
        ),
    }


@pytest.mark.parametrize("kind", list(cases()))
def test_the_page_shows_it(
    kind: str, in_front: Callable[[dict[str, Any]], dict[str, Any]], generator: torch.Generator
) -> None:
    manifold, expected, render, own = cases()[kind]
    plane = Slice.through(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    flat = plane.restrict(manifold)
    xy = torch.rand(50, 2, generator=generator, dtype=torch.float64) * 3.5 - 1.7
    show = shown_map(flat, render)
    assert show is not None
    values = expected(plane.lift(xy))
    assert torch.allclose(show(xy), values)
    surface = sample_surface(flat, *BOX, side=48)
    payload = shown_payload(flat, surface, render)
    assert (payload["own"] is not None) == own
    found = in_front({"surface": surface.payload(), "decode": payload, "places": xy.tolist()})["decoded"]
    size = float(values.std())
    off = (torch.tensor(found, dtype=torch.float64) - values.flatten(1)).abs()
    assert float(off.max()) < 0.1 * size
    assert float(off.square().mean().sqrt()) < 0.02 * size


def test_a_metric_shows_nothing() -> None:
    manifold = MetricManifold(bump_metric)
    assert shown_map(manifold) is None
    assert shown_payload(manifold, sample_surface(manifold, *BOX, side=16)) == {"D": 0}
