"""Linear systems whose blocks couple neighbours alone."""

import torch
from jaxtyping import Float
from torch import Tensor

DENSE = 128
"""Systems of so many unknowns are solved as one matrix: the loop over blocks takes longer, and its cost is calls."""


def solve_tridiagonal(
    lower: Float[Tensor, "b m d d"],
    diagonal: Float[Tensor, "b n d d"],
    upper: Float[Tensor, "b m d d"],
    right: Float[Tensor, "b n d"],
) -> Float[Tensor, "b n d"]:
    """The x with ``lower_i x_{i-1} + diagonal_i x_i + upper_i x_{i+1} = right_i``, with ``m = n - 1``.

    Blocks are eliminated in turn, with pivots inside each alone: no piece of a shortest curve has conjugate points, so
    every leading block system is regular. What is not finite stays with its pair.

    Cost: ``O(n d³)``; small systems are written out and take one factorisation.

    Example:
        >>> one = torch.ones(1, 2, 1, 1)
        >>> solve_tridiagonal(one[:, 1:], 2 * one, one[:, 1:], torch.tensor([[[3.0], [3.0]]])).flatten()
        tensor([1., 1.])
    """
    n = diagonal.shape[1]
    if right.shape[1] * right.shape[2] <= DENSE:
        return _dense(lower, diagonal, upper, right)
    ahead: list[Tensor] = []
    values: list[Tensor] = []
    for i in range(n):
        block, value = diagonal[:, i], right[:, i].unsqueeze(2)
        if i:
            block = block - lower[:, i - 1] @ ahead[-1]
            value = value - lower[:, i - 1] @ values[-1]
        both = value if i == n - 1 else torch.cat([value, upper[:, i]], 2)
        solved: Tensor = torch.linalg.solve_ex(block, both)[0]
        values.append(solved[:, :, :1])
        ahead.append(solved[:, :, 1:])
    found = [values[-1]]
    for i in range(n - 2, -1, -1):
        found.append(values[i] - ahead[i] @ found[-1])
    return torch.stack(found[::-1], 1).squeeze(3)


def _dense(lower: Tensor, diagonal: Tensor, upper: Tensor, right: Tensor) -> Tensor:
    b, n, d = right.shape
    system = right.new_zeros(b, n, d, n, d)
    for offset, blocks in ((-1, lower), (0, diagonal), (1, upper)):
        system.diagonal(offset, 1, 3).copy_(blocks.permute(0, 2, 3, 1))
    solved: Tensor = torch.linalg.solve_ex(system.view(b, n * d, n * d), right.reshape(b, n * d))[0]
    return solved.view(b, n, d)
