"""What a solver found, pair by pair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo._repr import SHOWN, counted, html_table
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.geodesic.status import Status
from pullgeo.numerics.batch import Batch

S = TypeVar("S", bound="Solution")


@dataclass(frozen=True, eq=False)
class Solution(Batch):
    """Geodesics between b pairs of points.

    Args:
        curve: the curves; ``curve(t)`` evaluates them at times ``(m,)`` in [0, 1].
        length: extrapolated lengths, the geodesic distances where the search found the shortest curve.
        energy: discrete energies, about ``length²``.
        status: how the search ended, one `Status` for each pair; its text says what to do.
        iterations: steps taken.
        residual: scale-free norms of the energy's gradient.
        error_estimate: estimated discretisation errors of ``length``, in its unit.
        speed_ratio: largest over median length of a curve's chords; far from 1 tells of a curve that is too coarse.
        minima: how many distinct locally shortest curves the search saw, of those it followed to the end: more than 1
            only if all candidates are, as with ``Newton(search="thorough")``.
    """

    curve: DiscreteCurve
    length: Float[Tensor, " b"]
    energy: Float[Tensor, " b"]
    status: tuple[Status, ...]
    iterations: Int[Tensor, " b"]
    residual: Float[Tensor, " b"]
    error_estimate: Float[Tensor, " b"]
    speed_ratio: Float[Tensor, " b"]
    minima: Int[Tensor, " b"]

    @property
    def converged(self) -> Bool[Tensor, " b"]:
        """Whether each pair's curve is a discrete geodesic to the tolerance asked for."""
        return torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.length.device)

    @classmethod
    def cat(cls: type[S], parts: Sequence[S]) -> S:
        """The pairs of all parts, one after the other; all curves with as many nodes as the finest has."""
        finest = max(part.curve.segments for part in parts)
        curves = (part.curve if part.curve.segments == finest else part.curve.resample(finest) for part in parts)
        return super().cat([replace(part, curve=curve) for part, curve in zip(parts, curves, strict=True)])

    def __repr__(self) -> str:
        return f"Solution({len(self)} pairs: {counted(self.status)})"

    def _repr_html_(self) -> str:
        numbers = zip(
            self.length.tolist(), self.error_estimate.tolist(), self.iterations.tolist(), self.status, strict=True
        )
        rows = [
            (str(i), f"{length:.6g}", f"{error:.1e}", str(steps), status.name)
            for i, (length, error, steps, status) in enumerate(islice(numbers, SHOWN))
        ]
        return html_table(repr(self), ("pair", "length", "± error", "steps", "status"), rows, len(self))
