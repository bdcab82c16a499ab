"""The search for shortest curves as a pipeline: stages that are values, each from one state of the search to the next.

`Newton` searches by ``Propose >> Descend >> LookCloser >> Polish >> Audit >> Retry``. A stage that proposes otherwise,
or descends on another device, takes the place of one of these: it is a frozen dataclass that takes a `Search` and
returns it with more known.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.chord_newton import polish
from pullgeo.geodesic.descent.newton import Descent, descend, reached
from pullgeo.geodesic.descent.newton_cg import descend_free
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.minima import count_minima
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult
from pullgeo.geodesic.solvers.proposals import propose
from pullgeo.geodesic.starts.base import Candidates, Start, StraightLine
from pullgeo.geodesic.starts.lattice import LatticeSearch
from pullgeo.numerics.chunking import Budget
from pullgeo.numerics.comparison import less

T = TypeVar("T")


@dataclass(frozen=True)
class SearchSettings:
    """What the search goes by.

    Attributes:
        near: residual at which a curve is so near to its minimiser that the Hessian need not be computed again: float32
            comes there before rounding errors of the gradient stall the descent.
        uneven: largest over median length of a curve's segments from which on its neighbourhood is searched again, with
            up to two latents and with more, where the first search has looked in few directions. Set by hand.
        long_race: steps that the candidates of the second search have at least to show what they are worth, likewise.
        single: relative difference of lengths that float32 is sure about: thousands of its rounding errors.
        same: relative difference of lengths that says nothing: rounding errors of float64, and some digits to spare.
    """

    near: float = 1e-4
    uneven: tuple[float, float] = (1.15, 1.04)
    long_race: tuple[int, int] = (2, 6)
    single: float = 1e-3
    same: float = 1e-10


SETTINGS = SearchSettings()


@dataclass(frozen=True, eq=False)
class Search:
    """The search for the geodesics of p pairs, as far as it has come.

    Attributes:
        energy: what is minimised, in float64.
        single: the same for what need not be exact.
        z0: where curves begin.
        z1: where they end.
        candidates: curves to begin with, for `Descend`.
        descent: one curve for each pair near its minimiser, with its quadratic model, for `Polish`.
        result: what is known of the curves.
        doubtful: which of them may not be the shortest, for `Retry`.
    """

    energy: DiscreteEnergy
    single: DiscreteEnergy
    z0: Float[Tensor, "p d"]
    z1: Float[Tensor, "p d"]
    candidates: Candidates | None = None
    descent: Descent | None = None
    result: SearchResult | None = None
    doubtful: Bool[Tensor, " p"] | None = None

    def __len__(self) -> int:
        return len(self.z0)

    def of(self, pairs: Tensor | slice) -> "Search":
        """A new search for some of the pairs."""
        return Search(self.energy, self.single, self.z0[pairs], self.z1[pairs])


class Stage(ABC):
    """A step of a search. ``first >> second`` is both, one after the other."""

    @abstractmethod
    def __call__(self, search: Search) -> Search:
        """The search after this step."""

    def __rshift__(self, after: "Stage") -> "Stage":
        return _Both(self, after)

    def result(self, search: Search) -> SearchResult:
        """What is known of the curves when this step has been taken.

        Raises:
            OptionError: the stages do not end with a result.
        """
        return self._needed(self(search).result, "a result", "Polish")

    def _needed(self, known: T | None, name: str, before: str) -> T:
        """What an earlier stage has found.

        Raises:
            OptionError: there was none.
        """
        if known is None:
            raise OptionError(
                f"{type(self).__name__}: expected a search with {name}, got one without. Put a stage such as {before} "
                "before this one."
            )
        return known


@dataclass(frozen=True)
class _Both(Stage):
    first: Stage
    after: Stage

    def __call__(self, search: Search) -> Search:
        return self.after(self.first(search))


@dataclass(frozen=True)
class InParts(Stage):
    """A stage for some pairs after the other, so that what it holds for them does not add up.

    Args:
        stage: what follows the candidates, and ends with a result.
        budget: how much is held at a time.
        each: what a pair takes of it.
    """

    stage: Stage
    budget: Budget
    each: int

    def __call__(self, search: Search) -> Search:
        """The result for all pairs."""
        candidates = self._needed(search.candidates, "candidates", "Propose")
        results = []
        # without pairs there is one part all the same
        for part in self.budget.slices(max(len(search), 1), self.each):
            begun = replace(search.of(part), candidates=candidates.between(part.start, part.stop))
            results.append(self.stage.result(begun))
        return replace(search, result=SearchResult.cat(results))


@dataclass(frozen=True)
class Propose(Stage):
    """Curves to begin with.

    Args:
        starts: who proposes them.
        segments: T, even.
    """

    starts: tuple[Start, ...]
    segments: int

    def __call__(self, search: Search) -> Search:
        """All candidates, and ways around for pairs that have no finite one."""
        return replace(search, candidates=propose(self.starts, search.single, search.z0, search.z1, self.segments))


@dataclass(frozen=True)
class Descend(Stage):
    """Damped Newton steps from the candidates, in single precision.

    Args:
        tol: the residual that is asked for in the end; this stage goes no further than `SearchSettings.near`.
        max_steps: bound on the steps from a candidate.
        race: steps after which the energies of a pair's candidates are compared; 0 if their lengths are at once,
            ``None`` if all are followed to the end, and the distinct minimisers counted.
    """

    tol: float
    max_steps: int
    race: int | None

    def __call__(self, search: Search) -> Search:
        """The candidate with the least energy of each pair, near its minimiser."""
        every = proposed = self._needed(search.candidates, "candidates", "Propose")
        single, pairs, goal = search.single, len(search), max(self.tol, SETTINGS.near)
        if self.race == 0:
            proposed = proposed.shortest(pairs)
        now = Descent.begin(single, proposed.nodes)
        if self.race == 0 and not bool(torch.isfinite(now.at.energy).all()):
            # its length was finite, but not all nodes are since they have moved along it
            proposed = every
            now = Descent.begin(single, proposed.nodes)
        if self.race is None or len(proposed.pair) > pairs:
            now = descend(single, now, goal, self.max_steps if self.race is None else min(self.race, self.max_steps))
        best = now[proposed.least(now.at.energy, pairs)]
        if self.race is None:
            ended = reached(now.at.residual, now.at.rounding, goal)
            best = replace(best, minima=count_minima(single, proposed, now.nodes, now.at.energy, ended, pairs))
        return replace(search, descent=descend(single, best, goal, self.max_steps))


@dataclass(frozen=True)
class LookCloser(Stage):
    """A closer search around the curves that run unevenly, whose sharp bends make many minima.

    Args:
        starts: who has proposed; those of them that are lattices look closer.
        segments: T, even.
        tol: as for `Descend`.
        max_steps: as for `Descend`.
        race: as for `Descend`; at least `SearchSettings.long_race`.
    """

    starts: tuple[Start, ...]
    segments: int
    tol: float
    max_steps: int
    race: int | None

    def __call__(self, search: Search) -> Search:
        """The better of the two curves of each pair."""
        begun, single = self._needed(search.descent, "a descent", "Descend"), search.single
        d = search.z0.shape[1]
        many = 0 if d <= 2 else 1
        closer = tuple(start.closer(d) for start in self.starts if isinstance(start, LatticeSearch))
        near = begun.at.residual <= max(self.tol, SETTINGS.near)
        uneven = (begun.at.speed_ratio > SETTINGS.uneven[many]) & near & (search.z0 != search.z1).any(1)
        again = uneven.nonzero().squeeze(1)
        if not closer or not len(again):
            return search
        race = None if self.race is None else max(self.race, SETTINGS.long_race[many])
        second = Propose(closer, self.segments) >> Descend(self.tol, self.max_steps, race)
        old, new = begun[again], self._needed(second(search.of(again)).descent, "a descent", "Descend")
        # a coarse curve may be short for hopping over what lies between its nodes
        better = less(new.at.energy, old.at.energy) & less(_doubled(single, new.nodes), _doubled(single, old.nodes))
        better = better & (new.at.residual <= max(self.tol, SETTINGS.near))
        new = replace(new.where(better, old), minima=new.minima.maximum(old.minima))
        return replace(search, descent=begun.put(again, new))


@dataclass(frozen=True)
class Polish(Stage):
    """Curves near their minimisers brought to the tolerance, in double precision.

    Args:
        tol: bound on the residual.
        max_steps: bound on the steps, those of the descent included.
    """

    tol: float
    max_steps: int

    def __call__(self, search: Search) -> Search:
        """The result, with full Newton steps where simplified ones do not go fast."""
        begun = self._needed(search.descent, "a descent", "Descend")
        found = polish(search.energy, search.single, begun, self.tol, self.max_steps)
        rest = (~(found.residual <= self.tol)).nonzero().squeeze(1)
        if len(rest):
            old = found[rest]
            start = replace(Descent.begin(search.energy, old.nodes), steps=old.iterations, minima=old.minima)
            found = found.put(rest, minimum(search.energy, start, self.tol, self.max_steps))
        return replace(search, result=found)


@dataclass(frozen=True)
class Audit(Stage):
    """Which curves are longer than the straight line, and which failed although others than the line were tried.

    Args:
        starts: who has proposed.
    """

    starts: tuple[Start, ...]

    def __call__(self, search: Search) -> Search:
        """The curves that are in doubt."""
        found = self._needed(search.result, "a result", "Polish")
        straight = straight_line(search.z0, search.z1, found.nodes.shape[1] - 1)
        length = found.energy.sqrt()
        # chords are shorter than what they span: a curve that is shorter than a few of them is shorter than the line
        chords = search.single.chord_lengths(straight.nodes[:, ::2].unsqueeze(2)).flatten(1).sum(1)
        close = (~(length <= (1 - SETTINGS.single) * chords)).nonzero().squeeze(1)
        longer = torch.zeros_like(found.converged)
        if len(close):
            longer[close] = less((1 + SETTINGS.same) * _length(search.energy, straight[close]), length[close])
        failed = ~found.converged & (not any(isinstance(start, StraightLine) for start in self.starts))
        return replace(search, doubtful=failed | longer)


@dataclass(frozen=True)
class Retry(Stage):
    """A second search, from the straight line, for the curves that are in doubt.

    Args:
        tol: bound on the residual.
        max_steps: bound on the steps.
    """

    tol: float
    max_steps: int

    def __call__(self, search: Search) -> Search:
        """The better of the two curves of each pair."""
        found = self._needed(search.result, "a result", "Polish")
        again = self._needed(search.doubtful, "an audit", "Audit").nonzero().squeeze(1)
        if not len(again):
            return search
        space, segments = search.energy, found.nodes.shape[1] - 1
        line = StraightLine().candidates(space, search.z0[again], search.z1[again], segments)
        old = found[again]
        other = replace(minimum(space, Descent.begin(space, line.nodes), self.tol, self.max_steps), minima=old.minima)
        # one that has converged is never given away for one that has not
        better = torch.where(other.converged == old.converged, less(other.energy, old.energy), other.converged)
        found = found.put(again[better], other[better])
        # what keeps a curve from converging there is what the line runs through
        blocked = torch.zeros_like(found.converged)
        blocked[again] = ~torch.isfinite(other.energy)
        return replace(search, result=found.ending(blocked & ~found.converged, Status.NON_FINITE))


@dataclass(frozen=True)
class DescendFree(Stage):
    """All stages after `Propose` without matrices, for many dimensions, where one descent costs much.

    Args:
        tol: bound on the residual.
        max_steps: bound on the steps from a candidate.
        race: ``None`` if all candidates are followed to the end; else the shortest alone is.
    """

    tol: float
    max_steps: int
    race: int | None

    def __call__(self, search: Search) -> Search:
        """The result."""
        proposed, pairs = self._needed(search.candidates, "candidates", "Propose"), len(search)
        if self.race is not None:
            nodes = proposed.shortest(pairs).nodes
            return replace(search, result=descend_free(search.energy, nodes, self.tol, self.max_steps))
        found = descend_free(search.energy, proposed.nodes, self.tol, self.max_steps)
        minima = count_minima(search.energy, proposed, found.nodes, found.energy, found.converged, pairs)
        best = found[proposed.least(found.energy, pairs)]
        return replace(search, result=replace(best, minima=minima))


def minimum(space: DiscreteEnergy, begin: Descent, tol: float, max_steps: int) -> SearchResult:
    """Where a descent with full Newton steps ends."""
    return descend(space, begin, tol, max_steps).result(tol)


def _doubled(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
    """Energies of curves with twice as many segments."""
    return space.energy(DiscreteCurve(nodes).resample(2 * (nodes.shape[1] - 1)).nodes)


def _length(space: DiscreteEnergy, curve: DiscreteCurve) -> Float[Tensor, " p"]:
    """Lengths as exact as energies: chords, extrapolated from those between every second node."""
    fine, coarse = (
        space.chord_lengths(nodes.unsqueeze(2)).flatten(1).sum(1) for nodes in (curve.nodes, curve.nodes[:, ::2])
    )
    return fine + (fine - coarse) / 3
