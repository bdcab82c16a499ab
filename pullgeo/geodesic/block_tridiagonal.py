"""Symmetric block-tridiagonal systems, many at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DENSE_LIMIT = 320
"""Up to this order one dense Cholesky factorisation per system beats a Python loop over its blocks."""


@dataclass(frozen=True, eq=False)
class BlockTridiagonal:
    """``H`` with diagonal blocks ``(p, m, d, d)`` and blocks ``H_{i,i+1}`` ``(p, m - 1, d, d)`` to their right."""

    diagonal: Float[Tensor, "p m d d"]
    off_diagonal: Float[Tensor, "p l d d"]

    def matvec(self, v: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
        """``H v``."""
        product = (self.diagonal @ v.unsqueeze(-1)).squeeze(-1)
        right = (self.off_diagonal @ v[:, 1:].unsqueeze(-1)).squeeze(-1)
        left = (self.off_diagonal.mT @ v[:, :-1].unsqueeze(-1)).squeeze(-1)
        pad = torch.zeros_like(v[:, :1])
        return product + torch.cat([right, pad], 1) + torch.cat([pad, left], 1)

    def cholesky_solve(self, v: Float[Tensor, "p m d"]) -> tuple[Float[Tensor, "p m d"], Bool[Tensor, " p"]]:
        """``H⁻¹ v`` and whether each ``H`` is positive definite; where it is not, the solution means nothing.

        Cost: O(m d³) each by block elimination, or one dense factorisation for small systems.
        """
        _, m, d, _ = self.diagonal.shape
        return self._dense(v) if m * d <= DENSE_LIMIT else self._eliminate(v)

    def _dense(self, v: Tensor) -> tuple[Tensor, Tensor]:
        p, m, d, _ = self.diagonal.shape
        H = v.new_zeros(p, m, d, m, d)
        i = torch.arange(m, device=v.device)
        H[:, i, :, i, :] = self.diagonal.transpose(0, 1)
        H[:, i[1:], :, i[:-1], :] = self.off_diagonal.mT.transpose(0, 1)  # the lower half is what Cholesky reads
        factor, info = torch.linalg.cholesky_ex(H.reshape(p, m * d, m * d))
        return torch.cholesky_solve(v.reshape(p, m * d, 1), factor).reshape(p, m, d), info == 0

    def _eliminate(self, v: Tensor) -> tuple[Tensor, Tensor]:
        m = self.diagonal.shape[1]
        good = torch.ones(len(v), dtype=torch.bool, device=v.device)
        factors, rights, sides = [], [], []
        block, side = self.diagonal[:, 0], v[:, 0]
        for i in range(m):
            factor, info = torch.linalg.cholesky_ex(block)
            good = good & (info == 0)
            factors.append(factor)
            sides.append(side)
            if i + 1 < m:
                right = torch.cholesky_solve(self.off_diagonal[:, i], factor)
                rights.append(right)
                block = self.diagonal[:, i + 1] - self.off_diagonal[:, i].mT @ right
                side = v[:, i + 1] - (right.mT @ side.unsqueeze(-1)).squeeze(-1)
        x = [torch.cholesky_solve(sides[-1].unsqueeze(-1), factors[-1]).squeeze(-1)]
        for i in reversed(range(m - 1)):
            own = torch.cholesky_solve(sides[i].unsqueeze(-1), factors[i]).squeeze(-1)
            x.append(own - (rights[i] @ x[-1].unsqueeze(-1)).squeeze(-1))
        return torch.stack(x[::-1], 1), good
