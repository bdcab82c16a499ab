"""What a solver sees of a manifold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Expansion:
    """A map into Euclidean space to second order at n points.

    Args:
        value: ``f(z)``, flattened.
        tangents: the columns of the Jacobian; tangents lead.
        second: ``w -> Σ_o w_o ∂²f_o``, for a cotangent ``(n, D)`` the d x d matrices ``(n, d, d)``.
    """

    value: Float[Tensor, "n D"]
    tangents: Float[Tensor, "d n D"]
    second: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class EnergyExpansion:
    """The discrete energy of p curves to second order in their m = T - 1 inner nodes.

    Args:
        energy: ``E``.
        gradient: ``∂E/∂z_i``.
        diagonal: blocks ``∂²E/∂z_i²`` of the exact Hessian.
        off_diagonal: blocks ``∂²E/∂z_i∂z_{i+1}``; all others vanish.
        damping: a positive diagonal with the units of the Hessian, in which steps are measured.
        residual: the gradient in a unit that changes with no rescaling of latents, outputs or nodes.
        speed_ratio: largest over median length of a curve's segments.
    """

    energy: Float[Tensor, " p"]
    gradient: Float[Tensor, "p m d"]
    diagonal: Float[Tensor, "p m d d"]
    off_diagonal: Float[Tensor, "p l d d"]
    damping: Float[Tensor, "p m d"]
    residual: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]

    def __getitem__(self, index: Tensor) -> "EnergyExpansion":
        """Some of the curves."""
        return EnergyExpansion(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def where(self, chosen: Tensor, other: "EnergyExpansion") -> "EnergyExpansion":
        """This expansion for the chosen curves, the other one for the rest."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return EnergyExpansion(*(torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


@runtime_checkable
class Space(Protocol):
    """What `solve` asks of a manifold."""

    def in_double(self) -> "Space":
        """The same manifold in float64."""

    def energy(self, nodes: Tensor) -> Tensor:
        """Discrete energies ``(p,)`` of curves given by nodes ``(p, T + 1, d)``."""

    def expand_energy(self, nodes: Tensor) -> EnergyExpansion:
        """The discrete energy with exact gradient and Hessian."""

    def chord_lengths(self, layers: Tensor) -> Tensor:
        """Lengths ``(p, s, k, k)`` of chords from each point of a layer to each of the next; ``(p, s + 1, k, d)``."""
