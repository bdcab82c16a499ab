"""What a search has found so far, pair by pair."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.descent import ROUNDING_MARGIN, Descent, reached
from pullgeo.geodesic.solver import Minimised
from pullgeo.geodesic.status import Status

_STATUSES = tuple(Status)


@dataclass(frozen=True, eq=False)
class Found:
    """A `Minimised` in the making: all tensors, the status as an index.

    Attributes:
        nodes: the curves.
        energy: their discrete energies.
        residual: scale-free norms of the energy's gradient.
        rounding: the residuals that rounding errors alone can cause.
        speed_ratio: largest over median length of a curve's segments.
        steps: steps taken or tried.
        code: how the search ended, counted in `Status`.
    """

    nodes: Float[Tensor, "p n d"]
    energy: Float[Tensor, " p"]
    residual: Float[Tensor, " p"]
    rounding: Float[Tensor, " p"]
    speed_ratio: Float[Tensor, " p"]
    steps: Int[Tensor, " p"]
    code: Int[Tensor, " p"]

    @staticmethod
    def after(descent: Descent, tol: float) -> "Found":
        """How a descent ended."""
        at = descent.at
        code = torch.full_like(descent.steps, _STATUSES.index(Status.MAX_STEPS))
        finite = torch.isfinite(at.energy) & torch.isfinite(at.residual)
        for status, which in (
            (Status.STALLED, descent.stalled),
            (Status.ROUNDING, reached(at.residual, at.rounding, tol)),
            (Status.CONVERGED, at.residual <= tol),
            (Status.DEGENERATE, ROUNDING_MARGIN * at.rounding >= 1),
            (Status.NON_FINITE, ~finite & ~(torch.isinf(at.residual) & torch.isfinite(at.energy))),
        ):
            code[which] = _STATUSES.index(status)
        return Found(descent.nodes, at.energy, at.residual, at.rounding, at.speed_ratio, descent.steps, code)

    @property
    def converged(self) -> Bool[Tensor, " p"]:
        """Which curves are discrete geodesics."""
        good = torch.tensor([status.converged for status in _STATUSES], device=self.code.device)
        return good[self.code]

    def replaced(self, index: Int[Tensor, " q"], other: "Found") -> "Found":
        """The same with the curves of another search at some places."""
        return Found(*(getattr(self, f.name).index_put((index,), getattr(other, f.name)) for f in fields(self)))

    def __getitem__(self, index: Tensor) -> "Found":
        """Some of the curves."""
        return Found(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def cat(parts: list["Found"]) -> "Found":
        """The curves of all parts, one after the other."""
        return Found(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Found)))

    def result(self, order: int) -> Minimised:
        """The same, as solvers return it."""
        status = tuple(_STATUSES[i] for i in self.code.tolist())
        tensors = (self.nodes, self.energy, self.residual, self.rounding, self.speed_ratio, self.steps)
        return Minimised(*tensors, status, order)


CONVERGED = _STATUSES.index(Status.CONVERGED)
"""The code of `Status.CONVERGED`."""
