"""The same 32 pairs of the digits decoder by every solver that is at hand, ours and others', in one process.

Curves are measured alike, whoever found them: by 4096 chords in float64 through the true ends.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_bvp
from torch import Tensor, nn
from torch.func import jacfwd, jvp, vmap

from pullgeo import Newton, PullbackManifold, datasets, zoo
from pullgeo.curve import DiscreteCurve, straight_line
from tests.benchmarks.side_by_side import Spread, show, turns
from tests.benchmarks.test_geodesics import Peer

PAIRS, SEGMENTS, CHORDS = 32, 32, 4096
TIMES = torch.linspace(0, 1, CHORDS + 1, dtype=torch.float64)

FEW = 3
"""Pairs for a solver that takes seconds for each."""

LONGER = 1e-3
"""Relative difference of lengths that counts."""


@dataclass(frozen=True, eq=False)
class Digits:
    """Pairs of encoded digits, and the decoder in both precisions."""

    decoder: nn.Module
    double: nn.Module
    z0: Tensor
    z1: Tensor

    @staticmethod
    def of() -> "Digits":
        vae, images = zoo.digits_vae(), datasets.digits().images
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        z = vae.encode(images[chosen[: 2 * PAIRS]]).detach()
        decoder = vae.decoder.requires_grad_(False)
        return Digits(decoder, copy.deepcopy(decoder).double(), z[:PAIRS], z[PAIRS:])

    def first(self, count: int) -> "Digits":
        return replace(self, z0=self.z0[:count], z1=self.z1[:count])

    def lengths(self, points: Tensor) -> Tensor:
        """Of polygons ``(b, n, 2)`` between the true ends; infinite for what is not finite."""
        inner = points.detach().double()[:, 1:-1]
        points = torch.cat([self.z0.double()[:, None], inner, self.z1.double()[:, None]], 1)
        with torch.no_grad():
            images = [self.double(part) for part in points]
        found = torch.stack([image.diff(dim=0).norm(dim=1).sum() for image in images])
        return torch.where(torch.isfinite(found), found, torch.inf)


def through(nodes: Tensor) -> Tensor:
    """Points of the cubic curves through nodes, as ours are."""
    return DiscreteCurve(nodes.detach().double())(TIMES)


def ours(digits: Digits, solver: Newton) -> Tensor:
    with torch.no_grad():
        return PullbackManifold(digits.decoder).geodesic(digits.z0, digits.z1, solver).curve.nodes


def stochman(digits: Digits) -> Tensor:
    curve, _ = Peer(digits.decoder).connecting_geodesic(digits.z0, digits.z1)
    return curve(TIMES.float())


def energy(digits: Digits, inner: Tensor, dtype: torch.dtype) -> Tensor:
    """``T Σ |f(z_{i+1}) - f(z_i)|²`` of all curves."""
    decoder = digits.double if dtype == torch.float64 else digits.decoder
    nodes = torch.cat([digits.z0.to(dtype)[:, None], inner, digits.z1.to(dtype)[:, None]], 1)
    images = decoder(nodes.reshape(-1, 2)).reshape(*nodes.shape[:2], -1)
    return SEGMENTS * images.diff(dim=1).square().sum()


def descent(digits: Digits, dtype: torch.dtype, optimizer: Callable[[list[Tensor]], Any], steps: int) -> Tensor:
    """The nodes of all curves by an optimiser of torch, from the straight lines."""
    line = straight_line(digits.z0.to(dtype), digits.z1.to(dtype), SEGMENTS).nodes
    inner = line[:, 1:-1].clone().requires_grad_()
    method = optimizer([inner])

    def closure() -> Tensor:
        method.zero_grad()
        value = energy(digits, inner, dtype)
        value.backward()
        return value

    for _ in range(steps):
        method.step(closure)
    return torch.cat([line[:, :1], inner.detach(), line[:, -1:]], 1)


def lbfgs(digits: Digits) -> Tensor:
    make = partial(torch.optim.LBFGS, max_iter=500, max_eval=1000, line_search_fn="strong_wolfe", tolerance_grad=1e-6)
    return descent(digits, torch.float64, make, 1)


def adam(digits: Digits) -> Tensor:
    return descent(digits, torch.float32, partial(torch.optim.Adam, lr=1e-2), 1000)


def collocation(digits: Digits) -> Tensor:
    """scipy's ``solve_bvp`` on ``z̈ = -G⁻¹ Jᵀ f''(ż, ż)``, pair by pair, from the straight line; NaN if it gives up."""
    f = digits.double

    def acceleration(z: Tensor, v: Tensor) -> Tensor:
        bend = jvp(lambda x: jvp(f, (x,), (v,))[1], (z,), (v,))[1]
        J = jacfwd(f)(z)
        # iterates come to where the decoder is flat
        return -torch.linalg.pinv(J.mT @ J, hermitian=True) @ (J.mT @ bend)

    def field(_: np.ndarray, y: np.ndarray) -> np.ndarray:
        z, v = torch.from_numpy(y.T.copy()).chunk(2, 1)
        return torch.cat([v, vmap(acceleration)(z, v)], 1).numpy().T

    curves = []
    t = np.linspace(0, 1, SEGMENTS + 1)
    for a, b in zip(digits.z0.double().numpy(), digits.z1.double().numpy(), strict=True):
        line = np.concatenate([a[:, None] + (b - a)[:, None] * t, np.repeat((b - a)[:, None], len(t), 1)])
        ends = lambda y0, y1, a=a, b=b: np.concatenate([y0[:2] - a, y1[:2] - b])  # noqa: E731
        found = solve_bvp(field, ends, t, line, max_nodes=300)
        points = found.sol(TIMES.numpy())[:2].T if found.success else np.full((CHORDS + 1, 2), np.nan)
        curves.append(torch.from_numpy(points))
    return torch.stack(curves)


