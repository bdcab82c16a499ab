"""Random decoders and solvers, and what must hold of every solution.

``python tests/fuzz/fuzz_geodesics.py --seconds 60 --seed 0``; the cases of a seed are numbered, and ``--case N`` runs
one of them again. A curve that is merely longer than another minimum is no fault; how often that happens is
reported apart. Neither is an error estimate that is too small at the kinks of a piecewise linear network, where nothing
is asymptotic, as long as fewer than ``KINKED_SHARE`` of such pairs have one.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, Newton, PullbackManifold
from pullgeo.curve import DiscreteCurve, straight_line
from pullgeo.errors import PullgeoError
from pullgeo.geodesic import GaussNewton, InitialCurve, Solution, Solver, StraightLine
from pullgeo.manifold import Manifold
from pullgeo.testing.charts import Paraboloid, StereographicSphere

PAIRS = 5
CHORDS = 4096
SLACK = 3.0
"""How many error estimates a length may be off: they are estimates, and most are within one."""

KINKED = ("ReLU", "LeakyReLU", "Hardtanh")
KINKED_SHARE = 0.005

Decode = Callable[[Tensor], Tensor]
ACTIVATIONS = (nn.Tanh, nn.Softplus, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.ReLU, nn.LeakyReLU, nn.Hardtanh)


@dataclass
class Case:
    """A manifold with pairs of points.

    Attributes:
        kind: what it is, for the counts.
        decode: the map whose image has the lengths; ``None`` for metrics.
        exact: the distances, where they are known.
    """

    kind: str
    manifold: Manifold
    z0: Tensor
    z1: Tensor
    decode: Decode | None
    exact: Tensor | None = None


@dataclass
class Tally:
    """What has been seen."""

    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    longer: int = 0
    kinked: int = 0
    underestimated: int = 0


def network(g: torch.Generator, d: int) -> tuple[nn.Sequential, str]:
    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=g))

    activation = ACTIVATIONS[draw(len(ACTIVATIONS))]
    sizes = [d, *[(7, 16, 32)[draw(3)] for _ in range(1 + draw(3))], 11]
    gain = 0.5 + 2.5 * float(torch.rand((), generator=g))
    parts: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        linear = nn.Linear(n_in, n_out)
        with torch.no_grad():
            linear.weight.copy_(gain / n_in**0.5 * torch.randn(n_out, n_in, generator=g))
            linear.bias.copy_(torch.randn(n_out, generator=g))
        parts += [linear, activation()]
    return nn.Sequential(*parts[:-1]), activation.__name__


def case_of(seed: int) -> Case:
    """The case of a seed."""
    g = torch.Generator().manual_seed(seed)
    d = (1, 2, 2, 3, 5)[int(torch.randint(5, (), generator=g))]
    dtype = (torch.float32, torch.float64)[int(torch.randint(2, (), generator=g))]
    scale = (0.01, 0.5, 1.0, 3.0)[int(torch.randint(4, (), generator=g))]
    z = (scale * torch.randn(2, PAIRS, d, generator=g)).to(dtype)
    which = int(torch.randint(10, (), generator=g))
    if which == 0:
        z = z.clamp(-1, 1)
        sphere = StereographicSphere(d)
        return Case(
            "sphere", PullbackManifold(sphere), z[0], z[1], sphere, sphere.distance(z[0].double(), z[1].double())
        )
    if which == 1:
        paraboloid = Paraboloid()
        z = (scale * torch.randn(2, PAIRS, 2, generator=g)).to(dtype)
        return Case("paraboloid", PullbackManifold(paraboloid), z[0], z[1], paraboloid)
    if which == 2:
        matrix = torch.randn(7, d, generator=g, dtype=torch.float64)

        def linear(z: Tensor) -> Tensor:
            return z @ matrix.mT.to(z)

        exact = ((z[1] - z[0]).double() @ matrix.mT).norm(dim=1)
        return Case("linear", PullbackManifold(linear), z[0], z[1], linear, exact)
    if which == 3:
        power = float(torch.rand((), generator=g))

        def metric(z: Tensor) -> Tensor:
            return torch.eye(z.shape[1], dtype=z.dtype) * (1 + z.square().sum(1)).pow(power)[:, None, None]

        return Case("metric", MetricManifold(metric), z[0], z[1], None)
    if which == 4:
        radius = 0.05 + 0.3 * float(torch.rand((), generator=g))

        def hole(z: Tensor) -> Tensor:
            return torch.cat([z, (z.square().sum(1, keepdim=True) - radius**2).log()], 1)

        d = max(d, 2)
        z = torch.randn(2, PAIRS, d, generator=g)
        z = (z / z.norm(dim=2, keepdim=True)).to(dtype)
        return Case("hole", PullbackManifold(hole), z[0], z[1], hole)
    net, name = network(g, d)
    net = net.to(dtype)
    return Case(name, PullbackManifold(net), z[0], z[1], net)


def measured(decode: Decode, curve: DiscreteCurve) -> Tensor:
    """Lengths by many chords and half as many, extrapolated, in float64."""
    if isinstance(decode, nn.Module):
        state = {name: value.double() for name, value in decode.state_dict().items()}

        def evaluate(z: Tensor) -> Tensor:
            return torch.func.functional_call(decode, state, (z,))
    else:
        evaluate = decode
    t = torch.linspace(0, 1, CHORDS + 1, dtype=torch.float64)
    with torch.no_grad():
        images = [evaluate(DiscreteCurve(nodes[None].double())(t)[0]).flatten(1) for nodes in curve.nodes]
    fine, coarse = (torch.stack([image[::step].diff(dim=0).norm(dim=1).sum() for image in images]) for step in (1, 2))
    return fine + (fine - coarse) / 3


def check(case: Case, seed: int, tally: Tally) -> list[str]:
    """What is wrong; nothing if all is well."""
    g = torch.Generator().manual_seed(seed + 10**6)
    solvers: tuple[Solver, ...] = (Newton(), Newton(starts=(StraightLine(),)), Newton(race=None), GaussNewton())
    solver = solvers[int(torch.randint(len(solvers), (), generator=g))]
    wrong: list[str] = []
    with torch.no_grad():
        there = case.manifold.geodesic(case.z0, case.z1, solver)
        back = case.manifold.geodesic(case.z1, case.z0, solver)
    tally.pairs += len(there)
    tally.statuses.update(status.name for status in there.status)
    good, length, error = there.converged, there.length.double(), SLACK * there.error_estimate.double()
    single = 1e-5 if there.length.dtype == torch.float32 else 1e-9
    small = single * (1 + length.nan_to_num().abs())
    values = torch.stack([there.length, there.energy, there.error_estimate, there.residual], 1)
    if bool((~torch.isfinite(values).all(1) & good).any()) or not bool(torch.isfinite(there.curve.nodes[good]).all()):
        wrong.append("NaN or infinity with CONVERGED")
    ends = torch.stack([there.curve.nodes[:, 0] - case.z0, there.curve.nodes[:, -1] - case.z1])
    if bool(ends.any()):
        wrong.append("the curve has other end points")
    if any("ReLU" in status.value for status in there.status):
        wrong.append("a status blames what was not seen")
    if case.decode is not None:
        fine = measured(case.decode, there.curve)
        off = (fine - length).abs() > error + small
        if case.kind in KINKED:
            tally.kinked += int(good.sum())
            tally.underestimated += int((off & good).sum())
        elif bool(off[good].any()):
            wrong.append(f"length {length.tolist()} +- {error.tolist()}, by chords {fine.tolist()}")
        line = measured(case.decode, straight_line(case.z0, case.z1, 2))
        if isinstance(solver, Newton) and bool((fine > 1.001 * line + error + small)[good].any()):
            wrong.append(f"longer than the line: {fine.tolist()}, {line.tolist()}")
        tally.longer += _longer(case, there, fine, g)
    if case.exact is not None and bool(((length < case.exact - error - small) & good).any()):
        wrong.append(f"shorter than the distance {case.exact.tolist()}: {length.tolist()}")
    if case.kind == "linear" and case.exact is not None and bool(((length - case.exact).abs() > small)[good].any()):
        wrong.append(f"the plane's distances are {case.exact.tolist()}, got {length.tolist()}")
    # a way there is a way back, unless another minimum was found
    both = good & back.converged
    same = (
        (there.curve.nodes - back.curve.nodes.flip(1)).double().flatten(1).norm(dim=1)
        if (there.curve.segments == back.curve.segments)
        else torch.full_like(length, torch.inf)
    )
    size = (case.z1 - case.z0).double().norm(dim=1)
    apart = (length - back.length.double()).abs() > error + SLACK * back.error_estimate.double() + small
    if bool((both & (same < 1e-6 * size) & apart).any()):
        wrong.append("one curve has different lengths in the two directions")
    # who starts from the straight line alone may end in a longer minimum, as on the sphere across the chart's pole
    searching = isinstance(solver, Newton) and not isinstance(solver.starts[0], StraightLine)
    if case.exact is not None and searching:
        with torch.no_grad():
            far = case.manifold.geodesic(case.z0, case.z1.roll(1, 0), solver)
            side = case.manifold.geodesic(case.z1, case.z1.roll(1, 0), solver)
        all_good = good & far.converged & side.converged
        total = error + SLACK * (far.error_estimate + side.error_estimate).double()
        broken = far.length.double() > length + side.length.double() + total + 4 * small
        if bool((broken & all_good).any()):
            wrong.append("the triangle inequality is broken")
    return [f"{type(solver).__name__}: {text}" for text in wrong]


def _longer(case: Case, solution: Solution, fine: Tensor, g: torch.Generator) -> int:
    """How many curves are over 0.1 % longer than what one random start leads to."""
    line = straight_line(case.z0.double(), case.z1.double(), 32).nodes
    t = torch.linspace(0, torch.pi, 33, dtype=torch.float64)
    way = (line[:, -1] - line[:, 0]).norm(dim=1)[:, None, None]
    bump = torch.randn(len(line), 1, line.shape[2], generator=g, dtype=torch.float64) * way * t.sin()[None, :, None]
    start = InitialCurve(DiscreteCurve(line + 0.4 * bump))
    with torch.no_grad():
        other = case.manifold.geodesic(case.z0, case.z1, Newton(starts=(start,)))
    assert case.decode is not None
    found = measured(case.decode, other.curve)
    return int((other.converged & solution.converged & (fine > 1.001 * found)).sum())


def main(argv: list[str] | None = None) -> int:
    """Run cases until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0, help="which sequence of cases")
    parser.add_argument("--cases", type=int, default=10**6, help="stop after so many")
    parser.add_argument("--case", type=int, help="run this one alone")
    arguments = parser.parse_args(argv)
    alone = arguments.case is not None
    seed = arguments.case if alone else arguments.seed * 10**6
    most = 1 if alone else arguments.cases
    end, tally, failures = time.monotonic() + arguments.seconds, Tally(), 0
    count = 0
    while count < most and (count == 0 or time.monotonic() < end):
        case = case_of(seed)
        tally.kinds[case.kind] += 1
        try:
            wrong = check(case, seed, tally)
        except (PullgeoError, RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            wrong = [f"{type(error).__name__}: {error}"]
        for text in wrong:
            print(f"case {seed} ({case.kind}, {case.z0.dtype}, d = {case.z0.shape[1]}): {text}")
            print(f"  python tests/fuzz/fuzz_geodesics.py --case {seed}")
        failures += bool(wrong)
        count, seed = count + 1, seed + 1
    print("kinds: " + ", ".join(f"{n} {kind}" for kind, n in sorted(tally.kinds.items())))
    print(
        "pairs: "
        + ", ".join(f"{n} {name}" for name, n in sorted(tally.statuses.items()))
        + f"; {tally.longer} of {tally.pairs} over 0.1 % longer than one random start leads to"
    )
    print(f"kinks: {tally.underestimated} of {tally.kinked} lengths off by more than {SLACK:g} estimates")
    print(f"{count} cases, {failures} failures")
    return int(failures > 0 or tally.underestimated > max(3.0, KINKED_SHARE * tally.kinked))


if __name__ == "__main__":
    sys.exit(main())
