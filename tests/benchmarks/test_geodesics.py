"""Geodesics on the digits decoder beside stochman's default solver, in one process, with the same fine measure."""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import pytest
import torch
from stochman.manifold import EmbeddedManifold
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, datasets, zoo
from pullgeo.curve import straight_line
from pullgeo.geodesic import (
    CollocationBVP,
    EnergyMinimizer,
    GaussNewton,
    Georce,
    GraphPath,
    Shooting,
    Solver,
    StraightLine,
)
from pullgeo.testing.charts import StereographicSphere
from tests.benchmarks.side_by_side import show

T = TypeVar("T")


class Peer(EmbeddedManifold):
    """The same decoder as stochman sees it."""

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder = decoder

    def embed(self, points: Tensor, jacobian: bool = False) -> Tensor:
        return self.decoder(points.reshape(-1, points.shape[-1])).reshape(*points.shape[:-1], -1)


def fine_lengths(decoder: nn.Module, points: Tensor, z0: Tensor, z1: Tensor) -> Tensor:
    """Lengths of polygons of 2048 chords in the output, in float64, between the true end points."""
    points = torch.cat([z0.unsqueeze(1), points.double()[:, 1:-1], z1.unsqueeze(1)], 1)
    images = [decoder(part.reshape(-1, part.shape[-1])).reshape(*part.shape[:2], -1) for part in points.split(16)]
    return torch.cat([image.diff(dim=1).norm(dim=-1).sum(1) for image in images])


