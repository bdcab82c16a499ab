"""What statistics of many points cost, in decoded points: a guard against slow ways that times nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import PullbackManifold, datasets, pairwise_distances, zoo
from pullgeo.manifold import pullback
from pullgeo.numerics.neighbour_graph import neighbour_edges
from pullgeo.stats import FrechetKMeans, NeighbourGraph, frechet_mean


@dataclass
class Decoded:
    """Points that have been decoded, and how many of them with derivatives."""

    points: int = 0
    expanded: int = 0


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Decoded]:
    """Counts while a function runs."""
    count = Decoded()
    value = PullbackManifold._value

    def counted_value(self: PullbackManifold, z: Tensor, *rest: object, **named: object) -> Tensor:
        count.points += len(z)
        return value(self, z, *rest, **named)

    def counted(linearize: Callable[..., object]) -> Callable[..., object]:
        def counting(module: object, z: Tensor, *rest: object, **named: object) -> object:
            count.points += len(z)
            count.expanded += len(z)
            return linearize(module, z, *rest, **named)

        return counting

    monkeypatch.setattr(PullbackManifold, "_value", counted_value)
    for name in ("linearize", "linearize_again"):
        monkeypatch.setattr(pullback, name, counted(getattr(pullback, name)))

    def during(run: Callable[[], object]) -> Decoded:
        count.points = count.expanded = 0
        run()
        return Decoded(count.points, count.expanded)

    return during


@pytest.fixture(scope="module")
def digits() -> tuple[PullbackManifold, Tensor]:
    vae, images = zoo.digits_vae(), datasets.digits().images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:200]
    return PullbackManifold(vae.decoder), vae.encode(images[order]).detach()


@pytest.mark.heavy
def test_a_mean_costs_a_few_times_its_geodesics_at_every_n(digits, decoded):
    manifold, z = digits
    for n, most in ((40, 4.0), (160, 2.7)):
        found = frechet_mean(manifold, z[:n])
        assert bool(found.converged.all())
        mean = decoded(lambda n=n: frechet_mean(manifold, z[:n]))
        geodesics = decoded(lambda n=n, p=found.point: manifold.geodesic(p.expand(n, -1), z[:n]))
        assert mean.points < most * geodesics.points
        assert mean.expanded < 1.1 * most * geodesics.expanded
        assert int(found.iterations) <= 10


def test_distances(digits, decoded):
    manifold, z = digits
    pairs = 30 * 29 // 2
    found = decoded(lambda: pairwise_distances(manifold, z[:30]))
    assert found.points < 600 * pairs
    assert found.expanded < 190 * pairs


def test_a_graph_decodes_few_points_for_an_edge(digits, decoded):
    manifold, z = digits
    found = decoded(lambda: pairwise_distances(manifold, z, method=NeighbourGraph(neighbours=10, check_pairs=0)))
    edges = len(neighbour_edges("test", z.numpy(), 10))
    assert found.points < 7 * edges
    assert found.expanded <= 1  # a point is tried


def test_a_step_of_refinement_takes_one_gradient_for_each_pair(digits, decoded):
    manifold, z = digits
    pairs = 40 * 39 // 2
    plain, once, thrice = (
        decoded(
            lambda steps=steps: pairwise_distances(manifold, z[:40], method=NeighbourGraph(refine=steps, check_pairs=0))
        )
        for steps in (0, 1, 3)
    )
    # a line and perhaps a path, eight segments a step, and chords of two resolutions, of some pairs twice, at the end
    assert once.points - plain.points < (9 + 9 + 9 + 26 + 10) * pairs
    assert thrice.points - once.points <= 2 * 9 * pairs
    assert thrice.expanded <= 40 + 1


@pytest.mark.heavy
def test_clusters_cost_a_few_times_their_geodesics(digits, decoded):
    manifold, z = digits
    X = z[:60].numpy().astype(np.float64)
    geodesics = decoded(lambda: manifold.geodesic(z[:1].expand(60, -1), z[:60]))
    found = decoded(lambda: FrechetKMeans(manifold, 3, random_state=0).fit(X))
    assert found.points < 9 * geodesics.points
    assert found.expanded < 9 * geodesics.expanded
