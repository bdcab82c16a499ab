"""The one entry: a problem and a solver in, a solution out."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import DiscreteCurve
from pullgeo.geodesic.implicit import differentiable
from pullgeo.geodesic.newton import Newton
from pullgeo.geodesic.precision import rough
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.status import Status


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
        found = solver.minimise(space, rough(problem.manifold, space), z0.detach(), z1.detach())
    same = (z0 == z1).all(1)
    status = tuple(Status.COINCIDENT if point else end for point, end in zip(same.tolist(), found.status, strict=True))
    nodes, energy, coarse_energy = differentiable(space, found, z0, z1)
    energy, coarse_energy = (torch.where(same, 0.0, e) for e in (energy, coarse_energy))
    # the same curve seen with every second node: the two lengths tell by how much discretisation has changed it
    length, coarse_length = _root(energy), _root(coarse_energy)
    gain = 2**found.order - 1
    # a curve too coarse for its bends does not show the order that extrapolation trusts in: assume the least there is
    doubt = (length - coarse_length).abs() / 3 + torch.where(length > 0, found.rounding, 0.0) * length
    return Solution(
        curve=DiscreteCurve(nodes.to(dtype)),
        length=(length + (length - coarse_length) / gain).to(dtype),
        energy=energy.to(dtype),
        status=status,
        iterations=found.iterations,
        residual=torch.where(same, 0.0, found.residual).to(dtype),
        error_estimate=doubt.detach().to(dtype),
        speed_ratio=found.speed_ratio.to(dtype),
    )


def _root(energy: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    # a distance has no derivative where it vanishes; zero is the one in the middle
    positive = energy > 0
    return torch.where(positive, torch.where(positive, energy, 1.0).sqrt(), energy.clamp(min=0))
