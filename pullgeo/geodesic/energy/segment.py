"""Discrete energies as sums over segments, for metrics of any kind."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.gradient_of import gradient_of
from pullgeo.geodesic.energy.base import QuadraticModel, relative_rounding, scale_free, speed_ratio
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.chunking import POINTS

SquaredLength = Callable[[Tensor, Tensor], Tensor]
"""``a, b -> e(a, b)``, ``(n, d), (n, d) -> (n,)``: squared lengths of short segments, the same from either end."""


ROUNDING = 1e-10
"""Negative squares up to this part of the largest one are zeros that rounding has touched."""


def squares(pieces: Float[Tensor, "p *s"]) -> Float[Tensor, "p *s"]:
    """The squared lengths of segments; NaN where one is negative, so that no length comes of it."""
    if pieces.numel() == 0:
        return pieces
    size = pieces.detach().abs().flatten(1).amax(1).view(-1, *[1] * (pieces.ndim - 1))
    return torch.where(pieces.detach() < -ROUNDING * size, torch.nan, pieces)


def lengths(pieces: Float[Tensor, "p *s"]) -> Float[Tensor, "p *s"]:
    """The lengths of segments; NaN where a square is negative."""
    return squares(pieces).clamp(min=0).sqrt()


@dataclass(frozen=True, eq=False)
class SegmentEnergy:
    """``E = T Σ e(z_i, z_{i+1})``.

    Args:
        squared_length: the energy ``e`` of one segment; if it is not the same from either end, the formulas still hold.
        order: the sum is the energy of the curve up to O(T^-order).
    """

    squared_length: SquaredLength
    order: int = 2

    def energy(self, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
        """``E``."""
        p, n, d = nodes.shape
        each = self.squared_length(nodes[:, :-1].reshape(-1, d), nodes[:, 1:].reshape(-1, d))
        return (n - 1) * squares(each.reshape(p, n - 1)).sum(1)

    def expand_energy(self, nodes: Float[Tensor, "p n d"]) -> QuadraticModel:
        """``E`` to second order, from the 2d x 2d Hessian of every segment by automatic differentiation.

        Cost: 2d + 1 backward passes over all segments.
        """
        return QuadraticModel.cat([self._expand(part) for (part,) in POINTS.split(nodes, each=nodes.shape[1])])

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths ``√e`` of the segments between all points of successive layers. Cost: k² segments for each step."""
        p, n, k, d = layers.shape
        shape = (p, n - 1, k, k, d)
        begin = layers[:, :-1].unsqueeze(3).expand(shape).reshape(-1, d)
        end = layers[:, 1:].unsqueeze(2).expand(shape).reshape(-1, d)
        return lengths(self.squared_length(begin, end).reshape(p, n - 1, k, k))

    def _expand(self, nodes: Float[Tensor, "p n d"]) -> QuadraticModel:
        n = nodes.shape[1]
        pieces, slopes, blocks = _expanded(self.squared_length, nodes)
        pieces = squares(pieces)
        factor = float(n - 1)
        gradient = factor * (slopes[:, :-1, 1] + slopes[:, 1:, 0])
        diagonal = factor * (blocks[:, :-1, 1, :, 1] + blocks[:, 1:, 0, :, 0])
        energy = factor * pieces.sum(1)
        damping = diagonal.diagonal(dim1=-2, dim2=-1).abs()
        # the same unit as for chords, where the diagonal is 4T JᵀMJ to leading order
        stretch = damping.sum(-1).amax(1)
        magnitude = (damping * nodes[:, 1:-1].square()).sum(-1).amax(1) / (4 * factor)
        return QuadraticModel(
            energy=energy,
            gradient=gradient,
            hessian=BlockBanded((diagonal, factor * blocks[:, 1:-1, 0, :, 1])),
            damping=damping,
            residual=scale_free(gradient, stretch, energy),
            rounding=relative_rounding(factor**2 * magnitude, energy),
            speed_ratio=speed_ratio(pieces),
            order=self.order,
        )


def linearised(at: QuadraticModel, nodes: Float[Tensor, "p n d"], metric: Callable[[Tensor], Tensor]) -> QuadraticModel:
    """The quadratic model of a `SegmentEnergy` with the Hessian of a metric that does not change along the curve.

    Args:
        at: the expansion whose Hessian is replaced.
        nodes: the curves.
        metric: ``G`` at points ``(n, d)``; it is taken in the middle of each segment.
    """
    p, n, d = nodes.shape
    middles = (nodes[:, :-1] + nodes[:, 1:]) / 2
    G = 2 * (n - 1) * metric(middles.reshape(-1, d)).reshape(p, n - 1, d, d)
    return replace(at, hessian=BlockBanded((G[:, :-1] + G[:, 1:], -G[:, 1:-1])))


def _expanded(
    squared_length: SquaredLength, nodes: Float[Tensor, "p n d"]
) -> tuple[Float[Tensor, "p s"], Float[Tensor, "p s 2 d"], Float[Tensor, "p s 2 d 2 d"]]:
    """Energies of all segments, their gradients and their Hessians with respect to both ends."""
    p, n, d = nodes.shape
    connected = torch.is_grad_enabled()
    with torch.enable_grad():
        ends = torch.cat([nodes[:, :-1], nodes[:, 1:]], -1).reshape(-1, 2 * d)
        ends = ends if connected and ends.requires_grad else ends.detach().requires_grad_()
        pieces = squared_length(ends[:, :d], ends[:, d:])
        # no segment knows of another: the gradient of a sum over segments is that of each
        slopes = gradient_of(pieces, ends, create_graph=True)
        rows = [gradient_of(column, ends, create_graph=connected, retain_graph=True) for column in slopes.unbind(1)]
    if not connected:
        pieces, slopes = pieces.detach(), slopes.detach()
    blocks = torch.stack(rows, 1)
    return pieces.reshape(p, n - 1), slopes.reshape(p, n - 1, 2, d), blocks.reshape(p, n - 1, 2, d, 2, d)
