"""Linear maps that act on the last axes one by one: upsampling, pooling by averages, padding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.kinds.linear_map import Move
from pullgeo.jacobian.signature import Signature

Factors = Sequence[Float[Tensor, "_ _"]]
"""One matrix for each of the last axes, in their order."""


@dataclass(frozen=True, eq=False)
class Separable(LinearKind):
    """``A = A_1 ⊗ ... ⊗ A_a`` on the last a axes, the same for every sample and channel.

    Pushing runs torch's own operation. Everything else contracts with the small matrices ``A_j``: the transpose of a
    product is the product of transposes, and its entrywise square the product of entrywise squares.

    Args:
        signature: shapes that differ in the last a axes.
        forward: applies ``A`` to stacks.
        factors: computes the ``A_j``, of shapes ``(m_j, n_j)``, when they are needed.

    Example:
        >>> from pullgeo.jacobian import linearize
        >>> y, J = linearize(torch.nn.Upsample(scale_factor=2, mode="linear"), torch.zeros(1, 1, 2))
        >>> J.dense()
        tensor([[[1.0000, 0.0000],
                 [0.7500, 0.2500],
                 [0.2500, 0.7500],
                 [0.0000, 1.0000]]])
    """

    signature: Signature
    forward: Move
    factors: Callable[[], Factors]

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``A T``."""
        return self.forward(T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Aᵀ W``. Cost: an axis of n inputs takes n multiplications for each number in the stack."""
        return along_axes([A.T for A in self.factors()], W)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(A∘A) v``."""
        return along_axes([A.square() for A in self.factors()], v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(A∘A)ᵀ w``."""
        return along_axes([A.square().T for A in self.factors()], w)


def along_axes(factors: Factors, T: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Each of the last axes multiplied by its matrix."""
    *others, last = factors
    T = T @ last.T
    for inner, A in enumerate(reversed(others), start=1):
        rest = T.shape[-inner:]
        T = (A @ T.flatten(-inner)).unflatten(-1, rest)
    return T


def matrix_of(operation: Move, n: int, like: Tensor) -> Float[Tensor, "m n"]:
    """The matrix of a linear operation along one axis.

    Args:
        operation: takes images ``(1, n, n, 1)`` to ``(1, n, m, 1)``, acting along the last axis but one.
        n: number of its inputs.
        like: a tensor of the wanted dtype and device.
    """
    basis = torch.eye(n, dtype=like.dtype, device=like.device).reshape(1, n, n, 1)
    return operation(basis).reshape(n, -1).T
