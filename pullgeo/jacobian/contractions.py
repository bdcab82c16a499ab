"""The contractions that every room shares; letters: ``k``, ``l`` tangents, ``b`` batch, ``n`` flat dimension."""

import torch
from jaxtyping import Float
from torch import Tensor

_FEW = 4
"""So many tangents, at most, are added one by one; a matrix product for each sample is slower then."""


def flat(T: Float[Tensor, "k b *n"]) -> Float[Tensor, "k b n"]:
    """A stack with one dimension for each sample, of size one where samples are numbers."""
    return T if T.ndim == 3 else T.reshape(*T.shape[:2], T.shape[2:].numel())


def same_for_all(T: Float[Tensor, "k b *n"]) -> bool:
    """Whether a stack is an expanded view of one sample, as a basis is."""
    return T.shape[1] > 1 and T.stride(1) == 0


def gram(T: Float[Tensor, "k b *n"], S: Float[Tensor, "l b *n"]) -> Float[Tensor, "b k l"]:
    """⟨T_k, S_l⟩ for each sample, without copying the stacks into batch-first order.

    Cost: ``b k l n`` multiplications.
    """
    return torch.bmm(flat(T).transpose(0, 1), flat(S).permute(1, 2, 0))


def combined(T: Float[Tensor, "k b *n"], u: Float[Tensor, "l b k"]) -> Float[Tensor, "l b *n"]:
    """``Σ_k u_lk T_k`` for each sample. Cost: ``b k l n`` multiplications."""
    if T.shape[1] == 1 or same_for_all(T):
        combination = torch.matmul(u, flat(T[:, :1]).squeeze(1))
        return combination if T.ndim == 3 else combination.reshape(*u.shape[:2], *T.shape[2:])
    if T.shape[0] > _FEW:
        return torch.einsum("kbn,lbk->lbn", flat(T), u).reshape(*u.shape[:2], *T.shape[2:])
    u = u.reshape(*u.shape, *[1] * (T.ndim - 2))
    total = u[:, :, 0] * T[0]
    for k in range(1, T.shape[0]):
        total = torch.addcmul(total, u[:, :, k], T[k])
    return total


def outer(T: Float[Tensor, "k b *n"], S: Float[Tensor, "k b *m"]) -> Float[Tensor, "b n m"]:
    """Σ_k T_k S_kᵀ for each sample. Cost: ``b k n m`` multiplications."""
    return torch.matmul(flat(T).permute(1, 2, 0), flat(S).transpose(0, 1))


def times(scale: Float[Tensor, "k b"], stack: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *y"]:
    """A number for each tangent and sample times a stack."""
    return scale.reshape(*scale.shape, *[1] * (stack.ndim - 2)) * stack
