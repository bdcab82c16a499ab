"""Statistics of many points, measured by what the geodesics that they are made of cost; and how that grows."""

import math
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import PullbackManifold, datasets, pairwise_distances, zoo
from pullgeo.stats import FrechetKMeans, NeighbourGraph, frechet_mean, kneighbors_graph
from tests.benchmarks.side_by_side import medians, show

T = TypeVar("T")


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


def spent(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of CPU time, and what the call returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def exponent(n: list[int], seconds: list[float]) -> float:
    """Of growth, from the first to the last."""
    return math.log(seconds[-1] / seconds[0]) / math.log(n[-1] / n[0])


def test_means() -> None:
    """Goal: three times the geodesics from the mean, at every n."""
    manifold, z = digits()
    manifold.geodesic(z[:4], z[4:8])
    rows: list[dict[str, object]] = []
    counts, times = [50, 100, 200, 400], []
    for n in counts:
        found = frechet_mean(manifold, z[:n])
        turns = medians(
            {
                "mean": lambda n=n: frechet_mean(manifold, z[:n]),
                "geodesics": lambda n=n, p=found.point: manifold.geodesic(p.expand(n, -1), z[:n]),
            },
            rounds=3,
            warmup=0,
        )
        times.append(turns["mean"])
        rows.append(
            {
                "n": n,
                "mean, s": turns["mean"],
                "geodesics, s": turns["geodesics"],
                "ratio": turns["mean"] / turns["geodesics"],
                "steps": int(found.iterations),
                "residual": float(found.residual),
                "status": found.status[0].name,
                "segments": found.geodesics.curve.segments,
            }
        )
    show(f"Fréchet means, digits decoder; exponent {exponent(counts, times):.2f}", rows)


def test_kmeans() -> None:
    manifold, z = digits()
    unit, _ = spent(lambda: manifold.geodesic(z[:1].expand(100, -1), z[:100]))
    rows: list[dict[str, object]] = []
    for seed in range(3):
        time_, kmeans = spent(lambda seed=seed: FrechetKMeans(manifold, 3, random_state=seed).fit(z[:100].numpy()))
        rows.append(
            {"seed": seed, "s": time_, "over 100 geodesics": time_ / unit, "rounds": kmeans.n_iter_,
             "inertia": float(kmeans.inertia_)}
        )  # fmt: skip
    show("k-means with three centres, 100 points, digits decoder", rows)


@pytest.mark.parametrize("n", [100])
def test_exact_pairs(n: int) -> None:
    """Goal: 1.2 ms a pair where 512 geodesics take as long as on the machine of the other rows."""
    manifold, z = digits()
    i, j = np.triu_indices(n, 1)
    unit, _ = spent(lambda: manifold.geodesic(z[i[:512]], z[j[:512]]))
    time_, (_, status) = spent(lambda: pairwise_distances(manifold, z[:n], return_status=True))
    converged = sum(s.converged for s in status[i, j])
    row = {"n": n, "ms a pair": 1e3 * time_ / len(i), "over geodesics of 512": time_ / len(i) / (unit / 512)}
    show("all pairs exactly, digits decoder", [{**row, "converged": f"{converged}/{len(i)}"}])


def test_graphs() -> None:
    """Goal: 1, 2.2 and 6 s."""
    manifold, z = digits()
    rows: list[dict[str, object]] = []
    counts, times = [625, 1000, 2000, 5000], []
    for n in counts:
        points = like(z, n)
        time_, _ = spent(lambda p=points: pairwise_distances(manifold, p, method=NeighbourGraph(check_pairs=0)))
        _, report = pairwise_distances(manifold, points, method="graph", return_status=True)
        times.append(time_)
        rows.append(
            {"n": n, "s": time_, "median error": f"{report.median_error:.2%}", "95 %": f"{report.quantile(0.95):.2%}"}
        )
    show(f"distances along a graph, digits decoder; exponent {exponent(counts, times):.2f}", rows)


def test_a_graph_in_ten_dimensions() -> None:
    """Goal: 5 % in the median."""
    vae, images = zoo.mnist_vae(10), datasets.mnist5000().images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:300]
    z = vae.encode(images[order]).detach()
    manifold = PullbackManifold(vae.decoder)
    unit, _ = spent(lambda: manifold.geodesic(z[:32], z[32:64]))
    rows: list[dict[str, object]] = []
    graphs = {
        "50 neighbours": NeighbourGraph(),
        "200 neighbours": NeighbourGraph(neighbours=200),
        "50 neighbours, 3 steps": NeighbourGraph(refine=3),
    }
    for name, graph in graphs.items():
        time_, (_, report) = spent(lambda g=graph: pairwise_distances(manifold, z, method=g, return_status=True))
        error = report.relative_error
        rows.append(
            {
                "graph": name,
                "s": time_,
                "over all geodesics": time_ / (unit / 32 * 300 * 299 / 2),
                "median error": f"{np.nanmedian(error):.2%}",
                "95 %": f"{report.quantile(0.95):.2%}",
            }
        )
    show("300 points, convolutional decoder of MNIST, d = 10, with 100 geodesics to compare with", rows)


def test_neighbours_of_many() -> None:
    """Goal: 10⁵ points in 20 minutes and 4 GB."""
    manifold, z = digits()
    rows: list[dict[str, object]] = []
    counts, times = [1250, 10_000, 100_000], []
    for n in counts:
        points = like(z, n)
        time_, (_, report) = spent(lambda p=points: kneighbors_graph(manifold, p, check_pairs=500, return_report=True))
        times.append(time_)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"n": n, "s": time_, "median error": f"{report.median_error:.2e}", "peak of the process, GB": peak})
    show(
        f"sparse neighbours matrices, digits decoder, with 500 geodesics; exponent {exponent(counts, times):.2f}", rows
    )
