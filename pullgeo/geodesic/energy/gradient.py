"""Discrete energies to first order."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.gradient_of import gradient_of
from pullgeo.geodesic.energy.base import DiscreteEnergy, EnergyGradient, GradientEnergy
from pullgeo.numerics.chunking import FEW


def slope(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> EnergyGradient:
    """Energies of curves with an even number of segments, to first order.

    Cost: a forward and a backward pass for each node, and half a forward pass more if the space has no shorter way.
    """
    nodes = nodes.detach()
    of = space.slope if isinstance(space, GradientEnergy) else lambda part: slope_by_autograd(space.energy, part)
    return EnergyGradient.cat([of(part) for (part,) in FEW.split(nodes)])


def slope_by_autograd(energy: Callable[[Tensor], Tensor], nodes: Float[Tensor, "p n d"]) -> EnergyGradient:
    """The same for any energy that can be differentiated."""
    with torch.enable_grad():
        x = nodes.detach().clone().requires_grad_()
        value = energy(x)
        moved = gradient_of(value, x)
    with torch.no_grad():
        return EnergyGradient(value.detach(), moved[:, 1:-1], energy(nodes[:, ::2]))
