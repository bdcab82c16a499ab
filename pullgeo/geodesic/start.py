"""Curves to begin the search with."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.curve import DiscreteCurve, straight_line
from pullgeo.errors import ShapeError
from pullgeo.geodesic.space import Space


@dataclass(frozen=True, eq=False)
class Candidates:
    """Curves among which the search for each pair's geodesic chooses.

    Attributes:
        nodes: c curves, at least one for each pair.
        pair: which pair each is for.
    """

    nodes: Float[Tensor, "c n d"]
    pair: Int[Tensor, " c"]

    @staticmethod
    def one_each(curve: DiscreteCurve) -> "Candidates":
        """One curve for each pair."""
        return Candidates(curve.nodes, torch.arange(len(curve), device=curve.nodes.device))

    def between(self, first: int, end: int) -> "Candidates":
        """The candidates of the pairs ``first, ..., end - 1``, which are counted from 0 then."""
        chosen = (self.pair >= first) & (self.pair < end)
        return Candidates(self.nodes[chosen], self.pair[chosen] - first)

    def least(self, energy: Float[Tensor, " c"], pairs: int) -> Int[Tensor, " p"]:
        """Which candidate of each pair has the least energy; one that is not finite only if there is no other."""
        energy = torch.where(torch.isfinite(energy), energy, torch.inf)
        order = energy.argsort(stable=True)
        order = order[self.pair[order].argsort(stable=True)]
        return order[torch.searchsorted(self.pair[order], torch.arange(pairs, device=order.device))]

    def of_each(self, pairs: int) -> Int[Tensor, "p k"]:
        """The candidates of each pair, as many columns as the pair with the most has; -1 where there is no more."""
        order = self.pair.argsort(stable=True)
        owner = self.pair[order]
        first = torch.searchsorted(owner, torch.arange(pairs, device=owner.device))
        place = torch.arange(len(owner), device=owner.device) - first[owner]
        table = torch.full((pairs, int(place.max()) + 1 if len(place) else 0), -1, device=owner.device)
        table[owner, place] = order
        return table

    @staticmethod
    def best(
        starts: "tuple[Start, ...]", space: Space, rough: Space, z0: Tensor, z1: Tensor, segments: int
    ) -> Float[Tensor, "p n d"]:
        """For each pair the proposal of all starts with the least energy."""
        proposed = Candidates.cat([start.candidates(rough, z0, z1, segments) for start in starts])
        if len(proposed.pair) == len(z0):
            return proposed.nodes[proposed.pair.argsort()]
        return proposed.nodes[proposed.least(space.energy(proposed.nodes), len(z0))]

    @staticmethod
    def cat(parts: list["Candidates"]) -> "Candidates":
        """The candidates of all parts."""
        return Candidates(torch.cat([part.nodes for part in parts]), torch.cat([part.pair for part in parts]))


@runtime_checkable
class Start(Protocol):
    """Proposes curves between end points; the search for a geodesic descends from there."""

    def candidates(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """Curves between end points ``(p, d)``, at least one for each pair."""


@dataclass(frozen=True, eq=False)
class Line:
    """The straight line of the chart, run through at uniform speed as the manifold measures it."""

    def candidates(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """Straight lines; cost: two points for each segment."""
        return Candidates.one_each(uniform_speed(space, straight_line(z0, z1, 2 * segments), segments))


@dataclass(frozen=True, eq=False)
class Given:
    """Curves that the caller has: one for each pair, or one for all. Their end points are replaced by the problem's.

    Args:
        curve: the curves.
    """

    curve: DiscreteCurve

    def candidates(self, space: Space, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """The curves, run through at uniform speed; cost: two points for each segment.

        Raises:
            ShapeError: they are not one for each pair, or of another dimension.
        """
        nodes = self.curve.nodes.detach().to(z0)
        if nodes.shape[0] not in (1, len(z0)) or nodes.shape[2] != z0.shape[1]:
            raise ShapeError(
                f"Given: the curves have nodes {tuple(nodes.shape)}, expected ({len(z0)}, n, {z0.shape[1]}): one curve "
                "for each pair."
            )
        inner = DiscreteCurve(nodes).resample(2 * segments).nodes[:, 1:-1].expand(len(z0), -1, -1)
        curve = DiscreteCurve(torch.cat([z0.unsqueeze(1), inner, z1.unsqueeze(1)], 1))
        return Candidates.one_each(uniform_speed(space, curve, segments))


def uniform_speed(space: Space, curve: DiscreteCurve, segments: int) -> DiscreteCurve:
    """The curves with their nodes moved along to equal distances, as the manifold measures chords."""
    return curve.at_equal_arcs(space.chord_lengths(curve.nodes.unsqueeze(2)).flatten(1), segments)
