"""Factorisation of many narrow systems at once, entry by entry."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SideBySide:
    """``H = L D Lᵀ`` of p symmetric band matrices, where every number is a vector over the systems.

    LAPACK takes one small system after the other, and its calls cost more than its arithmetic. Here the loop goes over
    the rows, and each step does the same for all systems: O(n) operations on vectors of length p, O(n w²) numbers
    each. The pivots D are all positive exactly if the matrix is positive definite, and then no pivoting is needed. A
    system that is not leaves the others alone.

    Attributes:
        lower: ``L_{j+1+r, j}`` for r = 0, ..., w - 1; the first w entries of j are padding.
        pivots: D.
        good: which systems are positive definite.

    Source: Golub, Van Loan, *Matrix Computations*, section 4.3.6 (band LDLᵀ).
    """

    lower: Float[Tensor, "_ w p"]
    pivots: Float[Tensor, "n p"]
    good: Bool[Tensor, " p"]

    @staticmethod
    def of(bands: tuple[Float[Tensor, "p _ d d"], ...]) -> "SideBySide":
        """Factors, from the blocks ``H_{i,i+k}``, ``(p, m - k, d, d)``, for k = 0, 1, ..."""
        p, m, d, _ = bands[0].shape
        n, w = m * d, len(bands) * d - 1
        row = 2 * w + 1
        # entry (i, j) stands at j - i + w in row i, so that squares along the diagonal are strided views of it
        flat = bands[0].new_zeros((n + w) * row * p)
        for k, band in enumerate(bands[:m]):
            blocks = flat.as_strided((m - k, d, d, p), (row * d * p, 2 * w * p, p, 1), (k * d + w) * p)
            blocks.copy_(band.permute(1, 2, 3, 0))
        rows = flat.view(n + w, row, p)
        lower = flat.new_zeros(w + n, w, p)
        squares = flat.as_strided((n, w, w, p), (row * p, 2 * w * p, p, 1), (row + w) * p)
        steps = zip(*(part.unbind() for part in (rows[:n, w], rows[:n, w + 1 :], lower[w:], squares)), strict=True)
        for pivot, right, column, square in steps:
            torch.div(right, pivot, out=column)
            square.addcmul_(column.unsqueeze(1), right, value=-1)
        pivots = rows[:n, w].clone()
        return SideBySide(lower, pivots, (pivots > 0).all(0))

    def solve(self, v: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
        """``H⁻¹ v``."""
        w, p = self.lower.shape[1:]
        n = len(self.pivots)
        padded = v.new_zeros(n + 2 * w, p)
        x = padded[w : w + n]
        x.copy_(v.flatten(1).T)
        below = padded.as_strided((n, w, p), (p, p, 1), (w + 1) * p)
        for known, column, after in zip(x.unbind(), self.lower[w:].unbind(), below.unbind(), strict=True):
            after.addcmul_(column, known, value=-1)
        x.div_(self.pivots)
        padded[w + n :] = 0
        # the entries of L to the left of the diagonal stand on strided lines of what holds its columns
        left = self.lower.as_strided((n, w, p), (w * p, (w - 1) * p, 1), (w - 1) * p)
        above = padded.as_strided((n, w, p), (p, p, 1))
        steps = list(zip(x.unbind(), left.unbind(), above.unbind(), strict=True))
        for known, line, before in reversed(steps):
            before.addcmul_(line, known, value=-1)
        return x.T.reshape(v.shape)
