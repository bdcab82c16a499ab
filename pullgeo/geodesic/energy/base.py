"""What a solver sees of a manifold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.metric.base import Metric
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.batch import Batch


@dataclass(frozen=True, eq=False)
class Expansion:
    """A map into Euclidean space to second order at n points.

    Args:
        value: ``f(z)``, flattened.
        derivatives: for a cotangent w ``(n, D)``, the columns of the Jacobian ``(d, n, D)``, tangents leading, and the
            matrices ``Σ_o w_o ∂²f_o`` ``(n, d, d)``.
    """

    value: Float[Tensor, "n D"]
    derivatives: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class QuadraticModel(Batch):
    """The discrete energy of p curves to second order in their m = T - 1 inner nodes.

    Args:
        energy: ``E``.
        gradient: ``∂E/∂z_i``.
        hessian: the exact second derivatives, banded as only near nodes touch.
        damping: a positive diagonal with the units of the Hessian, in which steps are measured.
        residual: the gradient in a unit that changes with no rescaling of latents, outputs or nodes.
        rounding: the residual that rounding errors alone can cause.
        speed_ratio: largest over median length of a curve's segments.
        order: the energy of a curve's nodes is that of the curve up to O(T^-order).
    """

    energy: Float[Tensor, " p"]
    gradient: Float[Tensor, "p m d"]
    hessian: BlockBanded
    damping: Float[Tensor, "p m d"]
    residual: Float[Tensor, " p"]
    rounding: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]
    order: int

    def double(self) -> "QuadraticModel":
        """The same numbers in float64."""
        return QuadraticModel(
            energy=self.energy.double(),
            gradient=self.gradient.double(),
            hessian=BlockBanded(tuple([band.double() for band in self.hessian.bands])),
            damping=self.damping.double(),
            residual=self.residual.double(),
            rounding=self.rounding.double(),
            speed_ratio=self.speed_ratio.double(),
            order=self.order,
        )


@dataclass(frozen=True, eq=False)
class EnergyGradient(Batch):
    """The discrete energy of p curves to first order in their inner nodes.

    Args:
        energy: ``E``.
        gradient: ``∂E/∂z_i``.
        coarse_energy: the energy of the curves seen with every second node.
    """

    energy: Float[Tensor, " p"]
    gradient: Float[Tensor, "p m d"]
    coarse_energy: Float[Tensor, " p"]


@runtime_checkable
class DiscreteEnergy(Protocol):
    """The energy of curves that are given by their nodes, as solvers ask for it; every manifold has one."""

    def energy(self, nodes: Tensor) -> Tensor:
        """Discrete energies ``(p,)`` of curves given by nodes ``(p, T + 1, d)``."""

    def expand_energy(self, nodes: Tensor) -> QuadraticModel:
        """The discrete energy with exact gradient and Hessian."""

    def chord_lengths(self, layers: Tensor) -> Tensor:
        """Chord lengths ``(p, s, k, k)`` from each point of one layer ``(p, s + 1, k, d)`` to those of the next."""


@runtime_checkable
class ManifoldEnergy(DiscreteEnergy, Protocol):
    """What `solve` asks of a manifold."""

    def in_double(self) -> "ManifoldEnergy":
        """The same manifold in float64."""


@runtime_checkable
class HeldEnergy(Protocol):
    """What a manifold offers on top if it can do without looking the same things up at every call of a solve."""

    def held(self, z: Tensor) -> "ManifoldEnergy":
        """The same manifold for as long as nobody changes what it consists of, and for no longer.

        Args:
            z: some points ``(n, d)``.
        """


@runtime_checkable
class GuardedEnergy(Protocol):
    """What a manifold offers on top if there are points that it cannot measure at."""

    def check_ends(self, z: Tensor) -> None:
        """Raise a named error if one of the end points ``(n, d)`` is such a point."""


@runtime_checkable
class SinglePrecisionEnergy(Protocol):
    """What a manifold may offer on top: float32, which is good enough far from the solution and takes half the time."""

    def in_single(self) -> ManifoldEnergy | None:
        """The same manifold in float32; ``None`` if it is not in float32 already."""


@runtime_checkable
class GradientEnergy(Protocol):
    """What a manifold may offer on top: the energy to first order, for less than differentiating its energy costs."""

    def slope(self, nodes: Tensor) -> EnergyGradient:
        """Energies, their gradients, and the energies seen with every second node."""


@runtime_checkable
class LinearisedEnergy(ManifoldEnergy, Protocol):
    """What `GaussNewton` asks on top: the energy as if the map were linear near each node."""

    def gauss_newton_energy(self, nodes: Tensor) -> QuadraticModel:
        """The discrete energy with its exact gradient, and its Hessian without second derivatives of the map."""


@runtime_checkable
class MetricEnergy(ManifoldEnergy, Protocol):
    """What `Georce` asks on top: metric tensors."""

    def metric(self, z: Tensor) -> Metric:
        """``G(z)`` at points ``(n, d)``."""


@runtime_checkable
class ConnectionEnergy(ManifoldEnergy, Protocol):
    """What solvers of the geodesic equation ask on top."""

    def connection(self, z: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``Γ(u, w)`` at points ``(n, d)``."""


@runtime_checkable
class ImageEnergy(DiscreteEnergy, Protocol):
    """What a manifold may offer on top if its chords are those of a Euclidean space: the map into that."""

    def flat_map(self, z: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Points ``(n, d)`` to images ``(n, D)`` that lie apart by the lengths of chords; ``None`` if there is no such.

        Args:
            z: some points, to find out by.
        """


def scale_free(
    gradient: Float[Tensor, "p m d"], stretch: Float[Tensor, " p"], energy: Float[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """``‖gradient‖ / √(stretch energy)``: the gradient against the largest that chords of this energy could cause.

    Infinite where a curve has a length but moving its inner nodes changes nothing (``stretch = 0``): a gradient
    that is zero for that reason says nothing.
    """
    size = stretch * energy
    nothing = size <= 0
    norm = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    if size.device.type == "cpu" and not bool(nothing.any()):
        return norm / size.sqrt()
    norm = norm / torch.where(nothing, 1.0, size).sqrt()
    return torch.where(nothing, torch.where(energy > 0, torch.inf, 0.0), norm)


def relative_rounding(magnitude: Float[Tensor, " p"], energy: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """``√(magnitude / energy) ε``: rounding errors of values of this square, relative to a length; never infinite."""
    numbers = torch.finfo(energy.dtype)
    # of a ratio, which overflows, no root would be left
    return numbers.eps * magnitude.clamp(min=0).sqrt() / energy.clamp(min=numbers.tiny).sqrt()


def speed_ratio(squared_lengths: Float[Tensor, "p s"]) -> Float[Tensor, " p"]:
    """Largest over median length of the segments."""
    lengths = squared_lengths.detach().clamp(min=0).sqrt()
    return lengths.amax(1) / lengths.median(1).values.clamp(min=torch.finfo(lengths.dtype).tiny)
