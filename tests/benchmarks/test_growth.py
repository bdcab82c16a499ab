"""How times grow: exponents in the batch, the latents, the outputs, the segments and the number of points."""

import math
from collections.abc import Callable
from functools import partial
from statistics import linear_regression

import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, datasets, pairwise_distances, zoo
from pullgeo.stats import NeighbourGraph, kneighbors_graph
from tests.benchmarks.side_by_side import Spread, show, turns
from tests.benchmarks.test_many_points import like


def mlp(d: int = 4, out: int = 64, width: int = 128) -> nn.Module:
    """Small enough that the parts that grow can be seen."""
    torch.manual_seed(0)
    layers = nn.Linear(d, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out)
    return nn.Sequential(*layers).eval().requires_grad_(False)


def metric(decoder: nn.Module, z: Tensor) -> Callable[[], object]:
    manifold = PullbackManifold(decoder)
    return lambda: manifold.metric(z).dense()


def pairs(decoder: nn.Module, z: Tensor, solver: Newton) -> Callable[[], object]:
    z0, z1 = z.chunk(2)
    return partial(PullbackManifold(decoder).geodesic, z0, z1, solver)


def points(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1)) / math.sqrt(d)


def fitted(sizes: list[int], contenders: dict[str, Callable[[], object]], rounds: int) -> tuple[Spread, Spread]:
    """The exponent, by least squares in logarithms, and what the largest takes over the smallest; turn by turn."""
    with torch.no_grad():
        run = turns(contenders, rounds, warmup=1)
    logarithms = [math.log(size) for size in sizes]
    exponents = [
        linear_regression(logarithms, [math.log(seconds) for seconds in turn]).slope
        for turn in zip(*run.seconds.values(), strict=True)
    ]
    return Spread.of(exponents), run.ratio(str(sizes[-1]), str(sizes[0]))


def report(title: str, name: str, cases: dict[str, tuple[str, list[int], Callable[[int], object], int]]) -> None:
    rows: list[dict[str, object]] = []
    for what, (letter, sizes, make, rounds) in cases.items():
        exponent, ratio = fitted(sizes, {str(size): make(size) for size in sizes}, rounds)  # type: ignore[misc]
        rows.append(
            {
                "what": what,
                "in": letter,
                "from": sizes[0],
                "to": sizes[-1],
                "time of the last / the first": ratio,
                "exponent": exponent,
            }
        )
    show(title, rows, name, note=NOTE)


NOTE = (
    "The exponent a of time ~ size^a, in each turn by least squares in logarithms over sizes that double from the "
    "first to the last. Small sizes are dominated by what does not grow, so that exponents rise towards those of the "
    "operations that a size enters. b points or pairs, d latents, D outputs, T segments, n points."
)


def test_metric_and_geodesics() -> None:
    torch.set_num_threads(1)
    digits = zoo.digits_vae().decoder
    report(
        "growth of metrics and geodesics",
        "growth",
        {
            "metric, MLP d-128-128-64, d = 4": (
                "b", [64, 128, 256, 512, 1024], lambda b: metric(mlp(), points(b, 4)), 15
            ),
            "metric, 64 points": ("d", [4, 8, 16, 32, 64], lambda d: metric(mlp(d), points(64, d)), 15),
            "metric, 64 points, d = 4": (
                "D", [256, 512, 1024, 2048, 4096], lambda D: metric(mlp(out=D), points(64, 4)), 15
            ),
            "geodesics, digits decoder": (
                "b", [32, 64, 128, 256], lambda b: pairs(digits, 2 * points(2 * b, 2), Newton()), 5
            ),
            "geodesics, 16 pairs, rtol=None": (
                "T", [16, 32, 64, 128], lambda T: pairs(mlp(), points(32, 4), Newton(segments=T, rtol=None)), 5
            ),
            "geodesics, 8 pairs, 16 segments": (
                "d", [4, 8, 16, 32], lambda d: pairs(mlp(d), points(16, d), Newton(segments=16)), 5
            ),
            "geodesics, 16 pairs, d = 4": (
                "D", [256, 512, 1024, 2048], lambda D: pairs(mlp(out=D), points(32, 4), Newton()), 5
            ),
        },
    )  # fmt: skip


def test_points() -> None:
    torch.set_num_threads(1)
    vae, images = zoo.digits_vae(), datasets.digits().images
    z = vae.encode(images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]).detach()
    manifold = PullbackManifold(vae.decoder)
    distances = partial(pairwise_distances, manifold, method=NeighbourGraph(check_pairs=0))
    report(
        "growth of distances of many points, digits",
        "growth-points",
        {
            "all distances along a graph": (
                "n", [500, 1000, 2000, 4000], lambda n: partial(distances, like(z, n)), 3
            ),
            "sparse matrix of neighbours": (
                "n", [1250, 2500, 5000, 10_000], lambda n: partial(kneighbors_graph, manifold, like(z, n)), 3
            ),
        },
    )  # fmt: skip
