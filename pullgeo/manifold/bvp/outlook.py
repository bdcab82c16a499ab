"""How a geodesic goes on behind a piece: a first guess of the next one, and how long that may be."""

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.ode.gauss_legendre import gauss
from pullgeo.numerics.ode.piecewise import like

HALF_AXIS = 2.25
"""Of the smallest ellipse around a piece, with foci at its ends, on which ``z̈`` may be infinite, relative to half of
the piece: polynomials of degree n converge as 4.3⁻ⁿ, the sum of its half axes."""

GROWTH, DECAY = 2.0, 3.5
"""A piece goes no further than ``z̈`` grows, or falls, by e to these powers: errors are relative to the velocity at
its end, and solutions are found relative to the largest on the way."""


CIRCLE = 1 / 3
"""``1/k`` of a circle through infinity."""


STRAIGHT = 1e-7
"""Relative size of a derivative across ``z̈`` below which there is none."""


@dataclass(frozen=True, eq=False)
class Outlook(Batch):
    """``z̈(t) = z̈(0) (1 - t/p)⁻ᵏ``, in a plane whose points are taken for complex numbers.

    It holds for circles through infinity and for exponential growth, where polynomials are of no use.

    Attributes:
        acceleration: ``z̈`` at the beginning.
        across: a vector of the same length that is orthogonal to it.
        inverse: ``1/p``, the reciprocal of the time at which ``z̈`` is infinite.
        power: k.
    """

    acceleration: Float[Tensor, "b d"]
    across: Float[Tensor, "b d"]
    inverse: Complex[Tensor, " b"]
    power: Float[Tensor, " b"]

    @staticmethod
    def ahead(acceleration: Float[Tensor, "b d"], rate: Float[Tensor, "b d"]) -> "Outlook":
        """With a derivative of ``z̈``."""
        rate = torch.where(torch.isfinite(rate).all(1, keepdim=True), rate, 0.0)
        return _planar(acceleration, rate, torch.full_like(acceleration, torch.nan))

    @staticmethod
    def behind(pieces: Pieces) -> "Outlook":
        """With the derivatives of ``z̈`` at the end of curves in one piece."""
        h = pieces.durations[:, 0]
        k = torch.arange(pieces.accelerations.shape[2], dtype=h.dtype, device=h.device)
        n = k * (k + 1)
        # of Legendre polynomials at 1: value, first and second derivative by time
        ends = torch.stack([torch.ones_like(n), n, n * (n - 2) / 2])
        derivatives = torch.einsum("ek,km,bmd->ebd", ends, like(pieces.rule.legendre, k), pieces.accelerations[:, 0])
        return _planar(*(a / h**order for order, a in enumerate(derivatives)))

    def accelerations(self, duration: Float[Tensor, " b"], stages: int) -> Float[Tensor, "b s d"]:
        """``z̈`` at Gauss's points of a piece that takes so long."""
        t = duration.unsqueeze(1) * like(gauss(stages).points, duration)
        grown = (-self.power.unsqueeze(1) * (1 - self.inverse.unsqueeze(1) * t).log()).exp().unsqueeze(2)
        return grown.real * self.acceleration.unsqueeze(1) + grown.imag * self.across.unsqueeze(1)

    @property
    def longest(self) -> Float[Tensor, " b"]:
        """The longest piece on which polynomials converge well.

        Source: Trefethen, *Approximation Theory and Approximation Practice*, chapter 8.
        """
        tiny = torch.finfo(self.power.dtype).tiny
        near, real = self.inverse.abs().clamp(min=tiny**0.25), self.inverse.real
        far = 2 * (HALF_AXIS * near - real) / (near.square() * (HALF_AXIS**2 - 1))
        grown = GROWTH / (real * self.power).clamp(min=tiny**0.25)
        fallen = torch.expm1(DECAY / self.power) / (-real).clamp(min=tiny**0.25)
        return torch.minimum(far, torch.minimum(grown, fallen))


def _planar(acceleration: Float[Tensor, "b d"], once: Float[Tensor, "b d"], twice: Float[Tensor, "b d"]) -> Outlook:
    """From ``z̈`` and its derivatives."""
    tiny = torch.finfo(acceleration.dtype).tiny
    size = acceleration.norm(dim=1, keepdim=True).clamp(min=tiny)
    along = acceleration / size
    across = once - (once * along).sum(1, keepdim=True) * along
    turn = across.norm(dim=1, keepdim=True)
    # what rounding has left of a straight line has no direction
    across = torch.where(turn > STRAIGHT * once.norm(dim=1, keepdim=True), across / turn.clamp(min=tiny), 0.0)
    rate, second = (torch.complex((a * along).sum(1), (a * across).sum(1)) / size.squeeze(1) for a in (once, twice))
    # between an exponential and a simple pole, and a circle through infinity where it is not known
    share = ((second / rate.square()).real - 1).clamp(0.01, 1.0).nan_to_num(nan=CIRCLE)
    return Outlook(acceleration, across * size, rate * share, 1 / share)
