"""Curves to begin the search with."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import DiscreteCurve, straight_line
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.space import Space


@runtime_checkable
class Start(Protocol):
    """Chooses one curve for each pair of end points; the search for a geodesic descends from there."""

    def curves(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> DiscreteCurve:
        """Curves between end points ``(p, d)``."""


@dataclass(frozen=True, eq=False)
class Line:
    """The straight line of the chart, run through at uniform speed as the manifold measures it."""

    def curves(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> DiscreteCurve:
        """Straight lines; cost: two points for each segment."""
        return uniform_speed(space, straight_line(z0, z1, 2 * segments), segments)


@dataclass(frozen=True, eq=False)
class Given:
    """Curves that the caller has: one for each pair, or one for all. Their end points are replaced by the problem's.

    Args:
        curve: the curves.
    """

    curve: DiscreteCurve

    def curves(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> DiscreteCurve:
        """The curves, resampled.

        Raises:
            ShapeError: they are not one for each pair, or of another dimension.
        """
        nodes = self.curve.nodes.detach().to(z0)
        if nodes.shape[0] not in (1, len(z0)) or nodes.shape[2] != z0.shape[1]:
            raise ShapeError(
                f"Given: the curves have nodes {tuple(nodes.shape)}, expected ({len(z0)}, n, {z0.shape[1]}): one curve "
                "for each pair."
            )
        inner = DiscreteCurve(nodes).resample(segments).nodes[:, 1:-1].expand(len(z0), -1, -1)
        return DiscreteCurve(torch.cat([z0.unsqueeze(1), inner, z1.unsqueeze(1)], 1))


@dataclass(frozen=True, eq=False)
class Corridor:
    """The shortest path through a lattice in a corridor around the straight line, by dynamic programming.

    The lattice has a row of points across the line at each of several stations; a path moves from station to station
    and at most two places sideways. In two dimensions the rows are perpendicular to the line; in more they are crosses
    along a few perpendicular directions. The path finds its way round what lies on the line, where descent from the
    line itself would be caught.

    Args:
        stations: number of steps from end to end.
        offsets: points of a row along one direction, an odd number.
        width: half the corridor's width in the middle, in lengths of the line.
        directions: how many perpendicular directions are looked along at the most.

    Raises:
        OptionError: a field is out of its range.

    Cost: ``stations * offsets`` forward passes for each pair and direction.
    """

    stations: int = 16
    offsets: int = 17
    width: float = 0.8
    directions: int = 3

    def __post_init__(self) -> None:
        if self.stations < 2 or self.offsets < 3 or self.offsets % 2 == 0 or self.width <= 0 or self.directions < 1:
            raise OptionError(
                f"Corridor: expected stations >= 2, an odd number of offsets >= 3, width > 0 and directions >= 1, got "
                f"{self!r}."
            )

    def curves(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> DiscreteCurve:
        """The shortest lattice paths, smoothed, at uniform speed."""
        lattice = self._lattice(z0, z1)
        lengths = space.chord_lengths(lattice)
        # what a decoder returns far out may be infinite; such points are not gone through
        lengths = torch.where(torch.isfinite(lengths), lengths, torch.inf)
        path = _shortest_path(lengths.masked_fill(self._too_far(lattice.shape[2], z0), torch.inf))
        nodes = lattice.gather(2, path[:, :, None, None].expand(-1, -1, 1, z0.shape[1])).squeeze(2)
        return uniform_speed(space, DiscreteCurve(_smoothed(_smoothed(nodes))), segments)

    def _lattice(self, z0: Tensor, z1: Tensor) -> Float[Tensor, "p s k d"]:
        line = straight_line(z0, z1, self.stations).nodes
        across = _perpendicular(z1 - z0)[:, : self.directions]
        half = torch.arange(1, self.offsets // 2 + 1, dtype=z0.dtype, device=z0.device)
        places = torch.cat([-half.flip(0), half]) * (self.width / (self.offsets // 2))
        t = torch.linspace(0, 1, self.stations + 1, dtype=z0.dtype, device=z0.device)
        bulge = (4 * t * (1 - t))[None, :, None, None]
        sideways = (across.unsqueeze(2) * places[:, None]).flatten(1, 2)
        sideways = torch.cat([torch.zeros_like(z0).unsqueeze(1), sideways], 1)
        return line.unsqueeze(2) + bulge * sideways.unsqueeze(1)

    def _too_far(self, k: int, like: Tensor) -> Tensor:
        """Which moves within a lattice of k points a row leave their direction or go more than two places aside."""
        half = self.offsets // 2
        place = torch.cat([torch.arange(-half, 0), torch.arange(1, half + 1)]).to(like.device)
        rays = (k - 1) // len(place)
        position = torch.cat([place.new_zeros(1), place.repeat(rays)])
        ray = torch.cat(
            [place.new_full((1,), -1), torch.arange(rays, device=like.device).repeat_interleave(len(place))]
        )
        elsewhere = (ray[:, None] != ray) & (position[:, None] != 0) & (position != 0)
        return elsewhere | ((position[:, None] - position).abs() > 2)


def uniform_speed(space: Space, curve: DiscreteCurve, segments: int) -> DiscreteCurve:
    """The curves with their nodes moved along to equal distances, as the manifold measures chords."""
    nodes = curve.nodes
    chords = space.chord_lengths(nodes.unsqueeze(2)).flatten(1)
    arc = torch.cat([torch.zeros_like(chords[:, :1]), chords.cumsum(1)], 1)
    total = arc[:, -1:]
    measurable = torch.isfinite(total) & (total > 0)
    even = torch.linspace(0, 1, arc.shape[1], dtype=arc.dtype, device=arc.device)
    arc = torch.where(measurable, arc / total, even)
    goal = torch.linspace(0, 1, segments + 1, dtype=arc.dtype, device=arc.device).expand(len(arc), -1).contiguous()
    right = torch.searchsorted(arc, goal, right=True).clamp(1, arc.shape[1] - 1)
    before, after = arc.gather(1, right - 1), arc.gather(1, right)
    share = ((goal - before) / (after - before).clamp(min=torch.finfo(arc.dtype).tiny)).clamp(0, 1).unsqueeze(2)
    index = right.unsqueeze(2).expand(-1, -1, nodes.shape[2])
    moved = nodes.gather(1, index - 1) * (1 - share) + nodes.gather(1, index) * share
    return DiscreteCurve(torch.cat([nodes[:, :1], moved[:, 1:-1], nodes[:, -1:]], 1))


def _shortest_path(lengths: Float[Tensor, "p s k l"]) -> Tensor:
    """Indices ``(p, s + 1)`` of the shortest path through layers, given the lengths of the steps between them."""
    p, steps, k, _ = lengths.shape
    cost = torch.zeros(p, k, dtype=lengths.dtype, device=lengths.device)
    came_from = []
    for i in range(steps):
        cost, best = (cost.unsqueeze(2) + lengths[:, i]).min(1)
        came_from.append(best)
    path = [cost.argmin(1)]
    for best in reversed(came_from):
        path.append(best.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    return torch.stack(path[::-1], 1)


def _perpendicular(line: Float[Tensor, "p d"]) -> Float[Tensor, "p e d"]:
    """``d - 1`` vectors perpendicular to each line and to each other, as long as it is."""
    d = line.shape[1]
    frame = torch.cat(
        [line.unsqueeze(2), torch.eye(d, dtype=line.dtype, device=line.device).expand(len(line), d, d)], 2
    )
    basis = torch.linalg.qr(frame)[0][:, :, :d]
    return basis[:, :, 1:].mT * line.norm(dim=1)[:, None, None]


def _smoothed(nodes: Tensor) -> Tensor:
    inner = (nodes[:, :-2] + 2 * nodes[:, 1:-1] + nodes[:, 2:]) / 4
    return torch.cat([nodes[:, :1], inner, nodes[:, -1:]], 1)
