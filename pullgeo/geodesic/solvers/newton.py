"""Newton's method on all inner nodes of a discrete curve at once: the default solver."""

import warnings
from dataclasses import InitVar, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.newton import Descent
from pullgeo.geodesic.descent.newton_cg import LARGE, descend_free
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose_shortest
from pullgeo.geodesic.solvers.search import (
    Audit,
    Descend,
    DescendFree,
    InParts,
    LookCloser,
    Polish,
    Propose,
    Retry,
    Search,
    Stage,
    minimum,
)
from pullgeo.geodesic.starts.base import Start
from pullgeo.geodesic.starts.lattice import LatticeSearch
from pullgeo.geodesic.starts.waves import Waves
from pullgeo.numerics.chunking import HESSIANS

THOROUGH = (LatticeSearch(directions=4, paths=6, slack=0.4, width=0.6), Waves())
"""Starts of a thorough search, besides the solver's own."""

EFFORTS = ("quick", "thorough")

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

    From 150 dimensions on the Hessian is written out only for curves on which conjugate gradients take too many rounds;
    see `newton_cg.descend_free`.

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
        return self._search(z0.shape[1]).result(Search(space, single, z0, z1))

    def _search(self, d: int) -> Stage:
        """The stages of a search in d dimensions."""
        starts = (*self.starts, *THOROUGH) if self.search == "thorough" else self.starts
        segments, tol, steps, race = self.segments, self.tol, self.max_steps, self.race_steps
        if d >= LARGE:
            return Propose(starts, segments) >> DescendFree(tol, steps, race)
        follow = (
            Descend(tol, steps, race)
            >> LookCloser(self.starts, segments, tol, steps, race)
            >> Polish(tol, steps)
            >> Audit(self.starts)
            >> Retry(tol, steps)
        )
        return Propose(starts, segments) >> InParts(follow, HESSIANS, 80 * segments * d * d)

    @property
    def race_steps(self) -> int | None:
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
        return minimum(space, Descent.begin(space, finer), self.tol, self.max_steps)