def finslerax(digits: Digits) -> dict[str, Callable[[], Tensor]]:
    """Its two boundary value solvers, compiled for all pairs: the default, and the continuation that it advises."""
    import jax
    from finslerax.geometry import EuclideanSpace
    from finslerax.models.learned import PullbackRiemannian
    from finslerax.solvers import AVBDSolver
    from finslerax.solvers.continuation import solve_continuation
    from finslerax.solvers.gauss_newton import GaussNewtonGeodesic

    weights = [jax.numpy.asarray(p.numpy()) for p in digits.decoder.parameters()]

    def decode(z: Any) -> Any:
        a, b, c = zip(weights[::2], weights[1::2], strict=True)
        x = jax.nn.softplus(b[0] @ jax.numpy.tanh(a[0] @ z + a[1]) + b[1])
        return jax.nn.sigmoid(c[0] @ x + c[1])

    metric = PullbackRiemannian(EuclideanSpace(2), decode)
    z0, z1 = (jax.numpy.asarray(z.numpy()) for z in (digits.z0, digits.z1))
    stages = [
        (AVBDSolver(step_size=0.05, iterations=300), metric, 8),
        (AVBDSolver(step_size=0.05, iterations=400), metric, 16),
        (GaussNewtonGeodesic(iterations=30), metric, SEGMENTS),
    ]
    ways = {
        "finslerax, AVBDSolver()": lambda a, b: AVBDSolver().solve(metric, a, b, n_steps=SEGMENTS).xs,
        "finslerax, GaussNewtonGeodesic()": lambda a, b: GaussNewtonGeodesic().solve(metric, a, b, n_steps=SEGMENTS).xs,
        "finslerax, continuation": lambda a, b: solve_continuation(stages, a, b).xs,
    }

    def run(compiled: Any) -> Tensor:
        return torch.from_numpy(np.array(compiled(z0, z1)))

    return {name: partial(run, jax.jit(jax.vmap(way)).lower(z0, z1).compile()) for name, way in ways.items()}


