"""A metric of blocks on chosen coordinates, as layers of a network are."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.metric.base import Metric


@dataclass(frozen=True, eq=False)
class BlockDiagonal(Metric):
    """``M = Σ_l S_l M_l S_lᵀ``, where ``S_l`` puts a block on its coordinates; blocks that share coordinates add up.

    Args:
        blocks: the ``M_l``, each ``(b, n_l, n_l)``, symmetric or not.
        positions: for each block its ``n_l`` distinct coordinates.
        dim: n, the dimension of the whole space; coordinates without a block have zero rows and columns.

    Raises:
        ShapeError: there are no blocks, or a block does not match its positions.

    Example:
        >>> M = BlockDiagonal((torch.ones(1, 2, 2),), (torch.tensor([0, 2]),), 3)
        >>> M.dense()
        tensor([[[1., 0., 1.],
                 [0., 0., 0.],
                 [1., 0., 1.]]])
    """

    blocks: tuple[Float[Tensor, "b _ _"], ...]
    positions: tuple[Int[Tensor, " _"], ...]
    dim: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.blocks or len(self.blocks) != len(self.positions):
            raise ShapeError(
                f"BlockDiagonal: expected as many blocks as positions and at least one, got {len(self.blocks)} and "
                f"{len(self.positions)}."
            )
        for number, (block, position) in enumerate(zip(self.blocks, self.positions, strict=True)):
            n = len(position)
            if block.ndim != 3 or block.shape[1:] != (n, n) or len(block) != len(self.blocks[0]):
                raise ShapeError(
                    f"BlockDiagonal: expected block {number} of shape ({len(self.blocks[0])}, {n}, {n}), got "
                    f"{tuple(block.shape)}."
                )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the blocks."""
        return self.blocks[0].dtype

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``M v``, block by block."""
        self._check("apply", v)
        total = torch.zeros_like(v)
        for block, position in zip(self.blocks, self.positions, strict=True):
            own = torch.einsum("bij,...bj->...bi", block, v[..., position])
            total = total.index_add(-1, position, own)
        return total

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices, with zeros between the blocks."""
        full = self.blocks[0].new_zeros(len(self.blocks[0]), self.dim, self.dim)
        every = torch.arange(len(full), device=full.device)[:, None, None]
        for block, position in zip(self.blocks, self.positions, strict=True):
            full = full.index_put((every, position[:, None], position[None, :]), block, accumulate=True)
        return full

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals of the blocks, each at its place."""
        total = self.blocks[0].new_zeros(len(self.blocks[0]), self.dim)
        for block, position in zip(self.blocks, self.positions, strict=True):
            total = total.index_add(1, position, block.diagonal(dim1=1, dim2=2))
        return total
