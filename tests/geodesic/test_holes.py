"""Places where a decoder or a metric is not finite: geodesics lead around them, and NaN never wins a comparison."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import Tensor

from pullgeo import MetricManifold, Newton, PullbackManifold, Status, pairwise_distances
from pullgeo.curve import DiscreteCurve
from pullgeo.geodesic import (
    CollocationBVP,
    EnergyMinimizer,
    GaussNewton,
    Georce,
    InitialCurve,
    LatticeSearch,
    Race,
    Solver,
    StraightLine,
)
from pullgeo.numerics.comparison import less, ranked
from pullgeo.stats import NeighbourGraph

D = torch.float64
Decode = Callable[[Tensor], Tensor]
A, B = torch.tensor([[-1.0, 0.0]], dtype=D), torch.tensor([[1.0, 0.0]], dtype=D)


def log_hole(radius: float) -> Decode:
    return lambda z: torch.cat([z, (z.square().sum(1, keepdim=True) - radius**2).log()], 1)


def root_hole(radius: float) -> Decode:
    return lambda z: torch.cat([z, (z.square().sum(1, keepdim=True) - radius**2).sqrt()], 1)


def punctured(z: Tensor) -> Tensor:
    """The metric that ``log_hole(0.1)`` pulls back, as a matrix; NaN in the hole."""
    square = z.square().sum(1)
    slope = torch.where(square > 0.01, 2 / (square - 0.01), torch.nan).unsqueeze(1) * z
    return torch.eye(2, dtype=z.dtype) + slope.unsqueeze(2) * slope.unsqueeze(1)


def clairaut(slope: Callable[[float], float], radius: float) -> float:
    """Length of the geodesic on ``(r, h(r))`` from r = 1 to r = 1 that turns by π, by Clairaut's integrals.

    With ``r = c + s²`` the integrands are smooth where the geodesic turns back, at r = c.
    """

    def integral(c: float, of_angle: bool) -> float:
        def value(s: float) -> float:
            r = c + s * s
            return 4 * math.sqrt(1 + slope(r) ** 2) * (c / r if of_angle else r) / math.sqrt(2 * c + s * s)

        return float(quad(value, 0, math.sqrt(1 - c), epsabs=1e-11, epsrel=1e-11, limit=200)[0])

    c = brentq(lambda c: integral(c, True) - math.pi, radius + 1e-6, 0.9999, xtol=1e-14)
    return integral(c, False)


def log_length(radius: float) -> float:
    return clairaut(lambda r: 2 * r / (r * r - radius**2), radius)


def root_length(radius: float) -> float:
    return clairaut(lambda r: r / math.sqrt(r * r - radius**2), radius)


def test_the_lengths_that_are_expected_here() -> None:
    assert log_length(0.1) == pytest.approx(2.92604508, abs=1e-8)
    assert root_length(0.02) == pytest.approx(2.53455, abs=1e-5)


@pytest.mark.parametrize("radius", [0.1, 0.02, 1e-3])
def test_ways_around_a_hole(radius: float) -> None:
    for hole, length in ((log_hole, log_length), (root_hole, root_length)):
        with torch.no_grad():
            solution = PullbackManifold(hole(radius)).geodesic(A, B)
        assert solution.status == (Status.CONVERGED,)
        right = length(radius)
        assert abs(float(solution.length) - right) <= float(solution.error_estimate) < 1e-4
        assert float(solution.length) == pytest.approx(right, rel=1e-6)


ARC = DiscreteCurve(
    torch.stack([-torch.linspace(0, math.pi, 33, dtype=D).cos(), torch.linspace(0, math.pi, 33, dtype=D).sin()], 1)[
        None
    ]
)


@pytest.mark.parametrize(
    "solver",
    [
        Newton(starts=(StraightLine(),)),
        Newton(starts=(InitialCurve(ARC),)),
        Newton(starts=(StraightLine(), LatticeSearch())),
        Newton(candidates=Race(3)),
        Newton(candidates="all"),
        Newton(rtol=None),
        GaussNewton(),
        EnergyMinimizer(),
        EnergyMinimizer(starts=(InitialCurve(ARC),)),
        CollocationBVP(),
    ],
    ids=lambda solver: f"{type(solver).__name__} {getattr(solver, 'starts', '')} {getattr(solver, 'candidates', '')}"[
        :60
    ],
)
def test_every_solver_and_start(solver: Solver) -> None:
    with torch.no_grad():
        solution = PullbackManifold(log_hole(0.1)).geodesic(A, B, solver)
    assert solution.status == (Status.CONVERGED,)
    assert float(solution.length) == pytest.approx(2.92604508, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_metric_that_is_not_finite_in_places(dtype: torch.dtype) -> None:
    for solver in (Newton(), Newton(starts=(InitialCurve(ARC),)), Georce(segments=200)):
        solution = MetricManifold(punctured).geodesic(A.to(dtype), B.to(dtype), solver)
        assert solution.status == (Status.CONVERGED,)
        assert float(solution.length) == pytest.approx(2.92604508, rel=1e-5 if isinstance(solver, Newton) else 1e-2)


@pytest.mark.parametrize("d", [2, 3, 5, 160])
def test_spheres_of_many_dimensions_in_the_way(d: int) -> None:
    # a plane through the origin is totally geodesic: the length does not depend on the dimension
    z0, z1 = torch.zeros(3, d, dtype=D), torch.zeros(3, d, dtype=D)
    z0[:, 0], z1[:, 0] = -1, 1
    z1[1, 1] = 0.4  # this line is finite all along
    z1[2, -1] = -0.05
    with torch.no_grad():
        solution = PullbackManifold(log_hole(0.1)).geodesic(z0, z1)
        plane = PullbackManifold(log_hole(0.1)).geodesic(A, torch.tensor([[1.0, 0.05]], dtype=D))
    assert bool(solution.converged.all())
    assert float(solution.length[0]) == pytest.approx(2.92604508, rel=1e-6)
    assert float(solution.length[2]) == pytest.approx(float(plane.length), rel=1e-8)


def test_where_there_is_no_way() -> None:
    # one latent: the two sides are apart; and an end point in the hole has no way to anywhere
    for z0, z1 in ((A[:, :1], B[:, :1]), (0 * A, B)):
        with torch.no_grad():
            solution = PullbackManifold(log_hole(0.1)).geodesic(z0, z1)
        assert solution.status == (Status.NON_FINITE,)
        assert not math.isfinite(float(solution.length))


def test_a_wall_that_lies_between_nodes() -> None:
    # nodes of 32 segments hop over it: finite at all nodes, and no curve
    def wall(z: Tensor) -> Tensor:
        inside = (z[:, :1] - 0.045).abs() < 0.025
        return torch.where(inside, torch.nan, torch.cat([z, z.square()], 1))

    for solver in (Newton(), Newton(rtol=None), GaussNewton()):
        with torch.no_grad():
            solution = PullbackManifold(wall).geodesic(A, B, solver)
        assert not bool(solution.converged.any())


def test_edges_of_graphs_lead_around() -> None:
    manifold = PullbackManifold(log_hole(0.1))
    points = torch.cat([A, B])
    with torch.no_grad():
        lengths = pairwise_distances(manifold, points, method=NeighbourGraph(neighbours=1, edges="geodesic"))
    assert lengths[0, 1] == pytest.approx(2.92604508, rel=1e-2)


def test_what_is_not_finite_is_worse() -> None:
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0, 2.0])
    assert ranked(values).tolist() == [math.inf, math.inf, math.inf, 1.0, 2.0]
    table = less(values[:, None], values)
    right = np.zeros((5, 5), dtype=bool)
    right[3:, :3] = right[3, 4] = True
    assert (table.numpy() == right).all()
