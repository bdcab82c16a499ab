"""How far the lengths of discrete curves are off, seen by measuring the curves between their nodes too."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.extrapolated import root
from pullgeo.geodesic.single_precision import precision
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solver import SearchResult
from pullgeo.numerics.chunking import MANY
from pullgeo.numerics.comparison import less, ranked


@dataclass(frozen=True)
class EstimateSettings:
    """What lengths at several resolutions are taken to tell.

    Attributes:
        rounding: change of a length, in units of rounding errors, that is more than these. With room for estimates of
            rounding errors that are too small.
        smooth: change of a length with twice the nodes, over that with half of them, that an error of second order has.
            A quarter, exactly.
        twice: error of a length over its change with twice the nodes. It is 2 at first order, and chance hides some.
        four_times: the same with four times the nodes, where it is 4/3.
        doubtful: relative error estimate from which on a curve might be longer than the line although its energy is
            less. Set by hand.
        finer: chords for each segment, by which curves are compared with lines. Set by hand.
        more: by how much a curve may be longer than the line: neither has been measured exactly. Set by hand.
    """

    rounding: float = 100
    smooth: float = 0.25
    twice: float = 3.0
    four_times: float = 1.5
    doubtful: float = 1e-3
    finer: int = 8
    more: float = 1e-4


SETTINGS = EstimateSettings()


def unseen(
    space: DiscreteEnergy,
    near: DiscreteEnergy,
    found: SearchResult,
    length: Float[Tensor, " p"],
    coarse_length: Float[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """Errors of lengths, seen by measuring the curves between their nodes too; 0 if they drown in rounding errors.

    Chords know nothing of what lies between their ends: a curve may be short for hopping over it. A map with kinks, as
    ReLUs make them, lengthens by O(1/T) at every measurement with more nodes, and all nodes of the curve agree on too
    short a length. Where float32 cannot tell that a curve is smooth, it is measured in full precision.

    Cost: two decoded points for each segment, and four more where twice the nodes give a length that is not the one
    that smooth curves would have.
    """
    with torch.no_grad():
        change = (_measured(near, found.nodes, 2) - length).abs()
        own = noise(near, space, found, length)
        smooth = change + own <= SETTINGS.smooth * (length - coarse_length).abs()
        error = SETTINGS.twice * change
        # what float32 cannot measure, it says nothing about
        kinked = ~smooth & (change > SETTINGS.rounding * own) & torch.isfinite(change)
        for which, measure in ((kinked, near), (~smooth & ~kinked, space)):
            rest = which.nonzero().squeeze(1)
            if len(rest):
                change = ranked((_measured(measure, found.nodes[rest], 4) - length[rest]).abs())
                seen = change > SETTINGS.rounding * noise(space, space, found, length)[rest]
                error = error.index_put((rest,), torch.where(seen, SETTINGS.four_times * change, 0.0))
        return torch.where(length > 0, error, 0.0)


def noise(
    measure: DiscreteEnergy, space: DiscreteEnergy, found: SearchResult, length: Float[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """Rounding errors of measured lengths.

    Errors of neighbouring chords cancel but for the angle between them: unlike those of residuals they do not grow with
    the number of segments.
    """
    units = precision(measure) / precision(space)
    return (precision(measure) + 4 * found.rounding * units / (found.nodes.shape[1] - 1)) * length


def _measured(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"], finer: int) -> Float[Tensor, " p"]:
    """Lengths of curves, measured with so many nodes for each of theirs."""
    segments = finer * (nodes.shape[1] - 1)
    parts = MANY.split(nodes, each=segments)
    return root(torch.cat([space.energy(DiscreteCurve(part).resample(segments).nodes) for (part,) in parts]))


def longer_than_line(space: DiscreteEnergy, solution: Solution) -> Bool[Tensor, " p"]:
    """Which curves are longer than the straight line, measured between their nodes too.

    The energies of nodes are compared by the solvers; only where the error estimate leaves room can the lengths of the
    curves themselves be in another order, and only these are measured.

    Cost: where the error is more than a thousandth, a decoded point for each segment of the line; where the length and
    its error are more than the line's, sixteen.
    """
    longer = torch.zeros(len(solution), dtype=torch.bool, device=solution.length.device)
    doubtful = (solution.error_estimate > SETTINGS.doubtful * solution.length.detach()).nonzero().squeeze(1)
    if len(doubtful):
        nodes = solution.curve.nodes.detach()[doubtful].double()
        segments = nodes.shape[1] - 1
        # chords are shorter than what they span
        possible = (solution.length.detach() + solution.error_estimate)[doubtful] > _chorded(
            space, straight_line(nodes[:, 0], nodes[:, -1], segments)
        )
        doubtful, nodes = doubtful[possible], nodes[possible]
        line = straight_line(nodes[:, 0], nodes[:, -1], SETTINGS.finer * segments)
        longer[doubtful] = less(
            (1 + SETTINGS.more) * _chorded(space, line),
            _chorded(space, DiscreteCurve(nodes).resample(SETTINGS.finer * segments)),
        )
    return longer


def _chorded(space: DiscreteEnergy, curve: DiscreteCurve) -> Float[Tensor, " p"]:
    """Lengths by the chords between nodes."""
    with torch.no_grad():
        return space.chord_lengths(curve.nodes.unsqueeze(2)).flatten(1).sum(1)
