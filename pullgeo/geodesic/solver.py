"""What a solver is: a value that finds discrete geodesics between pairs of points of a space."""

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.geodesic.energy.base import DiscreteEnergy, ManifoldEnergy
from pullgeo.geodesic.solution import Status
from pullgeo.numerics.batch import Batch


@dataclass(frozen=True, eq=False)
class SearchResult(Batch):
    """Discrete curves, as a solver leaves them.

    Attributes:
        nodes: the curves.
        energy: their discrete energies.
        residual: scale-free norms of the energy's gradient.
        rounding: the residuals that rounding errors alone can cause.
        speed_ratio: largest over median length of a curve's segments.
        iterations: steps taken or tried.
        status: how the search ended.
        order: the energy's error is O(T^-order).
        excess: by how much the energies may lie above their minima; 0 where the residual says that they do not.
        minima: how many distinct curves the candidates ended at, of those that were followed to the end.
        coarse_energy: energies of the curves seen with every second node; NaN where it was not computed.
    """

    nodes: Float[Tensor, "p n d"]
    energy: Float[Tensor, " p"]
    residual: Float[Tensor, " p"]
    rounding: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]
    iterations: Int[Tensor, " p"]
    status: tuple[Status, ...]
    order: int
    excess: Float[Tensor, " p"] = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    minima: Int[Tensor, " p"] = field(default_factory=lambda: torch.ones((), dtype=torch.long))
    coarse_energy: Float[Tensor, " p"] = field(default_factory=lambda: torch.full((), torch.nan, dtype=torch.float64))

    def __post_init__(self) -> None:
        for name in ("excess", "minima", "coarse_energy"):
            value = getattr(self, name)
            if value.ndim == 0:
                object.__setattr__(self, name, value.to(self.energy.device).expand(len(self.energy)))

    @property
    def converged(self) -> Bool[Tensor, " p"]:
        """Which curves are discrete geodesics."""
        return torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.energy.device)

    def ended(self, status: Status, *of: Status) -> Bool[Tensor, " p"]:
        """Which searches ended in one of some ways."""
        return torch.tensor([s in (status, *of) for s in self.status], dtype=torch.bool, device=self.energy.device)

    def ending(self, which: Bool[Tensor, " p"], status: Status) -> "SearchResult":
        """The same where some curves ended with a given status."""
        changed = (status if new else old for new, old in zip(which.tolist(), self.status, strict=True))
        return replace(self, status=tuple(changed))

    def solved(
        self, residual: Float[Tensor, " p"], good: Bool[Tensor, " p"], singular: Bool[Tensor, " p"], otherwise: Status
    ) -> "SearchResult":
        """The same for a solver of the geodesic equation: its residual, and its verdict.

        Args:
            residual: that of its equation.
            good: which pairs it has solved.
            singular: for which pairs the equation does not exist.
            otherwise: what is to be said of pairs that it has not solved.
        """
        status = statuses(
            otherwise,
            (Status.SINGULAR, singular),
            (Status.NON_FINITE, self.ended(Status.NON_FINITE)),
            (Status.CONVERGED, good),
        )
        return replace(self, residual=residual, status=status, excess=torch.where(good, 0.0, self.excess))


def statuses(otherwise: Status, *rules: tuple[Status, Bool[Tensor, " p"]]) -> tuple[Status, ...]:
    """The status of each curve: that of the last rule which holds for it."""
    choices = (otherwise, *(status for status, _ in rules))
    number = torch.zeros_like(rules[0][1], dtype=torch.long)
    for i, (_, holds) in enumerate(rules, 1):
        number = torch.where(holds, i, number)
    return tuple(choices[i] for i in number.tolist())


@runtime_checkable
class Solver(Protocol):
    """Finds discrete geodesics."""

    def minimise(self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Tensor, z1: Tensor) -> SearchResult:
        """Curves of an even number of segments between end points ``(p, d)``.

        Args:
            space: the manifold in float64.
            single: the manifold for what need not be exact: in float32 behind float64, or the same as ``space``.
            z0: where the curves begin, in float64.
            z1: where they end.
        """


@runtime_checkable
class Discretising(Protocol):
    """A solver with a discrete energy of its own."""

    def discretised(self, space: DiscreteEnergy) -> ManifoldEnergy:
        """The space with the solver's energy instead of the manifold's."""


@runtime_checkable
class Refining(Protocol):
    """A solver that halves the segments of curves until their error estimates are small enough.

    Attributes:
        rtol: the error estimate, relative to the length, that is asked for; ``None`` if any will do.
        max_segments: bound on the number of segments.
    """

    rtol: float | None
    max_segments: int

    def refined(self, space: DiscreteEnergy, nodes: Tensor) -> SearchResult:
        """Curves of twice as many segments, to begin with those through the nodes ``(p, T + 1, d)``."""


def check_search(where: str, tol: float, segments: int, max_steps: int, starts: tuple[object, ...]) -> None:
    """Raise `OptionError` unless the options of an iteration over curves are in their ranges."""
    if not 0 < tol < 1:
        raise OptionError(f"{where}: tol must lie between 0 and 1, got {tol}.")
    if segments < 2 or segments % 2:
        raise OptionError(f"{where}: segments must be even and at least 2, got {segments}.")
    if max_steps < 1:
        raise OptionError(f"{where}: max_steps must be at least 1, got {max_steps}.")
    if not starts:
        raise OptionError(f"{where}: starts must name at least one way to begin, such as (StraightLine(),).")
