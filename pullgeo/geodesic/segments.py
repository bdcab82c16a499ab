"""Discrete energies made of the energies of single segments, for metrics of any kind."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, hessian, vmap

from pullgeo.geodesic.block_banded import BlockBanded
from pullgeo.geodesic.residual import scale_free
from pullgeo.geodesic.space import EnergyExpansion
from pullgeo.geodesic.speed import speed_ratio
from pullgeo.jacobian import one_thread_at_a_time, tracked

SegmentEnergy = Callable[[Tensor, Tensor], Tensor]
"""``a, b -> e(a, b)``, ``(n, d), (n, d) -> (n,)``: squared lengths of short segments, the same from either end."""


def segment_sum(segment_energy: SegmentEnergy, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
    """``E = T Σ e(z_i, z_{i+1})`` for the energy ``e`` of one segment, symmetric in its ends."""
    p, n, d = nodes.shape
    each = segment_energy(nodes[:, :-1].reshape(-1, d), nodes[:, 1:].reshape(-1, d))
    return (n - 1) * each.reshape(p, n - 1).sum(1)


def expand_segment_energy(segment_energy: SegmentEnergy, nodes: Float[Tensor, "p n d"]) -> EnergyExpansion:
    """`segment_sum` to second order, from the 2d x 2d Hessian of every segment by automatic differentiation."""
    p, n, d = nodes.shape
    ends = torch.cat([nodes[:, :-1], nodes[:, 1:]], -1).reshape(-1, 2 * d)

    def one(both: Tensor) -> Tensor:
        return segment_energy(both[:d].unsqueeze(0), both[d:].unsqueeze(0)).squeeze(0)

    slopes = vmap(grad(one))(ends).reshape(p, n - 1, 2, d)
    with one_thread_at_a_time:
        blocks = tracked(lambda: vmap(hessian(one))(ends)).reshape(p, n - 1, 2, d, 2, d)
    factor = float(n - 1)
    gradient = factor * (slopes[:, :-1, 1] + slopes[:, 1:, 0])
    diagonal = factor * (blocks[:, :-1, 1, :, 1] + blocks[:, 1:, 0, :, 0])
    pieces = segment_energy(nodes[:, :-1].reshape(-1, d), nodes[:, 1:].reshape(-1, d)).reshape(p, n - 1)
    energy = factor * pieces.sum(1)
    numbers = torch.finfo(nodes.dtype)
    damping = diagonal.diagonal(dim1=-2, dim2=-1).abs()
    # the same unit as for chords, where the diagonal is 4T JᵀMJ to leading order
    stretch = damping.sum(-1).amax(1)
    magnitude = (damping * nodes[:, 1:-1].square()).sum(-1).amax(1) / (4 * factor)
    return EnergyExpansion(
        energy=energy,
        gradient=gradient,
        hessian=BlockBanded((diagonal, factor * blocks[:, 1:-1, 0, :, 1])),
        damping=damping,
        residual=scale_free(gradient, stretch, energy),
        rounding=factor * (magnitude / energy.clamp(min=numbers.tiny)).sqrt() * numbers.eps,
        speed_ratio=speed_ratio(pieces),
        order=2,
    )


def segment_lengths(segment_energy: SegmentEnergy, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
    """Lengths ``√e`` of the segments between all points of successive layers. Cost: k² segments for each step."""
    p, n, k, d = layers.shape
    shape = (p, n - 1, k, k, d)
    begin = layers[:, :-1].unsqueeze(3).expand(shape).reshape(-1, d)
    end = layers[:, 1:].unsqueeze(2).expand(shape).reshape(-1, d)
    return segment_energy(begin, end).clamp(min=0).sqrt().reshape(p, n - 1, k, k)
