"""What a solver found, pair by pair."""

from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.curve import DiscreteCurve
from pullgeo.geodesic.status import Status


@dataclass(frozen=True, eq=False)
class Solution:
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
    """

    curve: DiscreteCurve
    length: Float[Tensor, " b"]
    energy: Float[Tensor, " b"]
    status: tuple[Status, ...]
    iterations: Int[Tensor, " b"]
    residual: Float[Tensor, " b"]
    error_estimate: Float[Tensor, " b"]
    speed_ratio: Float[Tensor, " b"]

    @property
    def converged(self) -> Bool[Tensor, " b"]:
        """Whether each pair's curve is a discrete geodesic to the tolerance asked for."""
        return torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.length.device)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.status)

    def __getitem__(self, index: int | slice) -> "Solution":
        """Some of the pairs; a single index keeps the batch dimension."""
        chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
        return Solution(
            curve=self.curve[chosen],
            length=self.length[chosen],
            energy=self.energy[chosen],
            status=self.status[chosen],
            iterations=self.iterations[chosen],
            residual=self.residual[chosen],
            error_estimate=self.error_estimate[chosen],
            speed_ratio=self.speed_ratio[chosen],
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {status.name}" for status, n in Counter(self.status).items())
        return f"Solution({len(self)} pairs: {counts or 'none'})"
