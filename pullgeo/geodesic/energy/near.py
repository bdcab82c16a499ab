"""Energies of pairs of points that are nearer to each other than rounding errors let outputs tell."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.geodesic.energy.base import MeasuredSpace, Space
from pullgeo.numerics.bisect_batch import where_defined

NEAR = 1e-8
"""Relative rounding error of a length from which on the metric may know it better than differences of outputs do."""

MARGIN = 8.0
"""How far above their estimates rounding errors may be."""

PROBES = 4
"""Changes of signs with which the size of what cancels in a length is measured."""


@dataclass(frozen=True, eq=False)
class Near:
    """What the metric says of p pairs of points.

    Attributes:
        accepted: for which it is more exact than the energy of the curve.
        degenerate: whose distance cannot be told from 0.
        error: of their lengths.
    """

    accepted: Bool[Tensor, " p"]
    degenerate: Bool[Tensor, " p"]
    error: Float[Tensor, " p"]


def near_energy(space: MeasuredSpace, x: Float[Tensor, "p d"], y: Float[Tensor, "p d"]) -> Float[Tensor, " p"]:
    """``uᵀ G((x + y)/2) u`` with ``u = y - x``: the squared distance up to O(u⁴), whatever the size of the outputs.

    The difference of near points is exact (Sterbenz's lemma); the differences of what a decoder returns for them are
    not. It is differentiable with respect to both points and the weights.
    """
    return _squares(space, x + (y - x) / 2, (y - x).unsqueeze(0)).squeeze(0)


@torch.no_grad()
def judge(
    space: MeasuredSpace,
    x: Float[Tensor, "p d"],
    y: Float[Tensor, "p d"],
    energy: Float[Tensor, " p"],
    rounding: Float[Tensor, " p"],
    segments: int,
) -> Near:
    """Whether the metric knows the lengths of pairs better than the energies of curves between them.

    The metric along the line is constant up to O(u), which an estimate of what that leaves out must show, and both
    lengths agree up to rounding errors: kinks, and curves that lead elsewhere, are left to the energies.

    Args:
        space: the manifold.
        x: where the curves begin.
        y: where they end.
        energy: of the curves.
        rounding: rounding errors of their lengths, relative.
        segments: of the curves; rounding errors of that many chords add up, where all nodes are as good as one.

    Cost: metrics at three points of each pair, of five tangents.
    """
    u = y - x
    tangents = torch.cat([u.unsqueeze(0), u * _signs(u)])
    first, middle, last = (_squares(space, z, tangents).clamp(min=0).sqrt() for z in (x, x + u / 2, y))
    eps, tiny = torch.finfo(u.dtype).eps, torch.finfo(u.dtype).tiny
    length = middle[0]
    # what cancels between coordinates shows with other signs
    floor = MARGIN * eps * middle.amax(0)
    changes = (last.square() - first.square()).abs().amax(0) / length.clamp(min=tiny)
    changed = torch.where(changes > 0, changes.square() / length.clamp(min=tiny), 0.0)
    error = (first[0] - 2 * length + last[0]).abs() + changed + floor
    degenerate = (first[0] <= floor) & (length <= floor) & (last[0] <= floor)
    error = torch.where(degenerate, floor, error)
    noise = MARGIN * segments**0.5 * rounding * energy.clamp(min=tiny).sqrt()
    agreed = (energy.clamp(min=0).sqrt() - length).abs() <= noise
    return Near(agreed & (error <= noise), degenerate, error)


def candidates(space: Space, rounding: Float[Tensor, " p"]) -> Bool[Tensor, " p"]:
    """For which curves it is worth asking."""
    return (rounding > NEAR) & isinstance(space, MeasuredSpace)


def _squares(space: MeasuredSpace, z: Float[Tensor, "p d"], tangents: Float[Tensor, "k p d"]) -> Float[Tensor, "k p"]:
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
