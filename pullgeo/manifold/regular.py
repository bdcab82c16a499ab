"""Discrete geodesics along which the geodesic equation exists."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.singular import singular_at
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solver import Solver


def regular_geodesic(
    space: DiscreteEnergy, geodesic: Callable[[Tensor, Tensor, Solver | None], Solution]
) -> Callable[[Tensor, Tensor, Solver | None], Solution]:
    """Geodesics, with the status SINGULAR for those on which the metric is singular at a node.

    Energies and lengths need no invertible metric, but the geodesic equation ``z̈ = -Γ(ż, ż)`` does: where a decoder
    ignores a latent, or two latents do the same, every reparametrisation across them is as good as another.

    Args:
        space: the manifold in float64, with its metric.
        geodesic: discrete geodesics between points ``(b, d)``.

    Cost: one metric and one factorisation for each node.
    """

    def found(x: Tensor, y: Tensor, solver: Solver | None) -> Solution:
        solution = geodesic(x, y, solver)
        curves = solution.converged.nonzero().squeeze(1)
        if not len(curves):
            return solution
        with torch.no_grad():
            lost = set(curves[singular_at(space, solution.curve.nodes.detach()[curves]).any(1)].tolist())
        status = (
            Status.SINGULAR if pair in lost and end is not Status.COINCIDENT else end
            for pair, end in enumerate(solution.status)
        )
        return replace(solution, status=tuple(status))

    return found
