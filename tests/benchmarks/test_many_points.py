"""Statistics of many points, measured by what the geodesics that they are made of cost; and how that grows."""

import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import PullbackManifold, datasets, pairwise_distances, zoo
from pullgeo.stats import FrechetKMeans, NeighbourGraph, frechet_mean, kneighbors_graph
from tests.benchmarks.side_by_side import Spread, show, turns


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def digits() -> tuple[PullbackManifold, Tensor]:
    """The decoder of digits, and their latents in a random order."""
    vae, images = zoo.digits_vae(), datasets.digits().images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return PullbackManifold(vae.decoder), vae.encode(images[order]).detach()


def like(z: Tensor, n: int) -> Tensor:
    """As many points as are asked for, spread as the given ones are: these first, then some of them moved a little."""
    generator = torch.Generator().manual_seed(1)
    more = max(n - len(z), 0)
    near = z[torch.randint(len(z), (more,), generator=generator)]
    return torch.cat([z, near + 0.1 * z.std(0) * torch.randn(near.shape, generator=generator)])[:n]


def beside(units: int, geodesics: Callable[[], object], call: Callable[[], object], rounds: int = 3) -> Spread:
    """What a call takes in geodesics, of which so many are found at once."""
    run = turns({"geodesics": geodesics, "call": call}, rounds, warmup=0)
    return run.ratio("call", "geodesics", units)


def test_means() -> None:
    """Goal: three times the geodesics from the mean, at every n."""
    manifold, z = digits()
    manifold.geodesic(z[:4], z[4:8])
    rows: list[dict[str, object]] = []
    for n in (50, 100, 200, 400):
        found = frechet_mean(manifold, z[:n])
        mean = partial(frechet_mean, manifold, z[:n])
        ratio = beside(1, partial(manifold.geodesic, found.point.expand(n, -1), z[:n]), mean)
        rows.append(
            {
                "n": n,
                "time / n geodesics from the mean": ratio,
                "steps": int(found.iterations),
                "residual": float(found.residual),
                "status": found.status[0].name,
            }
        )
    show("Fréchet means of n digits", rows, "means", note="frechet_mean() with its default settings.")


def test_kmeans() -> None:
    manifold, z = digits()
    geodesics = partial(manifold.geodesic, z[:1].expand(100, -1), z[:100])
    rows: list[dict[str, object]] = []
    for seed in range(3):
        kmeans = FrechetKMeans(manifold, 3, random_state=seed)
        ratio = beside(1, geodesics, lambda kmeans=kmeans: kmeans.fit(z[:100].numpy()))
        rows.append(
            {"seed": seed, "time / 100 geodesics": ratio, "rounds": kmeans.n_iter_, "inertia": float(kmeans.inertia_)}
        )
    show("k-means with three centres, 100 digits", rows, "kmeans")


def test_exact_pairs() -> None:
    manifold, z = digits()
    i, j = np.triu_indices(60, 1)
    _, status = pairwise_distances(manifold, z[:60], return_status=True)
    converged = sum(s.converged for s in status[i, j])
    ratio = beside(
        512, partial(manifold.geodesic, z[i[:512]], z[j[:512]]), lambda: pairwise_distances(manifold, z[:60])
    )
    row = {"n": 60, "pairs": len(i), "time / geodesics of a batch of 512": ratio, "converged": converged}
    show("all pairs exactly, digits", [row], "exact-pairs", note="In geodesics, each a 512th of a batch of 512.")


def test_graphs() -> None:
    manifold, z = digits()
    geodesics = partial(manifold.geodesic, z[:64], z[64:128])
    rows: list[dict[str, object]] = []
    for n in (625, 1000, 2000, 5000):
        points, graph = like(z, n), NeighbourGraph(check_pairs=0)
        _, report = pairwise_distances(manifold, points, method="graph", return_status=True)
        ratio = beside(64, geodesics, partial(pairwise_distances, manifold, points, method=graph))
        rows.append(
            {
                "n": n,
                "time / geodesics": ratio,
                "pairs / that": n * (n - 1) / 2 / ratio.median,
                "median error, %": 100 * report.median_error,
                "95 % of errors below, %": 100 * float(report.quantile(0.95)),
            }
        )
    note = (
        "In geodesics, each a 64th of a batch of 64; as many times less than all pairs take as the next column says. "
        "Errors beside 100 geodesics."
    )
    show("distances along a graph, digits", rows, "graphs", note=note)


def test_a_graph_in_ten_dimensions() -> None:
    """Goal: 5 % in the median."""
    vae, images = zoo.mnist_vae(10), datasets.mnist5000().images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:300]
    z = vae.encode(images[order]).detach()
    manifold = PullbackManifold(vae.decoder)
    geodesics = partial(manifold.geodesic, z[:16], z[32:48])
    rows: list[dict[str, object]] = []
    graphs = {
        "50 neighbours": NeighbourGraph(check_pairs=0),
        "200 neighbours": NeighbourGraph(neighbours=200, check_pairs=0),
        "50 neighbours, 3 steps": NeighbourGraph(refine=3, check_pairs=0),
    }
    for name, quick in graphs.items():
        checked = replace(quick, check_pairs=NeighbourGraph().check_pairs)
        _, report = pairwise_distances(manifold, z, method=checked, return_status=True)
        ratio = beside(16, geodesics, partial(pairwise_distances, manifold, z, method=quick), rounds=2)
        rows.append(
            {
                "graph": name,
                "time / geodesics": ratio,
                "pairs / that": 300 * 299 / 2 / ratio.median,
                "median error, %": 100 * float(np.nanmedian(report.relative_error)),
                "95 % of errors below, %": 100 * float(report.quantile(0.95)),
            }
        )
    note = "In geodesics, each a 16th of a batch of 16. Errors beside 100 geodesics."
    show("distances of 300 images along a graph, convolutional decoder of MNIST, d = 10", rows, "graph-10", note=note)


def test_neighbours_of_many() -> None:
    """Goal: 10⁵ points in 20 minutes and 4 GB."""
    manifold, z = digits()
    geodesics = partial(manifold.geodesic, z[:64], z[64:128])
    rows: list[dict[str, object]] = []
    for n in (1250, 10_000, 100_000):
        points = like(z, n)
        _, report = kneighbors_graph(manifold, points, check_pairs=500, return_report=True)
        ratio = beside(64, geodesics, partial(kneighbors_graph, manifold, points), rounds=3 if n <= 10_000 else 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append(
            {
                "n": n,
                "time / geodesics": ratio,
                "time / geodesics / n": ratio.median / n,
                "median error": report.median_error,
                "peak of the process, GB": peak,
            }
        )
    note = "In geodesics, each a 64th of a batch of 64. Errors beside 500 geodesics. Points near the digits' are added."
    show("sparse matrices of geodesic neighbours, digits", rows, "neighbours", note=note)
