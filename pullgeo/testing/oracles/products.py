"""The six Jacobian products written out from a dense Jacobian, one sample after the other.

``J`` is ``(b, n_out, n)`` with n = n_in for inputs or n = P for weights. Loops and `@` only; a matrix is never
assumed symmetric.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.errors import ModuleError

Blocks = list[Any]
"""Block-diagonal over the weights: one ``(b, P_l, P_l)`` tensor a layer, nested as the containers are."""

Layout = list[Any]
"""Where each block of `Blocks` sits: the indices of its parameters in the flat weight vector, nested alike."""


def jvp(J: Float[Tensor, "b n_out n"], vector: Float[Tensor, "b ..."]) -> Float[Tensor, "b n_out"]:
    """J v for ``vector`` ``(b, n)`` or in the value's own shape; returns ``(b, n_out)``."""
    return torch.stack([j @ v.flatten() for j, v in zip(J, vector, strict=True)])


def vjp(J: Float[Tensor, "b n_out n"], vector: Float[Tensor, "b ..."]) -> Float[Tensor, "b n"]:
    """Jᵀ w for ``vector`` ``(b, n_out)`` or in the value's own shape; returns ``(b, n)``."""
    return torch.stack([j.T @ w.flatten() for j, w in zip(J, vector, strict=True)])


def jmp(J: Float[Tensor, "b n_out n"], matrix: Float[Tensor, "b n k"] | None) -> Float[Tensor, "b n_out k"]:
    """J M; None is the identity."""
    return J.clone() if matrix is None else torch.stack([j @ m for j, m in zip(J, matrix, strict=True)])


def mjp(J: Float[Tensor, "b n_out n"], matrix: Float[Tensor, "b k n_out"] | None) -> Float[Tensor, "b k n"]:
    """M J; None is the identity."""
    return J.clone() if matrix is None else torch.stack([m @ j for j, m in zip(J, matrix, strict=True)])


def jmjTp(
    J: Float[Tensor, "b n_out n"],
    matrix: Float[Tensor, "b ..."] | Blocks | None,
    from_diag: bool = False,
    to_diag: bool = False,
    layout: Layout | None = None,
) -> Float[Tensor, "b n_out ..."]:
    """J M Jᵀ.

    Args:
        J: ``(b, n_out, n)``.
        matrix: ``(b, n, n)``; ``(b, n)`` if ``from_diag``; None for the identity; or nested blocks for ``layout``.
        from_diag: the matrix is given by its diagonal.
        to_diag: return the diagonal only.
        layout: positions of nested blocks, see `weight_layout`.

    Returns:
        ``(b, n_out, n_out)``, or ``(b, n_out)`` if ``to_diag``.
    """
    if isinstance(matrix, list):
        matrix = full_from_blocks(matrix, layout if layout is not None else [], J.shape[2])
    full = _full(matrix, from_diag, J.shape[0], J.shape[2], J)
    product = torch.stack([j @ m @ j.T for j, m in zip(J, full, strict=True)])
    return _diagonals(product) if to_diag else product


def jTmjp(
    J: Float[Tensor, "b n_out n"],
    matrix: Float[Tensor, "b ..."] | None,
    from_diag: bool = False,
    to_diag: bool = False,
) -> Float[Tensor, "b n ..."]:
    """Jᵀ M J, whole: for weights that is the answer to ``full=True``; `blocks_of` cuts the block diagonal out of it.

    Args:
        J: ``(b, n_out, n)``.
        matrix: ``(b, n_out, n_out)``; ``(b, n_out)`` if ``from_diag``; None for the identity.
        from_diag: the matrix is given by its diagonal.
        to_diag: return the diagonal only.

    Returns:
        ``(b, n, n)``, or ``(b, n)`` if ``to_diag``.
    """
    full = _full(matrix, from_diag, J.shape[0], J.shape[1], J)
    product = torch.stack([j.T @ m @ j for j, m in zip(J, full, strict=True)])
    return _diagonals(product) if to_diag else product


def _full(matrix: Tensor | None, from_diag: bool, b: int, n: int, like: Tensor) -> Tensor:
    if matrix is None:
        return torch.eye(n, dtype=like.dtype).expand(b, n, n)
    matrix = matrix.to(like.dtype)
    return torch.stack([torch.diag(m) for m in matrix]) if from_diag else matrix


def _diagonals(matrices: Tensor) -> Tensor:
    return torch.stack([torch.diag(m) for m in matrices])


def weight_layout(module: nn.Module) -> Tensor | Layout:
    """Positions of each layer's parameters in the flat weight vector, nested as the containers are.

    A module with parameters of its own, or without children, is one entry; a container is the list of the entries of
    its children that have parameters. Skip connections and residual blocks are laid out as the chain in them.

    Args:
        module: the network.

    Returns:
        An index tensor ``(P_l,)``, or a nested list of them.

    Raises:
        ModuleError: ``module`` has no parameters.

    Example:
        >>> weight_layout(torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Tanh(), torch.nn.Linear(1, 1)))
        [tensor([0, 1]), tensor([2, 3])]
    """
    start, ranges = 0, {}
    for parameter in module.parameters():
        ranges[parameter] = torch.arange(start, start + parameter.numel())
        start += parameter.numel()
    if not ranges:
        raise ModuleError("weight_layout: the module has no parameters, so there is nothing to lay out.")
    return _layout(module, ranges)


def _layout(module: nn.Module, ranges: dict[nn.Parameter, Tensor]) -> Tensor | Layout:
    children = [child for child in module.children() if any(True for _ in child.parameters())]
    if not children or any(True for _ in module.parameters(recurse=False)):
        return torch.cat([ranges[parameter] for parameter in module.parameters()])
    if isinstance(module, nnj.SkipConnection | nnj.ResidualBlock) and len(children) == 1:
        return _layout(module._F, ranges)
    return [_layout(child, ranges) for child in children]


def blocks_of(full: Float[Tensor, "b P P"], layout: Tensor | Layout) -> Tensor | Blocks:
    """Cut the blocks that ``layout`` names out of a full ``(b, P, P)`` matrix."""
    if isinstance(layout, Tensor):
        return full[:, layout][:, :, layout]
    return [blocks_of(full, entry) for entry in layout]


def full_from_blocks(blocks: Tensor | Blocks, layout: Tensor | Layout, P: int) -> Float[Tensor, "b P P"]:
    """Place nested blocks on the diagonal of a ``(b, P, P)`` matrix; blocks that share parameters add up."""
    if isinstance(layout, Tensor) and isinstance(blocks, Tensor):
        full = blocks.new_zeros(blocks.shape[0], P, P, dtype=torch.float64)
        for sample, block in zip(full, blocks, strict=True):
            sample[layout[:, None], layout[None, :]] = block.double()
        return full
    if isinstance(layout, Tensor) or isinstance(blocks, Tensor) or not layout:
        raise ModuleError("full_from_blocks: blocks and layout must be nested alike; got one nested deeper.")
    placed = [full_from_blocks(block, entry, P) for block, entry in zip(blocks, layout, strict=True)]
    return torch.stack(placed).sum(0)
