"""Geodesics on the digits decoder beside stochman's default solver, in one process, with the same fine measure."""

import copy
from functools import partial
from typing import Any

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
    Solution,
    Solver,
    StraightLine,
)
from pullgeo.testing.charts import StereographicSphere
from tests.benchmarks.side_by_side import show, timed, turns


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


@pytest.mark.parametrize("pairs", [64, 512])
def test_against_stochman(pairs: int) -> None:
    torch.set_num_threads(1)
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z = vae.encode(images[chosen])
    z0, z1 = z[:pairs], z[512 : 512 + pairs]
    decoder = copy.deepcopy(vae.decoder).double()
    t = torch.linspace(0, 1, 2049)

    @torch.no_grad()
    def ours() -> Solution:
        return PullbackManifold(vae.decoder).geodesic(z0, z1)

    def theirs() -> tuple[Any, Any]:
        return Peer(vae.decoder).connecting_geodesic(z0, z1)

    solution, (curve, _) = ours(), theirs()
    run = turns({"ours": ours, "stochman": theirs}, rounds=9 if pairs == 64 else 3, warmup=0)
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
                "time of stochman / ours": run.ratio("stochman", "ours"),
            }
        ],
        f"stochman-{pairs}-pairs",
        packages=["stochman"],
        note="Newton() and stochman's default solver as they come; lengths by 2048 chords in float64.",
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
    torch.set_num_threads(1)
    for d in (2, 10, 50, 100, 1000):
        chart = StereographicSphere(d)
        x, y = -torch.linspace(0, 1, d, dtype=torch.float64), torch.full((d,), 0.5, dtype=torch.float64)
        exact = float(chart.distance(x, y))
        solvers: tuple[Solver, ...] = (Newton(), Georce()) if d <= 100 else (Newton(),)
        solve = {type(s).__name__: partial(PullbackManifold(chart).geodesic, x, y, s) for s in solvers}
        with torch.no_grad():
            run = turns(solve, rounds=5 if d <= 100 else 3, warmup=1 if d <= 100 else 0)
        for solver in solvers:
            with torch.no_grad():
                solution = solve[type(solver).__name__]()
            rows.append(
                {
                    "d": d,
                    "solver": type(solver).__name__,
                    "segments": solver.segments,
                    "exact": f"{exact:.7f}",
                    "length": f"{float(solution.length):.7f}",
                    "relative error": abs(float(solution.length) / exact - 1),
                    "steps": int(solution.iterations),
                    "time / Newton": run.ratio(type(solver).__name__, "Newton"),
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
    newton = partial(manifold.geodesic, z[:16], z[16:], Newton())
    for name, solver in solvers.items():
        with torch.no_grad():
            run = turns({"Newton()": newton, name: partial(manifold.geodesic, z[:16], z[16:], solver)}, 3, 1)
            solution, _ = timed(partial(manifold.geodesic, z[:16], z[16:], solver))
        good = solution.converged
        excess = (solution.length / best - 1)[good if bool(good.any()) else ~good]
        rows.append(
            {
                "solver": name,
                "converged": f"{int(good.sum())}/16",
                "steps, median": float(solution.iterations.double().median()),
                "length / best - 1, median": float(excess.median()),
                "most": float(excess.max()),
                "time / Newton": run.ratio(name, "Newton()"),
            }
        )
    note = (
        "Our own solvers as they come, on 16 pairs. Lengths of those that converged, or of all if none did, beside "
        "Newton with 128 segments."
    )
    show("our solvers, 16 pairs of digits, float64", rows, "our-solvers", note=note)
    assert rows[0]["converged"] == "16/16"
