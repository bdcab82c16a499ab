"""The one entry: a problem and a solver in, a solution out."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import DiscreteCurve
from pullgeo.geodesic.implicit import attach
from pullgeo.geodesic.newton import Level, Newton
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.space import Space
from pullgeo.geodesic.status import Status


@runtime_checkable
class Solver(Protocol):
    """Finds discrete geodesics at two resolutions, the second twice as fine as the first."""

    def levels(self, space: Space, z0: Tensor, z1: Tensor) -> tuple[Level, Level]:
        """Curves with T and with 2T segments between end points ``(p, d)`` in float64."""


def solve(problem: BoundaryValue, solver: Solver | None = None) -> Solution:
    """Find the geodesics between the pairs of a problem.

    All arithmetic is in float64, whatever the precision of the decoder and the end points; results come in the end
    points' dtype. Where gradients are enabled and asked for, curve, length and energy are differentiable with respect
    to end points and weights by the implicit function theorem.

    Args:
        problem: the manifold and the pairs.
        solver: how to find them; ``Newton()`` if ``None``.

    Example:
        >>> import torch
        >>> from pullgeo import BoundaryValue, Newton, PullbackManifold, solve
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> problem = BoundaryValue(PullbackManifold(decoder), torch.zeros(3, 2), torch.ones(3, 2))
        >>> solve(problem, Newton(tol=1e-8, segments=32))
        Solution(3 pairs: 3 CONVERGED)
    """
    solver = solver if solver is not None else Newton()
    dtype = problem.z0.dtype
    space, z0, z1 = problem.manifold.in_double(), problem.z0.double(), problem.z1.double()
    with torch.no_grad():
        coarse, fine = solver.levels(space, z0.detach(), z1.detach())
    same = (z0 == z1).all(1)
    status = tuple(
        Status.COINCIDENT if point else found for point, found in zip(same.tolist(), fine.status, strict=True)
    )
    levels = [coarse.nodes, fine.nodes]
    energies = [coarse.energy, fine.energy]
    if torch.is_grad_enabled():
        levels = [attach(space, nodes, z0, z1) for nodes in levels]
        energies = [space.energy(nodes) for nodes in levels]
    coarse_length, fine_length = (_root(torch.where(same, 0.0, energy)) for energy in energies)
    return Solution(
        curve=DiscreteCurve(levels[1].to(dtype)),
        length=((4 * fine_length - coarse_length) / 3).to(dtype),
        energy=energies[1].to(dtype),
        status=status,
        iterations=fine.iterations,
        residual=fine.residual.to(dtype),
        error_estimate=((fine_length - coarse_length).abs() / 3).detach().to(dtype),
        speed_ratio=fine.speed_ratio.to(dtype),
    )


def _root(energy: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    # a distance has no derivative where it vanishes; zero is the one in the middle
    positive = energy > 0
    return torch.where(positive, torch.where(positive, energy, 1.0).sqrt(), energy.clamp(min=0))
