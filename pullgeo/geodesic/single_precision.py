"""A manifold evaluated in float32 for callers that count in float64."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic.energy.base import (
    DiscreteEnergy,
    EnergyGradient,
    ImageEnergy,
    QuadraticModel,
    SinglePrecisionEnergy,
)
from pullgeo.geodesic.energy.gradient import slope


class InSingle:
    """A space in float32 behind an interface in float64: for the steps far from the solution."""

    def __init__(self, space: DiscreteEnergy) -> None:
        self.space = space

    def energy(self, nodes: Tensor) -> Tensor:
        """Discrete energies, to single precision."""
        return self.space.energy(nodes.float()).double()

    def slope(self, nodes: Tensor) -> EnergyGradient:
        """The discrete energy to first order, to single precision."""
        return slope(self.space, nodes.float()).map(Tensor.double)

    def expand_energy(self, nodes: Tensor) -> QuadraticModel:
        """The discrete energy to second order, to single precision."""
        return self.space.expand_energy(nodes.float()).double()

    def chord_lengths(self, layers: Tensor) -> Tensor:
        """Lengths of chords, to single precision."""
        return self.space.chord_lengths(layers.float()).double()

    def flat_map(self, z: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Points to images that lie apart by the lengths of chords, in single precision; ``None`` if there is none."""
        images = self.space.flat_map(z.float()) if isinstance(self.space, ImageEnergy) else None
        return None if images is None else lambda points: images(points.float())


def single_precision(manifold: DiscreteEnergy, space: DiscreteEnergy, z: Float[Tensor, "p d"]) -> DiscreteEnergy:
    """The manifold in float32, if it offers that, for what need not be exact; else the space.

    A decoder may lower its precision further, as ``torch.autocast`` within it does: too far for a search.

    Args:
        manifold: as it was given.
        space: the same in float64.
        z: points, of which one is tried.
    """
    single = manifold.in_single() if isinstance(manifold, SinglePrecisionEnergy) else None
    if single is None or not len(z):
        return space
    point = z[:1].detach().float().unsqueeze(1).expand(-1, 3, -1)
    return space if single.energy(point).dtype != torch.float32 else InSingle(single)


def precision(space: DiscreteEnergy) -> float:
    """The relative rounding error of what the space computes for float64 nodes."""
    return torch.finfo(torch.float32 if isinstance(space, InSingle) else torch.float64).eps
