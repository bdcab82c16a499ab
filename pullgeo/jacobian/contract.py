"""The contractions that every room shares; letters: ``k``, ``l`` tangents, ``b`` batch, ``n`` flat dimension."""

import torch
from jaxtyping import Float
from torch import Tensor


def flat(T: Float[Tensor, "k b *n"]) -> Float[Tensor, "k b n"]:
    """A stack with one dimension for each sample, of size one where samples are numbers."""
    return T.reshape(*T.shape[:2], T.shape[2:].numel())


def same_for_all(T: Float[Tensor, "k b *n"]) -> bool:
    """Whether a stack is an expanded view of one sample, as a basis is."""
    return T.shape[1] > 1 and T.stride(1) == 0


def gram(T: Float[Tensor, "k b *n"], S: Float[Tensor, "l b *n"]) -> Float[Tensor, "b k l"]:
    """⟨T_k, S_l⟩ for each sample, without copying the stacks into batch-first order.

    Cost: ``b k l n`` multiplications.
    """
    return torch.matmul(flat(T).transpose(0, 1), flat(S).permute(1, 2, 0))


def outer(T: Float[Tensor, "k b *n"], S: Float[Tensor, "k b *m"]) -> Float[Tensor, "b n m"]:
    """Σ_k T_k S_kᵀ for each sample. Cost: ``b k n m`` multiplications."""
    return torch.matmul(flat(T).permute(1, 2, 0), flat(S).transpose(0, 1))
