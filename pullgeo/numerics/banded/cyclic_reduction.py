"""Elimination of every second block of a block-tridiagonal system, over and over."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Elimination:
    """Block Cholesky factors of p symmetric block-tridiagonal systems in odd-even order.

    The blocks with even index do not touch each other, so they are eliminated all at once; what remains couples the
    odd ones, is block-tridiagonal again and half as long. A long system thus takes log m rounds of batched work
    instead of m small steps. This is Cholesky's factorisation with another order of the unknowns: as stable, and the
    pivots are positive definite exactly if the matrix is.

    Attributes:
        lower: Cholesky factors of the even pivots.
        onward: ``L⁻¹ H_{2k,2k+1}``.
        backward: ``L⁻¹ H_{2k+2,2k+1}``.
        rest: the factors of the system that remains; ``None`` at the end.
        good: which systems are positive definite.

    Source: Golub, Van Loan, *Matrix Computations*, section 4.5.4 (cyclic reduction).
    """

    lower: Float[Tensor, "p e d d"]
    onward: Float[Tensor, "p o d d"]
    backward: Float[Tensor, "p r d d"]
    rest: "Elimination | None"
    good: Bool[Tensor, " p"]

    @staticmethod
    def of(diagonal: Float[Tensor, "p m d d"], right: Float[Tensor, "p l d d"]) -> "Elimination":
        """Factorise the system with blocks ``H_{i,i}`` and ``H_{i,i+1}``. Cost: O(m d³) in O(log m) rounds."""
        lower, info = torch.linalg.cholesky_ex(diagonal[:, ::2])
        good = (info == 0).all(1)
        odd = diagonal[:, 1::2]
        n = odd.shape[1]
        onward = torch.linalg.solve_triangular(lower[:, :n], right[:, ::2], upper=False)
        backward = torch.linalg.solve_triangular(lower[:, 1:], right[:, 1::2].mT, upper=False)
        if n == 0:
            return Elimination(lower, onward, backward, None, good)
        r = backward.shape[1]
        remaining = odd - onward.mT @ onward
        remaining = torch.cat([remaining[:, :r] - backward.mT @ backward, remaining[:, r:]], 1)
        rest = Elimination.of(remaining, -backward[:, : n - 1].mT @ onward[:, 1:])
        return Elimination(lower, onward, backward, rest, good & rest.good)

    def solve(self, v: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
        """``H⁻¹ v``."""
        even = torch.linalg.solve_triangular(self.lower, v[:, ::2].unsqueeze(-1), upper=False)
        if self.rest is None:
            return torch.linalg.solve_triangular(self.lower.mT, even, upper=True).squeeze(-1)
        n, r = self.onward.shape[1], self.backward.shape[1]
        odd = v[:, 1::2].unsqueeze(-1) - self.onward.mT @ even[:, :n]
        odd = torch.cat([odd[:, :r] - self.backward.mT @ even[:, 1:], odd[:, r:]], 1)
        inner = self.rest.solve(odd.squeeze(-1)).unsqueeze(-1)
        even = torch.cat([even[:, :n] - self.onward @ inner, even[:, n:]], 1)
        even = torch.cat([even[:, :1], even[:, 1:] - self.backward @ inner[:, :r]], 1)
        even = torch.linalg.solve_triangular(self.lower.mT, even, upper=True)
        result = torch.zeros_like(v)
        result[:, ::2], result[:, 1::2] = even.squeeze(-1), inner.squeeze(-1)
        return result
