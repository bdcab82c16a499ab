"""What a page says about its own accuracy."""

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import Newton, PullbackManifold
from pullgeo.curve import DiscreteCurve
from pullgeo.errors import CoarseMapWarning, OptionError
from pullgeo.viz.explore.accuracy import Accuracy, Spread, measure_accuracy, sample_accurately
from pullgeo.viz.explore.surface import sample_surface
from tests.viz.explore.decoders import KINDS, Clipped, mlp

BOX = ((-2.2, 2.2), (-2.2, 2.2))


@pytest.fixture
def latents(generator: torch.Generator) -> Tensor:
    return torch.randn(101, 2, generator=generator, dtype=torch.float64).clamp(-2, 2) * 0.8


@pytest.mark.quick(3)
@pytest.mark.parametrize("kind", ["tanh", "tiny", "huge", "disc", "function", "metric"])
def test_smooth_decoders_are_right_to_half_a_per_cent(kind: str, latents: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CoarseMapWarning)
        surface, found = sample_accurately(KINDS[kind](), *BOX, latents, side=48, pairs=17)
    assert found.fine
    assert found.compared >= 15
    assert found.length.p95 < 1e-3
    assert found.curve.p95 < 1e-3
    assert found == measure_accuracy(KINDS[kind](), surface, latents, pairs=17)


def test_the_statement_is_true_of_the_pages_own_curves(
    latents: Tensor, in_front: Callable[[dict[str, Any]], dict[str, Any]], generator: torch.Generator
) -> None:
    manifold = KINDS["relu"]()
    surface = sample_surface(manifold, *BOX, side=64)
    found = measure_accuracy(manifold, surface, latents, pairs=32)
    chosen = torch.randperm(len(latents), generator=generator)[:64]
    a, b = latents[chosen[:32]], latents[chosen[32:]]
    curves = in_front({"surface": surface.payload(), "places": [], "pairs": torch.stack([a, b], 1).tolist()})[
        "geodesics"
    ]
    exact = manifold.geodesic(a, b, Newton())
    double = manifold.in_double()
    with torch.no_grad():
        true = DiscreteCurve(exact.curve.nodes.double()).length(double, 512)
        nodes = torch.tensor([curve["nodes"] for curve in curves], dtype=torch.float64).unflatten(1, (-1, 2))
        own = DiscreteCurve(nodes).length(double, 512)
    said = torch.tensor([curve["length"] for curve in curves], dtype=torch.float64)
    off = (said / torch.minimum(true, own) - 1).abs().numpy()
    # other pairs of the same latents: quantiles of 32 scatter
    assert np.median(off) < 3 * found.length.median
    assert np.quantile(off, 0.9) < 2 * found.length.p95
    assert np.median((own / true - 1).clamp_min(0).numpy()) < 2 * found.curve.p95 + 1e-6


def test_a_coarse_map_is_refined_and_else_said_to_be_coarse(latents: Tensor) -> None:
    manifold = KINDS["function"]()
    with pytest.warns(CoarseMapWarning, match=r"viz\.explore: Coarse map\. For 95 % of .* pairs"):
        surface, found = sample_accurately(manifold, *BOX, latents, side=8, pairs=13, largest=2_000)
    assert not found.fine
    assert found.sentence.startswith("Coarse map.")
    finer, again = sample_accurately(manifold, *BOX, latents, side=8, pairs=13)
    assert again.fine
    assert max(finer.nodes) > max(surface.nodes) == 8


@pytest.mark.full
def test_curves_held_by_empty_places_are_counted_not_hidden(latents: Tensor) -> None:
    manifold = PullbackManifold(Clipped(mlp(), 0.5, 9.0))
    surface = sample_surface(manifold, *BOX, side=64)
    found = measure_accuracy(manifold, surface, latents, pairs=31)
    assert found.compared < found.pairs
    assert f"{found.pairs - found.compared} more pairs" in found.sentence
    assert found.length.p95 < 5e-3
    with pytest.raises(OptionError, match="at least two latents on the map"):
        measure_accuracy(manifold, surface, latents[latents.norm(dim=1) < 0.3], pairs=3)


def test_the_payload_is_json_and_sentences_fit_their_numbers() -> None:
    good = Accuracy(64, 64, 64, 64, Spread(1e-5, 2e-4, 1e-3), Spread(0.0, 1e-7, 1e-5))
    assert good.fine
    assert "within 0.02 % of the exact ones" in good.sentence
    bad = Accuracy(64, 60, 61, 62, Spread(1e-3, 2e-2, 1e-1), Spread(0.0, 1e-3, 1e-2))
    assert not bad.fine
    assert "4 more pairs were not solved by both" in bad.sentence
    few = Accuracy(64, 10, 10, 64, Spread(0.0, 0.0, 0.0), Spread(0.0, 0.0, 0.0))
    assert not few.fine
    none = Accuracy(5, 0, 0, 5, Spread.of(np.zeros(0)), Spread.of(np.zeros(0)))
    assert "could not be checked" in none.sentence
    assert json.loads(json.dumps(none.payload(), allow_nan=False))["length"]["median"] is None
