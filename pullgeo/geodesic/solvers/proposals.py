"""What all starts propose for each pair, and the search for a way around where none of them is finite all along."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solvers.graph_path import GraphPath
from pullgeo.geodesic.starts.base import Candidates, Start
from pullgeo.geodesic.starts.lattice import LatticeSearch


@dataclass(frozen=True)
class DetourSettings:
    """Where ways around what is not finite are sought.

    Attributes:
        widths: half the widths of the corridors in which a way is sought, in lengths of the line. The first is that of
            a thorough search.
        grid: points along a side of the grid that is searched where no corridor holds a way, by the number of latents;
            none if it is not named. These are 1681 and 3375 points.
        box: half the side of the grid, in lengths of the line. As wide as the widest corridor.
        finer: points per segment at which a way has to be finite. Set by hand.
    """

    widths: tuple[float, ...] = (0.6, 1.5)
    grid: tuple[int, ...] = (0, 0, 41, 15)
    box: float = 1.5
    finer: int = 4


SETTINGS = DetourSettings()


def propose(
    starts: tuple[Start, ...], space: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"], segments: int
) -> Candidates:
    """The candidates of all starts; and for pairs that have no finite one, ways around what is in between.

    Raises:
        ShapeError: given starts do not fit the pairs.
    """
    proposed = Candidates.cat([start.candidates(space, z0, z1, segments) for start in starts])
    lost = proposed.without(len(z0))
    return proposed if not bool(lost.any()) else Candidates.cat([proposed, *detours(space, z0, z1, segments, lost)])


def propose_shortest(
    starts: tuple[Start, ...], space: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"], segments: int
) -> Float[Tensor, "p n d"]:
    """For each pair the shortest proposal; arguments as for `propose`."""
    return propose(starts, space, z0, z1, segments).shortest(len(z0)).nodes


def detours(
    space: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"], segments: int, lost: Bool[Tensor, " p"]
) -> list[Candidates]:
    """Ways between some pairs that are finite at many places, where the straight line is not.

    Wide corridors are searched first; then, with up to three latents, a grid around both points, where every way that
    is wider than its cells is found. A pair whose end points are not finite has no way and costs nothing.

    Args:
        space: what measures.
        z0: where the curves begin.
        z1: where they end.
        segments: of the candidates.
        lost: the pairs.

    Returns:
        Candidates for the pairs that have a way, numbered as in ``z0``.

    Cost: tens of thousands of points for each pair.
    """
    d = z0.shape[1]
    still = torch.stack([z0, z1], 1)
    ends = torch.isfinite(
        space.chord_lengths(still.flatten(0, 1).unsqueeze(1).expand(-1, 2, -1).unsqueeze(2)).flatten()
    )
    left = (lost & ends.view(-1, 2).all(1) & (z0 != z1).any(1)).nonzero().squeeze(1)
    found: list[Candidates] = []
    for width in SETTINGS.widths if d > 1 else ():
        if not len(left):
            return found
        wide = LatticeSearch(stations=16, offsets=17, width=width, directions=min(d - 1, 4), slack=1.0, paths=6)
        left = _add(found, space, wide.candidates(space, z0[left], z1[left], segments), segments, left)
    rest = []
    for pair in left.tolist() if any(SETTINGS.grid[d : d + 1]) else ():
        middle, half = (z0[pair] + z1[pair]) / 2, SETTINGS.box * (z1[pair] - z0[pair]).norm()
        grid = GraphPath.grid(middle - half, middle + half, SETTINGS.grid[d])
        rest.append(grid.candidates(space, z0[[pair]], z1[[pair]], segments))
    if rest:
        pairs = [Candidates(part.nodes, part.pair + i, part.length) for i, part in enumerate(rest)]
        _add(found, space, Candidates.cat(pairs), segments, left)
    return found


def _add(found: list[Candidates], space: DiscreteEnergy, new: Candidates, segments: int, left: Tensor) -> Tensor:
    """Keep those of the new candidates that are finite, and return the pairs that are still without one."""
    fine = Candidates.at_uniform_speed(
        space, DiscreteCurve(new.nodes).resample(SETTINGS.finer * segments), segments, new.pair
    )
    good = torch.isfinite(fine.length)
    found.append(Candidates(fine.nodes[good], left[fine.pair[good]], fine.length[good]))
    return left[fine.without(len(left))]
