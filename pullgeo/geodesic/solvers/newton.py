"""Newton's method on all inner nodes of a discrete curve at once: the default solver."""

import warnings
from dataclasses import InitVar, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.chord_newton import polish
from pullgeo.geodesic.descent.newton import Descent, descend, reached
from pullgeo.geodesic.descent.newton_cg import LARGE, descend_free
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.minima import count_minima
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose, propose_shortest
from pullgeo.geodesic.starts.base import Candidates, Start, StraightLine
from pullgeo.geodesic.starts.lattice import LatticeSearch
from pullgeo.geodesic.starts.waves import Waves
from pullgeo.numerics.chunking import HESSIANS
from pullgeo.numerics.comparison import less

SINGLE = 1e-3
"""Relative difference of energies that float32 is sure about."""

SAME = 1e-10
"""Relative difference of energies that says nothing."""

UNEVEN = {2: 1.15, 3: 1.04}
"""Largest over median length of a curve's segments from which on its neighbourhood is searched again, with up to two
latents and with more: there the first search has looked in few directions."""

LONG_RACE = {2: 2, 3: 6}
"""Steps that the candidates of the second search have at least to show what they are worth, likewise."""

THOROUGH = (LatticeSearch(directions=4, paths=6, slack=0.4, width=0.6), Waves())
"""Starts of a thorough search, besides the solver's own."""

EFFORTS = ("quick", "thorough")

NEAR = 1e-4
"""Residual at which a curve is so near to its minimiser that the Hessian need not be computed again."""


UNSET: Any = object()


@dataclass(frozen=True)
class Race:
    """Follow all candidates for some steps, and then the one whose energy is least.

    Args:
        steps: how many.

    Raises:
        OptionError: there are none.
    """

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"Race: steps must be 1 or more, got {self.steps}.")


