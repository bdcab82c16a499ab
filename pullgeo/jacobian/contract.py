"""The contractions that every room shares; letters: ``k``, ``l`` tangents, ``b`` batch, ``n`` flat dimension."""

import torch
from jaxtyping import Float
from torch import Tensor


def gram(T: Float[Tensor, "k b *n"], S: Float[Tensor, "l b *n"]) -> Float[Tensor, "b k l"]:
    """⟨T_k, S_l⟩ for each sample, without copying the stacks into batch-first order.

    Cost: ``b k l n`` multiplications.
    """
    return torch.matmul(T.flatten(2).transpose(0, 1), S.flatten(2).permute(1, 2, 0))


def outer(T: Float[Tensor, "k b *n"], S: Float[Tensor, "k b *m"]) -> Float[Tensor, "b n m"]:
    """Σ_k T_k S_kᵀ for each sample. Cost: ``b k n m`` multiplications."""
    return torch.matmul(T.flatten(2).permute(1, 2, 0), S.flatten(2).transpose(0, 1))
