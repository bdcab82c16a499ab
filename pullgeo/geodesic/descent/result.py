"""What a search has found so far, pair by pair."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.descent.newton import ROUNDING_MARGIN, Descent, reached
from pullgeo.geodesic.energy.base import QuadraticModel
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult
from pullgeo.numerics.batch import Batch

_STATUSES = tuple(Status)

CODES = {status: number for number, status in enumerate(_STATUSES)}
"""The number that stands for a status."""


EXACT = 1e-6
"""Residual below which nothing is left to be gained; what is follows its square."""


@dataclass(frozen=True, eq=False)
class Found(Batch):
    """A `SearchResult` in the making: all tensors, the status as an index.

    Attributes:
        nodes: the curves.
        energy: their discrete energies.
        residual: scale-free norms of the energy's gradient.
        rounding: the residuals that rounding errors alone can cause.
        speed_ratio: largest over median length of a curve's segments.
        steps: steps taken or tried.
        code: how the search ended, counted in `Status`.
        excess: by how much the energies may lie above their minima; 0 where the gradient says that they do not.
        minima: how many distinct curves the candidates ended at.
        coarse_energy: energies of the curves seen with every second node; NaN where it was not computed.
    """

    nodes: Float[Tensor, "p n d"]
    energy: Float[Tensor, " p"]
    residual: Float[Tensor, " p"]
    rounding: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]
    steps: Int[Tensor, " p"]
    code: Int[Tensor, " p"]
    excess: Float[Tensor, " p"] = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    minima: Int[Tensor, " p"] = field(default_factory=lambda: torch.ones((), dtype=torch.long))
    coarse_energy: Float[Tensor, " p"] = field(default_factory=lambda: torch.full((), torch.nan, dtype=torch.float64))

    def __post_init__(self) -> None:
        for name in ("excess", "minima", "coarse_energy"):
            value = getattr(self, name)
            if value.ndim == 0:
                object.__setattr__(self, name, value.to(self.energy.device).expand(len(self.energy)))

    @staticmethod
    def after(descent: Descent, tol: float) -> "Found":
        """How a descent ended."""
        at = descent.at
        code = torch.full_like(descent.steps, CODES[Status.MAX_STEPS])
        finite = torch.isfinite(at.energy) & torch.isfinite(at.residual)
        for status, which in (
            (Status.STALLED, descent.stalled),
            (Status.ROUNDING, reached(at.residual, at.rounding, tol)),
            (Status.CONVERGED, at.residual <= tol),
            (Status.DEGENERATE, ROUNDING_MARGIN * at.rounding >= 1),
            (Status.NON_FINITE, ~finite & ~(torch.isinf(at.residual) & torch.isfinite(at.energy))),
        ):
            code[which] = CODES[status]
        excess = torch.zeros_like(at.energy)
        loose = (~(at.residual <= EXACT) & finite).nonzero().squeeze(1)
        if len(loose):
            excess[loose] = _excess(at[loose], at.residual[loose] <= tol)
        return Found(descent.nodes, at.energy, at.residual, at.rounding, at.speed_ratio, descent.steps, code, excess)

    @property
    def converged(self) -> Bool[Tensor, " p"]:
        """Which curves are discrete geodesics."""
        good = torch.tensor([status.converged for status in _STATUSES], device=self.code.device)
        return good[self.code]

    def coded(self, code: Int[Tensor, " p"]) -> "Found":
        """The same with another end of the search."""
        return replace(self, code=code)

    def solved(
        self, residual: Float[Tensor, " p"], good: Bool[Tensor, " p"], singular: Bool[Tensor, " p"], otherwise: Status
    ) -> "Found":
        """The same for a solver of the geodesic equation: its residual, and its verdict.

        Args:
            residual: that of its equation.
            good: which pairs it has solved.
            singular: for which pairs the equation does not exist.
            otherwise: what is to be said of pairs that it has not solved.
        """
        code = torch.where(singular, CODES[Status.SINGULAR], CODES[otherwise])
        code = torch.where(self.code == CODES[Status.NON_FINITE], self.code, code)
        code = torch.where(good, CODES[Status.CONVERGED], code)
        return replace(self, residual=residual, code=code, excess=torch.where(good, 0.0, self.excess))

    def exceeding(self, excess: Float[Tensor, " p"]) -> "Found":
        """The same with another estimate of how far the energies lie above their minima."""
        return replace(self, excess=excess)

    def stepped(self, index: Int[Tensor, " q"]) -> "Found":
        """The same with one step more at some places."""
        return replace(self, steps=self.steps.index_put((index,), self.steps[index] + 1))

    def ended(self, which: Bool[Tensor, " p"], status: Status) -> "Found":
        """The same where some curves ended with a given status."""
        return self.coded(torch.where(which, CODES[status], self.code))

    def result(self, order: int) -> SearchResult:
        """The same, as solvers return it."""
        return SearchResult(
            nodes=self.nodes,
            energy=self.energy,
            residual=self.residual,
            rounding=self.rounding,
            speed_ratio=self.speed_ratio,
            iterations=self.steps,
            status=tuple(_STATUSES[i] for i in self.code.tolist()),
            order=order,
            excess=self.excess,
            minima=self.minima,
            coarse_energy=self.coarse_energy,
        )


def _excess(at: QuadraticModel, done: Tensor) -> Float[Tensor, " p"]:
    """Half the Newton decrement, ``½ gᵀ H⁻¹ g``: how far energies lie above the minima near them.

    Where H is not positive definite no minimum is in sight: infinite, unless the curve is done.
    """
    factor = at.hessian.cholesky()
    decrement = (at.gradient * factor.solve(at.gradient)).flatten(1).sum(1) / 2
    known = factor.good & torch.isfinite(decrement)
    return torch.where(known, decrement.clamp(min=0), torch.where(done, 0.0, torch.inf))
