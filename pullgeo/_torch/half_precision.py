"""Decompositions of matrices of two bytes an entry, which torch has none of."""

import torch
from torch import Tensor


def decomposable(A: Tensor) -> Tensor:
    """The matrix itself, or in single precision if it has less; what comes of it is rounded by the caller."""
    return A.float() if A.is_floating_point() and A.dtype.itemsize < torch.float32.itemsize else A
