"""Tools around modules and their products."""

from typing import Any, overload

import torch
from torch import Tensor

from pullgeo.errors import DtypeError, ShapeError, SingularMetricError
from pullgeo.nnj.convert import convert_to_nnj

__all__ = ["convert_to_nnj", "invert_block_diagonal"]


@overload
def invert_block_diagonal(blocks: Tensor) -> Tensor: ...
@overload
def invert_block_diagonal(blocks: list[Any] | tuple[Any, ...]) -> list[Any]: ...
def invert_block_diagonal(blocks: Tensor | list[Any] | tuple[Any, ...]) -> Tensor | list[Any]:
    """The inverses of blocks, nested as the blocks are: the inverse of the block-diagonal matrix that they stand for.

    Args:
        blocks: ``(..., n, n)``, or a list of such, nested at will, as ``jTmjp(wrt="weight")`` returns.

    Returns:
        The same nesting with every matrix inverted.

    Raises:
        ShapeError: a block is not square.
        DtypeError: an entry is neither a floating point tensor nor a list.
        SingularMetricError: a matrix is singular to working precision. The blocks of a Gauss-Newton matrix are, if a
            layer has more weights than the network has outputs: add a multiple of the identity, a prior's precision,
            to each first.

    Cost: one LU decomposition for each matrix.

    Example:
        >>> invert_block_diagonal([torch.full((1, 1, 1), 2.0), [torch.full((1, 1, 1), 4.0)]])
        [tensor([[[0.5000]]]), [tensor([[[0.2500]]])]]
    """
    return _inverted(blocks, "blocks")


def _inverted(blocks: Any, path: str) -> Any:
    if isinstance(blocks, list | tuple):
        return [_inverted(block, f"{path}[{number}]") for number, block in enumerate(blocks)]
    if not isinstance(blocks, Tensor) or not blocks.is_floating_point():
        got = blocks.dtype if isinstance(blocks, Tensor) else type(blocks).__name__
        raise DtypeError(f"invert_block_diagonal: {path} must be a floating point tensor or a list of them, got {got}.")
    if blocks.ndim < 2 or blocks.shape[-1] != blocks.shape[-2]:
        raise ShapeError(
            f"invert_block_diagonal: {path} must have shape (..., n, n), got {tuple(blocks.shape)}. A diagonal is "
            "inverted by 1 / diagonal."
        )
    inverse, info = torch.linalg.inv_ex(blocks)
    n = blocks.shape[-1]
    if n == 0:
        return inverse
    condition = torch.linalg.matrix_norm(blocks, 1) * torch.linalg.matrix_norm(inverse, 1)
    # written so that NaN counts as singular
    regular = (info == 0) & (condition * n * torch.finfo(blocks.dtype).eps < 1)
    if not bool(regular.all()):
        raise SingularMetricError(
            f"invert_block_diagonal: {path} is singular to working precision in {int((~regular).sum())} of "
            f"{regular.numel()} matrices. Add a multiple of the identity to it first."
        )
    return inverse
