"""A metric with one small block for each location of an output."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.metric.base import Metric


@dataclass(frozen=True, eq=False)
class ChannelBlocks(Metric):
    """``M`` couples the c channels at each of s locations and nothing else; coordinates are channels first.

    Args:
        blocks: ``(b, s, c, c)``, symmetric or not.

    Raises:
        ShapeError: the blocks are not square.

    Example:
        >>> ChannelBlocks(torch.ones(1, 2, 2, 2)).dense()
        tensor([[[1., 0., 1., 0.],
                 [0., 1., 0., 1.],
                 [1., 0., 1., 0.],
                 [0., 1., 0., 1.]]])
    """

    blocks: Float[Tensor, "b s c d"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks.ndim != 4 or self.blocks.shape[2] != self.blocks.shape[3]:
            raise ShapeError(f"ChannelBlocks: expected blocks (b, s, c, c), got {tuple(self.blocks.shape)}.")

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Channels times locations."""
        return self.blocks.shape[1] * self.blocks.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the blocks."""
        return self.blocks.dtype

    def apply(self, v: Float[Tensor, "*k b n"]) -> Float[Tensor, "*k b n"]:
        """``M v``, location by location."""
        self._check("apply", v)
        shaped = v.reshape(*v.shape[:-1], self.blocks.shape[2], self.blocks.shape[1])
        return torch.einsum("bscd,...bds->...bcs", self.blocks, shaped).reshape(v.shape)

    def dense(self) -> Float[Tensor, "b n n"]:
        """The matrices, with zeros between the locations."""
        places = torch.eye(self.blocks.shape[1], dtype=self.dtype, device=self.blocks.device)
        whole = torch.einsum("bscd,st->bcsdt", self.blocks, places)
        return whole.reshape(len(self.blocks), self.dim, self.dim)

    def diag(self) -> Float[Tensor, "b n"]:
        """The diagonals of the blocks."""
        return self.blocks.diagonal(dim1=2, dim2=3).mT.reshape(len(self.blocks), self.dim)