def test_every_solver_on_the_same_pairs() -> None:
    """Takes some minutes, nearly all of them in solvers that treat one pair at a time."""
    torch.set_num_threads(1)
    digits = Digits.of()
    contenders: dict[str, Callable[[], Tensor]] = {
        "Newton()": partial(ours, digits, Newton()),
        'Newton(candidates="all")': partial(ours, digits, Newton(candidates="all")),
        'Newton(search="thorough")': partial(ours, digits, Newton(search="thorough")),
        "stochman": partial(stochman, digits),
        "L-BFGS, torch": partial(lbfgs, digits),
        "Adam, torch, 1000 steps": partial(adam, digits),
        "solve_bvp, scipy": partial(collocation, digits.first(FEW)),
    }
    packages = ["stochman", "scipy"]
    if find_spec("finslerax") is not None:
        contenders |= finslerax(digits)
        packages += ["finslerax", "jax"]
    # what is loaded at the first call is not timed
    for name, run in contenders.items():
        if name.startswith("Newton"):
            run()
    found: dict[str, Tensor] = {}
    ratio: dict[str, Spread] = {}
    for name, run in contenders.items():
        # each alone with Newton(), close to it in time: the machine may change its pace
        last: list[Tensor] = []
        taken = turns(
            {"default": contenders["Newton()"], name: lambda run=run, last=last: last.append(run())}, 3, warmup=0
        )
        found[name] = last[-1]
        ratio[name] = taken.ratio(name, "default", PAIRS / len(found[name]))
    ratio["Newton()"] = Spread(1.0, 1.0, 1.0, 3)
    curves = {name: points if points.shape[1] == len(TIMES) else through(points) for name, points in found.items()}
    lengths = {name: digits.first(len(points)).lengths(points) for name, points in curves.items()}
    padded = [torch.nn.functional.pad(length, (0, PAIRS - len(length)), value=torch.inf) for length in lengths.values()]
    best = torch.stack(padded).amin(0)
    default = lengths["Newton()"]
    rows: list[dict[str, object]] = []
    for name, length in lengths.items():
        n, known = len(length), torch.isfinite(length)
        rows.append(
            {
                "solver": name,
                "pairs": n,
                "time / Newton()": ratio[name],
                "longer than the best by over 0.1 %": int((known & (length > (1 + LONGER) * best[:n])).sum()),
                "Newton() longer than it by over 0.1 %": int((default[:n] > (1 + LONGER) * length).sum()),
                "not found": int((~known).sum()),
                "largest excess, %": 100 * float((length / best[:n] - 1)[known].max()),
            }
        )
    note = (
        "Every solver as it comes, but for 32 segments, and float64 for L-BFGS and solve_bvp. Curves are measured by "
        "4096 chords in float64; the best is the shortest of the table, and times are those of a pair. L-BFGS and Adam "
        "minimise the same discrete energy of all pairs by automatic differentiation, from straight lines. solve_bvp "
        "has the geodesic equation of one pair, with derivatives by torch.func. finslerax is compiled for all pairs at "
        "once, which is not counted and takes 25 to 100 times as long as Newton(); its continuation is the one of its "
        "documentation. geomstats 2.8.0, one pair at a time and with its default solver, had not found the first curve "
        "after 150 seconds; a table of its own follows. The one pair of which Newton() misses the shortest curve has "
        "two valleys, 9 and 15 hundredths of the line's length beside it: nearer to each other than two places of the "
        "lattice that proposes curves, which takes the farther one. Everything that starts on the line finds the "
        "nearer one, and so does a lattice of 13 places in place of 9."
    )
    show(f"{PAIRS} pairs of digits, d = 2", rows, "geodesic-solvers", packages=packages, note=note)
    assert int(str(rows[0]["longer than the best by over 0.1 %"])) <= 2
    assert int(str(rows[2]["longer than the best by over 0.1 %"])) == 0