def timed(call: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """What a call returns, and how long it took: the processor, and by the clock."""
    start = time.process_time(), time.perf_counter()
    result = call()
    return result, (time.process_time() - start[0], time.perf_counter() - start[1])


@pytest.fixture(params=sorted({1, len(os.sched_getaffinity(0))}))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """One thread for torch, and as many as it takes by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("pairs", [64, 512])
def test_against_stochman(pairs: int, threads: int) -> None:
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z = vae.encode(images[chosen])
    z0, z1 = z[:pairs], z[512 : 512 + pairs]
    decoder = copy.deepcopy(vae.decoder).double()
    t = torch.linspace(0, 1, 2049)
    with torch.no_grad():
        PullbackManifold(vae.decoder).geodesic(z0[:8], z1[:8])  # what is loaded on first use is not timed
        solution, ours = timed(lambda: PullbackManifold(vae.decoder).geodesic(z0, z1))
    (curve, _), theirs = timed(lambda: Peer(vae.decoder).connecting_geodesic(z0, z1))
    with torch.no_grad():
        ends = z0.double(), z1.double()
        our_length = fine_lengths(decoder, solution.curve(t), *ends)
        their_length = fine_lengths(decoder, curve(t), *ends)
        line = fine_lengths(decoder, straight_line(*ends)(t), *ends)
    ratio = our_length / their_length
    show(
        f"{pairs} geodesics, digits decoder, 32 segments",
        [
            {
                "converged": int(solution.converged.sum()),
                "largest residual": float(solution.residual.max()),
                "steps, mean": float(solution.iterations.double().mean()),
                "steps, most": int(solution.iterations.max()),
                "over 0.1 % longer": int((ratio > 1.001).sum()),
                "over 0.1 % shorter": int((ratio < 0.999).sum()),
                "longest / stochman": float(ratio.max()),
                "threads": threads,
                "stochman / ours, processor": theirs[0] / ours[0],
                "by the clock": theirs[1] / ours[1],
            }
        ],
        f"stochman-{pairs}-pairs-{threads}-threads",
        packages=["stochman"],
        note="Both as they come; lengths by 2048 chords in float64.",
    )
    assert bool(solution.converged.all())
    assert bool((our_length <= line * (1 + 1e-6)).all())
    assert float(ratio.max()) < 1.001


def test_images_by_a_convolutional_decoder() -> None:
    vae, images = zoo.mnist_vae(10), datasets.mnist5000().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:128]
    z = vae.encode(images[chosen])
    with torch.no_grad():
        solution = PullbackManifold(vae.decoder).geodesic(z[:64], z[64:])
    relative = solution.error_estimate / solution.length
    show(
        "64 geodesics, convolutional decoder of MNIST, d = 10",
        [
            {
                "converged": int(solution.converged.sum()),
                "largest residual": float(solution.residual.max()),
                "steps, mean": float(solution.iterations.double().mean()),
                "median error estimate": float(relative.median()),
                "largest error estimate": float(relative.max()),
            }
        ],
    )
    assert bool(solution.converged.all())


def test_spheres() -> None:
    """Stereographic coordinates, from -linspace(0, 1, d) to 0.5: the distance is known."""
    rows: list[dict[str, object]] = []
    with torch.no_grad():
        PullbackManifold(StereographicSphere(2)).dist(torch.zeros(1, 2), torch.ones(1, 2))  # first use is not timed
    for d in (2, 10, 50, 100, 1000):
        chart = StereographicSphere(d)
        x, y = -torch.linspace(0, 1, d, dtype=torch.float64), torch.full((d,), 0.5, dtype=torch.float64)
        exact, newton = float(chart.distance(x, y)), math.nan
        for solver in (Newton(), Georce()) if d <= 100 else (Newton(),):
            with torch.no_grad():
                solution, (spent, _) = timed(partial(PullbackManifold(chart).geodesic, x, y, solver))
            newton = spent if isinstance(solver, Newton) else newton
            rows.append(
                {
                    "d": d,
                    "solver": type(solver).__name__,
                    "segments": solver.segments,
                    "exact": f"{exact:.7f}",
                    "length": f"{float(solution.length):.7f}",
                    "relative error": abs(float(solution.length) / exact - 1),
                    "steps": int(solution.iterations),
                    "time / Newton": spent / newton,
                }
            )
            assert bool(solution.converged.all())
            assert not isinstance(solver, Newton) or abs(float(solution.length) / exact - 1) < 1e-7
    show(
        "spheres of many dimensions",
        rows,
        "spheres",
        note="One pair in stereographic coordinates.",
    )


def test_solvers_side_by_side() -> None:
    """Sixteen pairs of the digits decoder, every solver as it comes."""
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z, latents = vae.encode(images[chosen[:32]]).double(), vae.encode(images)
    manifold = PullbackManifold(copy.deepcopy(vae.decoder).double())
    with torch.no_grad():
        best = manifold.geodesic(z[:16], z[16:], Newton(segments=128, candidates="all")).length
    rows: list[dict[str, object]] = []
    solvers: dict[str, Solver] = {
        "Newton": Newton(),
        "Newton, line": Newton(starts=(StraightLine(),)),
        "Newton, all candidates": Newton(candidates="all"),
        "GaussNewton": GaussNewton(),
        "L-BFGS, nodes": EnergyMinimizer(),
        "L-BFGS, spline": EnergyMinimizer(knots=8),
        "Adam, spline": EnergyMinimizer(
            knots=8, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), tol=1e-2, max_steps=1000
        ),
        "Georce": Georce(),
        "Shooting": Shooting(),
        "CollocationBVP": CollocationBVP(),
        "GraphPath": GraphPath(latents),
    }
    newton = math.nan
    for name, solver in solvers.items():
        with torch.no_grad():
            solution, (spent, _) = timed(partial(manifold.geodesic, z[:16], z[16:], solver))
        newton = spent if name == "Newton" else newton
        good = solution.converged
        excess = (solution.length / best - 1)[good if bool(good.any()) else ~good]
        rows.append(
            {
                "solver": name,
                "converged": f"{int(good.sum())}/16",
                "steps, median": float(solution.iterations.double().median()),
                "length / best - 1, median": float(excess.median()),
                "most": float(excess.max()),
                "time / Newton": spent / newton,
            }
        )
    show("solvers on the digits decoder, float64; lengths of those that converged, or of all if none did", rows)
    assert rows[0]["converged"] == "16/16"
