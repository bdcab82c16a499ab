"""Random curves around others, from which descents lead to other minima."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.starts.base import Candidates

MODES = 3
"""Sines that are added to a curve."""


@dataclass(frozen=True, eq=False)
class Waves:
    """The straight line with a few random sines on top: `count` such curves for each pair.

    Lattices see one or a few directions across the line; with more than two latents random curves reach the others.
    The curves are the same at every call.

    Args:
        count: curves for each pair.
        size: of the largest, in lengths of the line.
        seed: of the random numbers.

    Raises:
        OptionError: a field is out of its range.

    Cost: two points for each segment and curve.
    """

    count: int = 12
    size: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.size <= 0:
            raise OptionError(f"Waves: expected count >= 1 and size > 0, got {self!r}.")

    def candidates(self, space: DiscreteEnergy, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """Random curves between end points."""
        return self.around(space, straight_line(z0, z1, segments).nodes)

    def around(self, space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> Candidates:
        """Random curves around given ones, of as many segments."""
        p, n, d = nodes.shape
        generator = torch.Generator().manual_seed(self.seed)
        t = torch.linspace(0, math.pi, n, dtype=torch.float64)
        sines = torch.stack([(k * t).sin() / k for k in range(1, MODES + 1)])
        # on both sides: what lies on one of them says nothing of the other
        half = -(-self.count // 2)
        sizes = self.size * (torch.arange(half, dtype=torch.float64) + 0.5) / half
        weights = torch.randn(half, MODES, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
        shape = torch.einsum("ks,ckd->csd", sines, sizes[:, None, None] * weights)
        shape = torch.stack([shape, -shape], 1).flatten(0, 1)[: self.count].to(nodes)
        length = (nodes[:, -1] - nodes[:, 0]).norm(dim=1)[:, None, None, None]
        curves = (nodes.unsqueeze(1) + length * shape).flatten(0, 1)
        pair = torch.arange(p, device=nodes.device).repeat_interleave(self.count)
        ends = nodes[pair]
        curves = torch.cat([ends[:, :1], curves[:, 1:-1], ends[:, -1:]], 1)
        return Candidates.at_uniform_speed(space, DiscreteCurve(curves), n - 1, pair)