@dataclass(frozen=True, eq=False)
class Newton:
    """Newton's method with Levenberg-Marquardt damping on the exact banded Hessian of the discrete energy.

    From the shortest curve that the starts propose, damped Newton steps descend, in float32 where the manifold offers
    that. From a residual of 1e-4 on, simplified Newton steps in float64, with gradients alone, bring the residual below
    the tolerance; a curve with which that does not go fast takes full Newton steps in float64 instead.

    Every pair has its own damping, step count and status, and leaves the batch when it is done. A step is taken only
    if it lowers the energy (or, at the rounding level of the energy, the residual). A pair that did not converge, or
    ended longer than the straight line, is tried again from there. So the energy of a curve's nodes is never above the
    line's; a curve that is longer than the line between its nodes is solved again with more segments, or is COARSE. One
    that runs unevenly, the sign of sharp bends between which there are many ways, is searched for more closely if a
    `LatticeSearch` is among the starts. (In many dimensions, where one search costs much, there is no second one.)

    A minimiser is local: the search across the line finds the shortest curve more often than descent from the line
    does, and nothing guarantees it.

    From 150 dimensions on the Hessian is not written out; see `newton_cg.descend_free`.

    Args:
        tol: bound on the residual ``‖gradient‖ / (max_i ‖J_i‖ ‖Δ‖)``, which no rescaling changes.
        segments: T, even: the number of segments of the curves that are returned.
        max_steps: bound on the steps from a start.
        starts: what proposes curves to begin with. `LatticeSearch()` looks to both sides of the line;
            ``(StraightLine(),)`` begins at the line only, ``(InitialCurve(curve),)`` at a curve of yours.
        candidates: which of a pair's proposals are followed. ``"shortest"``: the one that is shortest at once.
            ``Race(steps)``: all for so many steps, and then the one with the least energy. ``"all"``: all to the end,
            of which the shortest is taken and `Solution.minima` counts the distinct ones.
        search: ``"thorough"`` follows the candidates of wider corridors in up to four directions, and of random curves
            (`Waves`), to the end, whatever ``candidates`` says; `Solution.minima` counts the distinct ones.
            :doc:`/solvers` says what that finds.
        rtol: error estimate, relative to the length, that is asked for: pairs above it are solved again with twice the
            segments until they are below, or else said not to have converged. The default is there for curves that
            hop over what lies between their nodes; those above 0.02 have twice the segments once. ``None``: all curves
            have ``segments`` segments.
        max_segments: bound on the segments that ``rtol`` may lead to; ``segments`` if that is more.
        race: the former name of ``candidates``, with 0 for ``"shortest"`` and ``None`` for ``"all"``; deprecated.

    Raises:
        OptionError: a field is out of its range.

    Example:
        >>> import torch
        >>> from pullgeo import Newton, PullbackManifold
        >>> from pullgeo.geodesic import StraightLine
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> solver = Newton(segments=16, starts=(StraightLine(),))
        >>> PullbackManifold(decoder).geodesic(torch.zeros(3, 2), torch.ones(3, 2), solver).curve.segments
        16
    """

    tol: float = 1e-8
    segments: int = 32
    max_steps: int = 200
    starts: tuple[Start, ...] = (LatticeSearch(),)
    candidates: Literal["shortest", "all"] | Race = "shortest"
    rtol: float | None = 0.1
    max_segments: int = 256
    search: str = "quick"
    race: InitVar[Any] = UNSET

    def __post_init__(self, race: Any) -> None:
        check_search("Newton", self.tol, self.segments, self.max_steps, self.starts)
        if race is not UNSET:
            warnings.warn(
                "Newton: race is now called candidates: 'shortest' for 0, 'all' for None, else Race(steps).",
                DeprecationWarning,
                stacklevel=3,
            )
            new = "all" if race is None else Race(race) if race else "shortest"
            object.__setattr__(self, "candidates", new)
        if self.candidates not in ("shortest", "all") and not isinstance(self.candidates, Race):
            raise OptionError(
                f"Newton: candidates must be 'shortest', 'all' or a Race, such as Race(3), got {self.candidates!r}."
            )
        if self.rtol is not None and self.rtol <= 0:
            raise OptionError(f"Newton: rtol must be positive, or None, got {self.rtol}.")
        if self.search not in EFFORTS:
            raise OptionError(f"Newton: search must be one of {', '.join(map(repr, EFFORTS))}, got {self.search!r}.")
        if self.max_segments < self.segments:
            object.__setattr__(self, "max_segments", self.segments)

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """Discrete geodesics with T segments.

        Raises:
            ShapeError: given starts do not fit the pairs.
        """
        starts = (*self.starts, *THOROUGH) if self.search == "thorough" else self.starts
        proposed = propose(starts, single, z0, z1, self.segments)
        p, d = z0.shape
        if d >= LARGE:
            return self._free(space, proposed, p)
        parts = []
        # without pairs there is one part all the same
        for part in HESSIANS.slices(max(p, 1), 80 * self.segments * d * d):
            begin, end = z0[part], z1[part]
            best = self._best(single, proposed.between(part.start, part.stop), len(begin), self._race)
            best = self._searched_again(single, best, begin, end)
            found = self._polished(space, single, best)
            parts.append(self._retried(space, single, found, begin, end))
        return SearchResult.cat(parts)

    @property
    def _race(self) -> int | None:
        """Steps after which energies are compared; 0 if lengths are at once, ``None`` if it is done at the end."""
        if self.search == "thorough" or self.candidates == "all":
            return None
        return self.candidates.steps if isinstance(self.candidates, Race) else 0

    def refined(self, space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> SearchResult:
        """Discrete geodesics of twice as many segments, from those through the nodes."""
        finer = DiscreteCurve(nodes).resample(2 * (nodes.shape[1] - 1)).nodes
        # a curve may have hopped over a place where nothing is finite
        lost = ~torch.isfinite(space.energy(finer))
        if bool(lost.any()):
            chosen = lost.nonzero().squeeze(1)
            around = propose_shortest(self.starts, space, finer[chosen, 0], finer[chosen, -1], finer.shape[1] - 1)
            finer = finer.index_put((chosen,), around)
        if nodes.shape[2] >= LARGE:
            return descend_free(space, finer, self.tol, self.max_steps)
        return self._minimum(space, Descent.begin(space, finer))

    def _minimum(self, space: DiscreteEnergy, begin: Descent) -> SearchResult:
        """Where a descent with full Newton steps ends."""
        return descend(space, begin, self.tol, self.max_steps).result(self.tol)

    def _best(self, single: DiscreteEnergy, proposed: Candidates, pairs: int, race: int | None) -> Descent:
        """The candidate with the least energy of each pair, near its minimiser, and how many minimisers were seen."""
        goal = max(self.tol, NEAR)
        every = proposed
        if race == 0:
            proposed = proposed.shortest(pairs)
        now = Descent.begin(single, proposed.nodes)
        if race == 0 and not bool(torch.isfinite(now.at.energy).all()):
            # its length was finite, but not all nodes are since they have moved along it
            proposed = every
            now = Descent.begin(single, proposed.nodes)
        if race is None or len(proposed.pair) > pairs:
            now = descend(single, now, goal, self.max_steps if race is None else min(race, self.max_steps))
        best = now[proposed.least(now.at.energy, pairs)]
        if race is None:
            ended = reached(now.at.residual, now.at.rounding, goal)
            best = replace(best, minima=count_minima(single, proposed, now.nodes, now.at.energy, ended, pairs))
        return descend(single, best, goal, self.max_steps)

    def _searched_again(self, single: DiscreteEnergy, begun: Descent, z0: Tensor, z1: Tensor) -> Descent:
        """A closer search around the curves that run unevenly, whose sharp bends make many minima."""
        d = z0.shape[1]
        many = 2 if d <= 2 else 3
        closer = tuple(start.closer(d) for start in self.starts if isinstance(start, LatticeSearch))
        goal = max(self.tol, NEAR)
        uneven = (begun.at.speed_ratio > UNEVEN[many]) & (begun.at.residual <= goal) & (z0 != z1).any(1)
        again = uneven.nonzero().squeeze(1)
        if not closer or not len(again):
            return begun
        old = begun[again]
        proposed = propose(closer, single, z0[again], z1[again], self.segments)
        race = None if self._race is None else max(self._race, LONG_RACE[many])
        new = self._best(single, proposed, len(again), race)
        # a coarse curve may be short for hopping over what lies between its nodes
        better = less(new.at.energy, old.at.energy) & less(_doubled(single, new.nodes), _doubled(single, old.nodes))
        better = better & (new.at.residual <= goal)
        return begun.put(again, replace(new.where(better, old), minima=new.minima.maximum(old.minima)))

    def _free(self, space: DiscreteEnergy, proposed: Candidates, pairs: int) -> SearchResult:
        """The same without matrices: few curves are held at a time, and no candidate is worth many steps."""
        if self._race is not None:
            return descend_free(space, proposed.shortest(pairs).nodes, self.tol, self.max_steps)
        found = descend_free(space, proposed.nodes, self.tol, self.max_steps)
        minima = count_minima(space, proposed, found.nodes, found.energy, found.converged, pairs)
        return replace(found[proposed.least(found.energy, pairs)], minima=minima)

    def _polished(self, space: DiscreteEnergy, single: DiscreteEnergy, begun: Descent) -> SearchResult:
        """Curves near their minimisers brought to the tolerance."""
        found = polish(space, single, begun, self.tol, self.max_steps)
        rest = (~(found.residual <= self.tol)).nonzero().squeeze(1)
        if not len(rest):
            return found
        old = found[rest]
        start = replace(Descent.begin(space, old.nodes), steps=old.iterations, minima=old.minima)
        return found.put(rest, self._minimum(space, start))

    def _retried(
        self, space: DiscreteEnergy, single: DiscreteEnergy, found: SearchResult, z0: Tensor, z1: Tensor
    ) -> SearchResult:
        """A second search, from the straight line, where the first one failed or ended longer than it."""
        straight = straight_line(z0, z1, self.segments)
        length = found.energy.sqrt()
        # chords are shorter than what they span: a curve that is shorter than a few of them is shorter than the line
        chords = single.chord_lengths(straight.nodes[:, ::2].unsqueeze(2)).flatten(1).sum(1)
        close = (~(length <= (1 - SINGLE) * chords)).nonzero().squeeze(1)
        longer = torch.zeros_like(found.converged)
        if len(close):
            longer[close] = less((1 + SAME) * _length(space, straight[close]), length[close])
        failed = ~found.converged & (not any(isinstance(start, StraightLine) for start in self.starts))
        again = (failed | longer).nonzero().squeeze(1)
        if not len(again):
            return found
        line = StraightLine().candidates(space, z0[again], z1[again], self.segments)
        old = found[again]
        other = replace(self._minimum(space, Descent.begin(space, line.nodes)), minima=old.minima)
        # one that has converged is never given away for one that has not
        better = torch.where(other.converged == old.converged, less(other.energy, old.energy), other.converged)
        found = found.put(again[better], other[better])
        # what keeps a curve from converging there is what the line runs through
        blocked = torch.zeros_like(found.converged)
        blocked[again] = ~torch.isfinite(other.energy)
        return found.ending(blocked & ~found.converged, Status.NON_FINITE)


def _doubled(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
    """Energies of curves with twice as many segments."""
    return space.energy(DiscreteCurve(nodes).resample(2 * (nodes.shape[1] - 1)).nodes)


def _length(space: DiscreteEnergy, curve: DiscreteCurve) -> Float[Tensor, " p"]:
    """Lengths as exact as energies: chords, extrapolated from those between every second node."""
    fine, coarse = (
        space.chord_lengths(nodes.unsqueeze(2)).flatten(1).sum(1) for nodes in (curve.nodes, curve.nodes[:, ::2])
    )
    return fine + (fine - coarse) / 3
