"""Lengths of curves that were not solved for, to compare with those that were."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pullgeo.curve.discrete import straight_line
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.single_precision import single_precision
from pullgeo.geodesic.solution import Solution
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.chunking import POINTS

# The straight line's length is right to about 1e-5 with so many chords.
_CHORDS = 512


@dataclass(frozen=True)
class SinglePrecisionSettings:
    """When lengths in single precision are good enough.

    Attributes:
        error: relative rounding error that they may have, where discretisation has a larger one.
        sample: curves that are measured in double precision too, to see how large rounding errors are.
    """

    error: float = 1e-4
    sample: int = 32


SETTINGS = SinglePrecisionSettings()


def cumulative_lengths(manifold: Manifold, nodes: Float[Tensor, "b nodes d"]) -> Float64[Tensor, "b nodes"]:
    """Length from the first node to each node, the sum of the lengths of chords; in ambient units.

    A single chord's discrete energy is the square of its length, whatever the metric.
    """
    with torch.no_grad():
        b, n, d = nodes.shape
        chords = torch.stack([nodes[:, :-1], nodes[:, 1:]], dim=2).reshape(-1, 2, d).double()
        space = manifold.in_double()
        energy = torch.cat([space.energy(part) for (part,) in POINTS.split(chords)])
        steps = energy.clamp(min=0).sqrt().reshape(b, n - 1)
        return torch.cat([steps.new_zeros(b, 1), steps.cumsum(1)], dim=1)


def straight_lines(solution: Solution, steps: int) -> Float[Tensor, "b steps d"]:
    """The straight lines between the ends of each curve, at equal steps."""
    return straight_line(solution.curve.begin, solution.curve.end, steps - 1).nodes.detach()


def curve_points(solution: Solution, steps: int) -> Float[Tensor, "b steps d"]:
    """The curves at equal steps of their parameter, without a graph."""
    length = solution.length
    t = torch.linspace(0, 1, steps, dtype=length.dtype, device=length.device)
    with torch.no_grad():
        return solution.curve(t).detach()


def straight_lengths(manifold: Manifold, solution: Solution) -> Float64[Tensor, " b"]:
    """Lengths of the straight lines between the ends of each curve, in ambient units."""
    return cumulative_lengths(manifold, straight_lines(solution, _CHORDS + 1))[:, -1]


def exact_enough(
    manifold: Manifold, z: Float[Tensor, "n d"], measure: Callable[[DiscreteEnergy, Tensor], Float[Tensor, " n"]]
) -> Float[Tensor, " n"]:
    """Lengths in single precision where rounding errors are small beside them, and in double precision elsewhere.

    Args:
        manifold: where the curves are.
        z: a point of each.
        measure: a space, and the numbers of some curves, to their lengths.
    """
    space = manifold.in_double()
    near = single_precision(manifold, space, z)
    length = measure(near, torch.arange(len(z), device=z.device))
    if near is space:
        return length
    some = torch.linspace(0, len(z) - 1, min(len(z), SETTINGS.sample), device=z.device).long()
    noise = (measure(space, some) - length[some]).abs()
    noise = torch.where(torch.isfinite(noise), noise, 0.0).amax()
    rest = (~(SETTINGS.error * length >= noise) | ~torch.isfinite(length)).nonzero().squeeze(1)
    return length.index_put((rest,), measure(space, rest)) if len(rest) else length
