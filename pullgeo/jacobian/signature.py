"""The spaces between which a Jacobian maps, and the bases that span them."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Signature:
    """Shapes per sample, batch size, dtype and device of a batched linear map ``T_x X -> T_y Y``."""

    batch: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def between(cls, x: Tensor, y: Tensor) -> "Signature":
        """The signature of a map whose value at the batch ``x`` is the batch ``y``."""
        return _between(x.shape, y.shape, y.dtype, y.device)

    @property
    def n_in(self) -> int:
        """Dimension of the input's tangent space."""
        return math.prod(self.in_shape)

    @property
    def n_out(self) -> int:
        """Dimension of the output's tangent space."""
        return math.prod(self.out_shape)

    @property
    def transposed(self) -> "Signature":
        """The signature of the transposed map."""
        return Signature(self.batch, self.out_shape, self.in_shape, self.dtype, self.device)

    def in_basis(self) -> Shaped[Tensor, "n b *x"]:
        """The coordinate tangents of the input space, leading the batch (an expanded view)."""
        return self._basis(self.in_shape)

    def out_basis(self) -> Shaped[Tensor, "n b *y"]:
        """The coordinate tangents of the output space, leading the batch (an expanded view)."""
        return self._basis(self.out_shape)

    def _basis(self, shape: tuple[int, ...]) -> Tensor:
        n = math.prod(shape)
        eye = torch.eye(n, dtype=self.dtype, device=self.device).reshape(n, 1, *shape)
        return eye.expand(n, self.batch, *shape)


@lru_cache(maxsize=4096)
def _between(before: torch.Size, after: torch.Size, dtype: torch.dtype, device: torch.device) -> Signature:
    return Signature(before[0], tuple(before[1:]), tuple(after[1:]), dtype, device)
