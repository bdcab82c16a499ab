"""The search for a way around what lies on the straight line."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.starts.base import Candidates

REACH = 2
"""How many places sideways a path may go from one station to the next; also how far apart distinct paths are."""


@dataclass(frozen=True, eq=False)
class LatticeSearch:
    """Shortest paths through a lattice in a corridor around the straight line, by dynamic programming.

    The lattice has a row of points across the line at each of several stations; a path moves from station to station
    and at most two places sideways. In two dimensions the rows are perpendicular to the line; in more they are crosses
    along a few perpendicular directions. Descent from the line itself would be caught by what lies on it; the best path
    has found its way round. Paths that are nearly as short and pass the middle elsewhere become candidates as well: the
    lattice is too coarse to tell which of them ends as the shorter curve.

    Args:
        stations: number of steps from end to end.
        offsets: points of a row along one direction, an odd number.
        width: half the corridor's width in the middle, in lengths of the line.
        directions: how many perpendicular directions are looked along at the most.
        slack: how much longer than the best path, relatively, a further candidate may be.
        paths: how many candidates a pair may have.

    Raises:
        OptionError: a field is out of its range.

    Cost: ``stations * offsets`` forward passes for each pair and direction.
    """

    stations: int = 12
    offsets: int = 9
    width: float = 0.4
    directions: int = 1
    slack: float = 0.05
    paths: int = 3

    def __post_init__(self) -> None:
        if self.stations < 2 or self.offsets < 3 or self.offsets % 2 == 0 or self.width <= 0:
            raise OptionError(
                f"LatticeSearch: expected stations >= 2, an odd number of offsets >= 3 and width > 0, got {self!r}."
            )
        if self.directions < 1 or self.slack < 0 or self.paths < 1:
            raise OptionError(f"LatticeSearch: expected directions >= 1, slack >= 0 and paths >= 1, got {self!r}.")

    def closer(self, d: int) -> "LatticeSearch":
        """The lattice of a second search: around the first way with two latents, in other directions with more.

        With two latents, where the first lattice has seen all directions, it is finer and a little narrower; with more
        it is wider and has four directions. More of its candidates go on, as they may be longer.
        """
        if d <= 2:
            return replace(self, offsets=self.offsets + 4, width=0.9 * self.width, slack=3 * self.slack)
        return replace(
            self,
            offsets=self.offsets + 2,
            width=1.5 * self.width,
            directions=max(self.directions, 4),
            slack=6 * self.slack,
            paths=2 * self.paths,
        )

    def candidates(self, space: DiscreteEnergy, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """The shortest lattice paths, smoothed, at uniform speed."""
        lattice, ray, place = self._lattice(z0, z1)
        lengths = space.chord_lengths(lattice)
        # what a decoder returns far out may be infinite; such points are not gone through
        lengths = torch.where(torch.isfinite(lengths), lengths, torch.inf)
        same = (ray[:, None] == ray) | (place[:, None] == 0) | (place == 0)
        aside = (place[:, None] - place).abs()
        ways = _Ways.of(lengths.masked_fill(~same | (aside > REACH), torch.inf))
        path, pair = self._paths(ways, same & (aside < REACH))
        nodes = _between_places(lattice, ways.through, path, pair, _beside(ray, place))
        curve = DiscreteCurve(_smoothed(nodes)).resample(segments)
        return Candidates.at_uniform_speed(space, curve, segments, pair)

    def _lattice(self, z0: Tensor, z1: Tensor) -> tuple[Float[Tensor, "p s k d"], Int[Tensor, " k"], Int[Tensor, " k"]]:
        """Points, and for each place in a row the direction it lies in and its number from the middle."""
        line = straight_line(z0, z1, self.stations).nodes
        across = _perpendicular(z1 - z0, self.directions)
        rays = across.shape[1]
        half = self.offsets // 2
        side = torch.arange(1, half + 1, device=z0.device)
        side = torch.cat([-side.flip(0), side])
        place = torch.cat([side.new_zeros(1), side.repeat(rays)])
        ray = torch.cat([side.new_full((1,), -1), torch.arange(rays, device=z0.device).repeat_interleave(len(side))])
        sideways = (across.unsqueeze(2) * (side * (self.width / half)).to(z0.dtype)[:, None]).flatten(1, 2)
        sideways = torch.cat([torch.zeros_like(z0).unsqueeze(1), sideways], 1)
        t = torch.linspace(0, 1, self.stations + 1, dtype=z0.dtype, device=z0.device)
        return line.unsqueeze(2) + (4 * t * (1 - t))[None, :, None, None] * sideways.unsqueeze(1), ray, place

    def _paths(self, ways: "_Ways", near: Bool[Tensor, "k k"]) -> tuple[Int[Tensor, "c stations"], Int[Tensor, " c"]]:
        """Shortest paths that pass the middle at distinct places, and the pairs that they are for."""
        middle = len(ways.came_from) // 2
        through = ways.through[:, middle]
        limit = (1 + self.slack) * through.amin(1)
        places: list[Tensor] = []
        pairs: list[Tensor] = []
        for _ in range(self.paths):
            length, place = through.min(1)
            # where nothing is finite the first choice is as good as any
            chosen = ((length <= limit) if places else torch.ones_like(length, dtype=torch.bool)).nonzero().squeeze(1)
            places.append(place[chosen])
            pairs.append(chosen)
            through = through.masked_fill(near[place], torch.inf)
        pair, place = torch.cat(pairs), torch.cat(places)
        back = _traced(ways.came_from[:middle], pair, place)
        onward = _traced(ways.goes_to[: len(ways.goes_to) - middle], pair, place)
        return torch.cat([back.flip(1), onward[:, 1:]], 1), pair


@dataclass(frozen=True, eq=False)
class _Ways:
    """The shortest ways through all places of a lattice.

    Attributes:
        through: at each station, the length of the shortest path through each place.
        came_from: for each step, the place before each place.
        goes_to: for each step, counted from the end, the place after each place.
    """

    through: Float[Tensor, "p n k"]
    came_from: list[Tensor]
    goes_to: list[Tensor]

    @staticmethod
    def of(lengths: Float[Tensor, "p s k k"]) -> "_Ways":
        """Given the lengths of all steps."""
        # from both ends at once
        costs, before = _shortest(torch.cat([lengths, lengths.mT.flip(1)]))
        cost, rest = torch.stack(costs, 1).chunk(2)
        came_from, goes_to = zip(*[places.chunk(2) for places in before], strict=True)
        return _Ways(cost + rest.flip(1), list(came_from), list(goes_to))


def _shortest(lengths: Float[Tensor, "p s k k"]) -> tuple[list[Tensor], list[Tensor]]:
    """At each station, the length of the shortest way to each place, and the place before it."""
    cost = [torch.zeros_like(lengths[:, 0, 0])]
    came_from = []
    for step in lengths.unbind(1):
        shortest, place = (cost[-1].unsqueeze(2) + step).min(1)
        cost.append(shortest)
        came_from.append(place)
    return cost, came_from


def _traced(came_from: list[Tensor], pair: Tensor, place: Tensor) -> Int[Tensor, "c s"]:
    path = [place]
    for best in reversed(came_from):
        path.append(best[pair, path[-1]])
    return torch.stack(path, 1)


def _perpendicular(line: Float[Tensor, "p d"], count: int) -> Float[Tensor, "p e d"]:
    """Up to ``count`` vectors perpendicular to each line and to each other, as long as it is."""
    d = line.shape[1]
    # the axes that the line runs along the least are farthest from depending on it
    axes = line.abs().topk(min(count, d - 1), dim=1, largest=False).indices
    frame = torch.cat([line.unsqueeze(2), torch.nn.functional.one_hot(axes, d).to(line).mT], 2)
    return torch.linalg.qr(frame)[0][:, :, 1:].mT * line.norm(dim=1)[:, None, None]


def _beside(ray: Int[Tensor, " k"], place: Int[Tensor, " k"]) -> Int[Tensor, "2 k"]:
    """The places on both sides of each; itself where there is none."""
    # the middle belongs to all rays; its sides are looked for along the first
    along = ray.clamp(min=0)
    same = (along[:, None] == along) | (place == 0)
    found = []
    for side in (-1, 1):
        there = same & (place == place[:, None] + side)
        found.append(torch.where(there.any(1), there.int().argmax(1), torch.arange(len(place), device=place.device)))
    return torch.stack(found)


def _between_places(
    lattice: Float[Tensor, "p n k d"],
    through: Float[Tensor, "p n k"],
    path: Int[Tensor, "c n"],
    pair: Int[Tensor, " c"],
    beside: Int[Tensor, "2 k"],
) -> Float[Tensor, "c n d"]:
    """Points of paths, moved sideways to where parabolas through three neighbouring lengths are lowest."""
    stations = torch.arange(path.shape[1], device=path.device)
    left, here, right = (
        (lattice[pair[:, None], stations, at], through[pair[:, None], stations, at])
        for at in (beside[0][path], path, beside[1][path])
    )
    slope, curvature = left[1] - right[1], left[1] - 2 * here[1] + right[1]
    # at the rim of the lattice one side is the place itself
    inside = torch.isfinite(slope) & (curvature > 0)
    inside = inside & (beside[0][path] != path) & (beside[1][path] != path)
    shift = torch.where(inside, slope / (2 * torch.where(inside, curvature, 1.0)), 0.0).clamp(-0.5, 0.5).unsqueeze(2)
    side = torch.where(shift > 0, right[0], left[0])
    return here[0] + shift.abs() * (side - here[0])


def _smoothed(nodes: Float[Tensor, "c n d"]) -> Float[Tensor, "c n d"]:
    """Each point moved towards the middle of its neighbours: lattice paths zigzag."""
    inner = (nodes[:, :-2] + 2 * nodes[:, 1:-1] + nodes[:, 2:]) / 4
    return torch.cat([nodes[:, :1], inner, nodes[:, -1:]], 1)
