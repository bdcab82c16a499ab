"""Curves to begin the search with."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import ShapeError
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.comparison import ranked


@dataclass(frozen=True, eq=False)
class Candidates(Batch):
    """Curves among which the search for each pair's geodesic chooses.

    Attributes:
        nodes: c curves, at least one for each pair.
        pair: which pair each is for.
        length: how long they are, by their chords.
    """

    nodes: Float[Tensor, "c n d"]
    pair: Int[Tensor, " c"]
    length: Float[Tensor, " c"]

    @staticmethod
    def at_uniform_speed(
        space: DiscreteEnergy, curve: DiscreteCurve, segments: int, pair: Int[Tensor, " c"] | None = None
    ) -> "Candidates":
        """The curves with their nodes moved along to equal distances, as the manifold measures chords.

        Args:
            space: what measures.
            curve: the curves.
            segments: of the candidates.
            pair: which pair each curve is for; one for each pair if ``None``.
        """
        lengths = space.chord_lengths(curve.nodes.unsqueeze(2)).flatten(1)
        pair = torch.arange(len(curve), device=lengths.device) if pair is None else pair
        # candidates are compared, so that all are measured by about as many chords
        every = max(1, curve.segments // segments)
        coarse = lengths if every == 1 else space.chord_lengths(curve.nodes[:, ::every].unsqueeze(2)).flatten(1)
        # a curve that is not finite at one of the places in between is not finite
        length = torch.where(torch.isfinite(lengths.sum(1)), coarse.sum(1), torch.nan)
        return Candidates(curve.at_equal_arcs(lengths, segments).nodes, pair, length)

    def between(self, first: int, end: int) -> "Candidates":
        """The candidates of the pairs ``first, ..., end - 1``, which are counted from 0 then."""
        chosen = self[(self.pair >= first) & (self.pair < end)]
        return replace(chosen, pair=chosen.pair - first)

    def shortest(self, pairs: int) -> "Candidates":
        """One candidate for each pair: its shortest."""
        return self[self.least(self.length, pairs)]

    def least(self, energy: Float[Tensor, " c"], pairs: int) -> Int[Tensor, " p"]:
        """Which candidate of each pair has the least energy; one that is not finite only if there is no other."""
        order = ranked(energy).argsort(stable=True)
        order = order[self.pair[order].argsort(stable=True)]
        return order[torch.searchsorted(self.pair[order], torch.arange(pairs, device=order.device))]

    def without(self, pairs: int) -> Bool[Tensor, " p"]:
        """Which pairs have no candidate of finite length."""
        lost = torch.ones(pairs, dtype=torch.bool, device=self.pair.device)
        return lost.index_fill(0, self.pair[torch.isfinite(self.length)], False)

    def of_each(self, pairs: int) -> Int[Tensor, "p k"]:
        """The candidates of each pair, as many columns as the pair with the most has; -1 where there is no more."""
        order = self.pair.argsort(stable=True)
        owner = self.pair[order]
        first = torch.searchsorted(owner, torch.arange(pairs, device=owner.device))
        place = torch.arange(len(owner), device=owner.device) - first[owner]
        table = torch.full((pairs, int(place.max()) + 1 if len(place) else 0), -1, device=owner.device)
        table[owner, place] = order
        return table


@runtime_checkable
class Start(Protocol):
    """Proposes curves between end points; the search for a geodesic descends from there."""

    def candidates(self, space: DiscreteEnergy, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """Curves between end points ``(p, d)``, at least one for each pair."""


@dataclass(frozen=True, eq=False)
class StraightLine:
    """The straight line of the chart, run through at uniform speed as the manifold measures it."""

    def candidates(self, space: DiscreteEnergy, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """Straight lines; cost: two points for each segment."""
        return Candidates.at_uniform_speed(space, straight_line(z0, z1, 2 * segments), segments)


@dataclass(frozen=True, eq=False)
class InitialCurve:
    """Curves that the caller has: one for each pair, or one for all. Their end points are replaced by the problem's.

    Args:
        curve: the curves.
    """

    curve: DiscreteCurve

    def candidates(self, space: DiscreteEnergy, z0: Tensor, z1: Tensor, segments: int) -> Candidates:
        """The curves, run through at uniform speed; cost: two points for each segment.

        Raises:
            ShapeError: they are not one for each pair, or of another dimension.
        """
        nodes = self.curve.nodes.detach().to(z0)
        if nodes.shape[0] not in (1, len(z0)) or nodes.shape[2] != z0.shape[1]:
            raise ShapeError(
                f"InitialCurve: the curves have nodes {tuple(nodes.shape)}, expected ({len(z0)}, n, {z0.shape[1]}): "
                "one curve for each pair."
            )
        inner = DiscreteCurve(nodes).resample(2 * segments).nodes[:, 1:-1].expand(len(z0), -1, -1)
        curve = DiscreteCurve(torch.cat([z0.unsqueeze(1), inner, z1.unsqueeze(1)], 1))
        return Candidates.at_uniform_speed(space, curve, segments)
