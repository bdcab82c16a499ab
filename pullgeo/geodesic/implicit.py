"""Derivatives of geodesics with respect to end points and weights, without unrolling the solver."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic.block_tridiagonal import BlockTridiagonal
from pullgeo.geodesic.space import Space


def attach(
    space: Space, nodes: Float[Tensor, "p n d"], z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
) -> Float[Tensor, "p n d"]:
    """The same curves, connected to their end points and to the space's weights for differentiation.

    The inner nodes solve ``g(nodes, z0, z1, θ) = 0``. One Newton step with the Hessian held fixed,
    ``nodes - H⁻¹ g(nodes, z0, z1, θ)``, moves them by nothing and has the derivative that the implicit function
    theorem gives; memory does not depend on how many steps found the curve. First derivatives of the curve and first
    and second derivatives of its energy are exact.

    Cost: one expansion of the energy, and its backward pass when a gradient is taken.
    """
    inner = nodes[:, 1:-1].detach()
    joined = torch.cat([z0.unsqueeze(1), inner, z1.unsqueeze(1)], 1)
    at = space.expand_energy(joined)
    system = BlockTridiagonal(at.diagonal.detach(), at.off_diagonal.detach())
    step, good = system.cholesky_solve(at.gradient)
    # where H is singular the nodes stay as they are: the energy's first derivative needs no more (envelope theorem)
    step = torch.where(good.view(-1, 1, 1), step - step.detach(), 0.0)
    return torch.cat([z0.unsqueeze(1), inner - step, z1.unsqueeze(1)], 1)
