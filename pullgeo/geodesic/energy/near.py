"""Energies of pairs of points that are nearer to each other than rounding errors let outputs tell."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.energy.base import DiscreteEnergy, MetricEnergy
from pullgeo.numerics.bisect_batch import where_defined

NEAR = 1e-8
"""Relative rounding error of a length from which on the metric may know it better than differences of outputs do."""

MARGIN = 8.0
"""How far above their estimates rounding errors may be."""

PROBES = 4
"""Changes of signs with which the size of what cancels in a length is measured."""


@dataclass(frozen=True, eq=False)
class Near:
    """Pairs of points whose distances the metric knows better than outputs do.

    Attributes:
        index: which they are.
        degenerate: whose distance cannot be told from 0.
        error: of their lengths.
    """

    index: Int[Tensor, " q"]
    degenerate: Bool[Tensor, " q"]
    error: Float[Tensor, " q"]


def near_energy(space: MetricEnergy, x: Float[Tensor, "p d"], y: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
    """``uᵀ G((x + y)/2) u`` with ``u = y - x``: the squared distance up to O(u⁴), whatever the size of the outputs.

    The difference of near points is exact (Sterbenz's lemma); the differences of what a decoder returns for them are
    not. It is differentiable with respect to both points and the weights.
    """
    return squared_lengths(space, x + (y - x) / 2, (y - x).unsqueeze(0)).squeeze(0)


@torch.no_grad()
def near_pairs(
    space: DiscreteEnergy,
    x: Float[Tensor, "p d"],
    y: Float[Tensor, "p d"],
    energy: Float[Tensor, " p"],
    rounding: Float[Tensor, " p"],
    segments: int,
) -> Near:
    """The pairs whose lengths the metric knows better than the energies of curves between them.

    An estimate of what the metric leaves out, which changes along the line, must be below the rounding errors of the
    energy, and both lengths agree up to these: kinks, and curves that lead elsewhere, are left to the energies.

    Args:
        space: the manifold; without metric tensors no pair is one of these.
        x: where the curves begin.
        y: where they end.
        energy: of the curves.
        rounding: rounding errors of their lengths, relative.
        segments: of the curves; rounding errors of that many chords add up, where all nodes are as good as one.

    Cost: metrics at three points of each pair whose rounding errors can be seen, of five tangents.
    """
    index = ((rounding > NEAR) & (x != y).any(1) & torch.isfinite(energy)).nonzero().squeeze(1)
    if not len(index) or not isinstance(space, MetricEnergy):
        return Near(index[:0], torch.zeros_like(index[:0], dtype=torch.bool), energy[:0])
    x, y, energy, rounding = x[index], y[index], energy[index], rounding[index]
    u = y - x
    tangents = torch.cat([u.unsqueeze(0), u * _signs(u)])
    first, middle, last = (squared_lengths(space, z, tangents).clamp(min=0).sqrt() for z in (x, x + u / 2, y))
    eps, tiny = torch.finfo(u.dtype).eps, torch.finfo(u.dtype).tiny
    length = middle[0]
    # what cancels between coordinates shows with other signs
    floor = MARGIN * eps * middle.amax(0)
    size = torch.where(length > 0, length, torch.inf)
    changed = ((last.square() - first.square()).abs().amax(0) / size).square() / size
    degenerate = (first[0] <= floor) & (length <= floor) & (last[0] <= floor)
    error = floor + torch.where(degenerate, 0.0, (first[0] - 2 * length + last[0]).abs() + changed)
    noise = MARGIN * segments**0.5 * rounding * energy.clamp(min=tiny).sqrt()
    accepted = ((energy.clamp(min=0).sqrt() - length).abs() <= noise) & (error <= noise)
    return Near(index[accepted], degenerate[accepted], error[accepted])


def squared_lengths(
    space: MetricEnergy, z: Float[Tensor, "p d"], tangents: Float[Tensor, "k p d"]
) -> Float[Tensor, "k p"]:
    """``uᵀ G(z) u`` of tangents, NaN where there is no metric."""
    k = len(tangents)
    return where_defined(
        lambda z, T: space.metric(z).quadratic(T.transpose(0, 1)).mT, (k,), z, tangents.transpose(0, 1)
    ).mT


def _signs(like: Tensor) -> Float[Tensor, "k 1 d"]:
    generator = torch.Generator().manual_seed(0)
    signs = 2.0 * torch.randint(0, 2, (PROBES, 1, like.shape[1]), generator=generator) - 1
    # the first of them is another direction for sure
    signs[0, 0] = 1 - 2.0 * (torch.arange(like.shape[1]) % 2)
    return signs.to(like)
