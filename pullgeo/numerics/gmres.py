"""Linear systems that are known by their products alone, for a batch of independent problems."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Tensor, Tensor], Tensor]
"""``v, index -> A v`` for the problems with these indices."""


def gmres(
    product: Product, right: Float[Tensor, "b n"], goal: Float[Tensor, " b"], rounds: int
) -> tuple[Float[Tensor, "b n"], Float[Tensor, " b"]]:
    """The x with ``A x = right``, by generalised minimal residuals without restarts.

    Each problem has its own Krylov space and leaves the batch when its relative residual is below its goal, so that it
    does not pay for the others.

    Args:
        product: of the matrices of some problems; what is not finite ends that problem alone.
        right: right-hand sides.
        goal: relative residuals that are small enough.
        rounds: bound on the number of products.

    Returns:
        The solutions and their relative residuals.

    Source: Saad, Schultz, *GMRES*, SIAM J. Sci. Stat. Comput. 1986.

    Example:
        >>> A = torch.tensor([[[2.0, 1.0], [0.0, 3.0]]])
        >>> x, _ = gmres(lambda v, i: (A[i] @ v[:, :, None])[:, :, 0], torch.tensor([[3.0, 3.0]]), torch.zeros(1), 2)
        >>> bool(torch.allclose(x, torch.ones(1, 2)))
        True
    """
    size = right.norm(dim=1)
    solution, relative = torch.zeros_like(right), (size > 0).to(right.dtype)
    going = (size > 0).nonzero().squeeze(1)
    basis = [(right / size.unsqueeze(1))[going]]
    # columns of the Hessenberg matrices, which grow by a row each
    columns: list[Tensor] = []
    for number in range(1, rounds + 1):
        if not len(going):
            break
        w = product(basis[-1], going)
        column = w.new_zeros(len(going), number)
        V = torch.stack(basis, 1)
        # once more, for what rounding leaves
        for _ in range(2):
            part = torch.einsum("bkn,bn->bk", V, w)
            w, column = w - torch.einsum("bkn,bk->bn", V, part), column + part
        last = w.norm(dim=1)
        columns.append(torch.cat([column, last.unsqueeze(1)], 1))
        weights, left = _least_squares(columns)
        bad = ~(torch.isfinite(weights).all(1) & torch.isfinite(last))
        ended = (left <= goal[going]) | bad | (last <= _EXHAUSTED * columns[-1].norm(dim=1)) | (number == rounds)
        good = (ended & ~bad).nonzero().squeeze(1)
        found = torch.einsum("bkn,bk->bn", V[good], weights[good]) * size[going[good]].unsqueeze(1)
        solution = solution.index_put((going[good],), found)
        relative = relative.index_put((going[good],), left[good])
        rest = (~ended).nonzero().squeeze(1)
        going = going[rest]
        basis = [v[rest] for v in [*basis, w / last.clamp(min=torch.finfo(w.dtype).tiny).unsqueeze(1)]]
        columns = [c[rest] for c in columns]
    return solution, relative


_EXHAUSTED = 1e-14
"""Relative size of what is new in a product, below which the Krylov space has been exhausted."""


def _least_squares(columns: list[Tensor]) -> tuple[Float[Tensor, "b m"], Float[Tensor, " b"]]:
    """The combination of the columns that is nearest to the first unit vector, and how near it comes."""
    m = len(columns)
    H = torch.stack([torch.nn.functional.pad(c, (0, m + 1 - c.shape[1])) for c in columns], 2)
    Q, R = torch.linalg.qr(H)
    weights = torch.linalg.solve_triangular(R, Q[:, :1].mT, upper=True)
    unit = torch.zeros_like(H[:, :, 0])
    unit[:, 0] = 1
    return weights.squeeze(2), (unit - (H @ weights).squeeze(2)).norm(dim=1)
