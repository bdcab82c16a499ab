"""Symmetric systems of blocks in a narrow band, many at once."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.numerics.banded.cyclic_reduction import Elimination
from pullgeo.numerics.banded.ldl import SideBySide
from pullgeo.numerics.batch import Batch

DENSE_LIMIT = 300_000
"""Up to so many numbers in the matrices of all systems, dense Cholesky factorisations beat elimination of blocks."""

MANY = 32
"""From so many systems on, a CPU does best to take all of them row by row."""

NARROW = 30
"""Up to so many rows of a band, that is."""


@runtime_checkable
class Factor(Protocol):
    """Cholesky factors of p systems."""

    @property
    def good(self) -> Bool[Tensor, " p"]:
        """Which systems are positive definite; solutions of the others mean nothing."""

    def solve(self, v: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
        """``H⁻¹ v``."""


@dataclass(frozen=True, eq=False)
class BlockBanded(Batch):
    """Symmetric matrices ``H`` of m x m blocks, d x d each, of which only those near the diagonal are not zero.

    Args:
        bands: the blocks ``H_{i,i+k}`` for k = 0, 1, ..., each ``(p, m - k, d, d)``. Those below the diagonal are
            their transposes.
    """

    bands: tuple[Float[Tensor, "p _ d d"], ...]

    def shifted(self, diagonal: Float[Tensor, "p m d"]) -> "BlockBanded":
        """``H`` plus a diagonal matrix."""
        return BlockBanded((self.bands[0] + diagonal.diag_embed(), *self.bands[1:]))

    def matvec(self, v: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
        """``H v``."""
        product = torch.zeros_like(v)
        for k, band in enumerate(self.bands):
            m = band.shape[1]
            if m == 0:
                continue
            right = (band @ v[:, k:].unsqueeze(-1)).squeeze(-1)
            product = product + _padded(right, 0, k)
            if k:
                left = (band.mT @ v[:, :m].unsqueeze(-1)).squeeze(-1)
                product = product + _padded(left, k, 0)
        return product

    def dense(self) -> Float[Tensor, "p md md"]:
        """The matrices, written out."""
        p, m, d, _ = self.bands[0].shape
        H = self._lower_half()
        for k, band in enumerate(self.bands):
            if 0 < k < m:
                H.view(p, m, d, m, d).diagonal(k, 1, 3).copy_(band.permute(0, 2, 3, 1))
        return H

    def _lower_half(self) -> Float[Tensor, "p md md"]:
        """The matrices without the blocks above the diagonal, which Cholesky's factorisation does not look at."""
        p, m, d, _ = self.bands[0].shape
        H = self.bands[0].new_zeros(p, m, d, m, d)
        for k, band in enumerate(self.bands):
            if k < m:
                H.diagonal(-k, 1, 3).copy_(band.permute(0, 3, 2, 1))
        return H.view(p, m * d, m * d)

    def cholesky(self) -> Factor:
        """Factors of all systems.

        Cost: O(m d³) each, row by row for all systems at once where these are many and narrow, else by elimination of
        blocks; one dense factorisation for each of a few small systems.
        """
        p, m, d, _ = self.bands[0].shape
        # what is written in place cannot be differentiated
        in_place = self.bands[0].device.type == "cpu" and not torch.is_grad_enabled()
        if in_place and p >= MANY and len(self.bands) * d <= NARROW:
            return SideBySide.of(self.bands)
        if p * (m * d) ** 2 <= DENSE_LIMIT:
            return _Dense(self._lower_half())
        return _Blocks(self.bands)


class _Dense:
    def __init__(self, H: Tensor) -> None:
        self.lower, info = torch.linalg.cholesky_ex(H)
        self.good = info == 0

    def solve(self, v: Tensor) -> Tensor:
        return torch.cholesky_solve(v.flatten(1).unsqueeze(-1), self.lower).reshape(v.shape)


class _Blocks:
    """Neighbours are joined until the system of larger blocks is block-tridiagonal."""

    def __init__(self, bands: tuple[Tensor, ...]) -> None:
        self.m, d = bands[0].shape[1], bands[0].shape[2]
        self.width = max(1, len(bands) - 1)
        joined = _joined(bands, self.width)
        self.order = self.width * d
        self.elimination = Elimination.of(*joined)
        self.good = self.elimination.good

    def solve(self, v: Tensor) -> Tensor:
        p, m, d = v.shape
        filled = _padded(v, 0, -m % self.width)
        return self.elimination.solve(filled.reshape(p, -1, self.order)).reshape(p, -1, d)[:, :m]


def _joined(bands: tuple[Tensor, ...], width: int) -> tuple[Tensor, Tensor]:
    """Diagonal and right-hand blocks of the block-tridiagonal system that joins ``width`` neighbours."""
    p, m, d, _ = bands[0].shape
    n = -(-m // width)
    diagonal = bands[0].new_zeros(p, n, width, d, width, d)
    right = bands[0].new_zeros(p, n, width, d, width, d)
    for k, band in enumerate(bands):
        for a in range(width):
            blocks = band[:, a::width]  # rows a, a + width, ...
            i = torch.arange(blocks.shape[1], device=band.device)
            target = right if a + k >= width else diagonal
            b = (a + k) % width
            target[:, i, a, :, b] = blocks
            if k and a + k < width:
                target[:, i, b, :, a] = blocks.mT
    for a in range(m - (n - 1) * width, width):  # what fills up the last block is the identity
        diagonal[:, -1, a, :, a] = torch.eye(d, dtype=band.dtype, device=band.device)
    order = width * d
    return diagonal.reshape(p, n, order, order), right[:, :-1].reshape(p, n - 1, order, order)


def _padded(v: Tensor, before: int, after: int) -> Tensor:
    return torch.nn.functional.pad(v, (0, 0, before, after))
