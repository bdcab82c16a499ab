"""Discrete energies that classes state by methods of their own, as they did before `discretise` existed."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pullgeo.geodesic.energy.base import EnergyGradient, QuadraticModel
from pullgeo.geodesic.energy.gradient import slope_by_autograd

NAMES = ("energy", "expand_energy", "chord_lengths")
"""The methods that make a discrete energy."""


@dataclass(frozen=True, eq=False)
class EnergyOfMethods:
    """A discrete energy given by its functions; arguments as for `DiscreteEnergy`.

    Args:
        values: ``energy(nodes)``.
        quadratic: ``expand_energy(nodes)``.
        lengths: ``chord_lengths(layers)``.
        gradient: ``slope(nodes)``; by automatic differentiation of the energy if ``None``.
    """

    values: Callable[[Tensor], Tensor]
    quadratic: Callable[[Tensor], QuadraticModel]
    lengths: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], EnergyGradient] | None = None

    def energy(self, nodes: Tensor) -> Tensor:
        """Discrete energies."""
        return self.values(nodes)

    def slope(self, nodes: Tensor) -> EnergyGradient:
        """Discrete energies to first order."""
        return slope_by_autograd(self.values, nodes) if self.gradient is None else self.gradient(nodes)

    def expand_energy(self, nodes: Tensor) -> QuadraticModel:
        """Discrete energies to second order."""
        return self.quadratic(nodes)

    def chord_lengths(self, layers: Tensor) -> Tensor:
        """Lengths of chords between all points of successive layers."""
        return self.lengths(layers)
