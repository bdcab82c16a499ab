"""The softmax family: Jacobians that couple the entries along one dimension, diagonal plus rank one."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class Softmax(Jacobian):
    """``y = softmax(± x)`` along one dimension: ``J = ± (diag y - y yᵀ)`` in every row.

    All products are formed of ``y`` alone, so they stay finite whatever the size of the logits.

    Args:
        y: the probabilities ``(b, *x)``.
        dim: the dimension along which they sum to one, counted from the end (negative).
        sign: -1 for softmin.
    """

    y: Float[Tensor, "b *x"]
    dim: int
    sign: float = 1.0

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(*x) -> (*x)``."""
        return Signature.between(self.y, self.y)

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``± y (T - Σ y T)``."""
        return self.sign * self.y * self._centred(T)

    def pull(self, W: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """As ``push``: the matrices are symmetric."""
        return self.push(W)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``y_o² ((1 - y_o)² v_o + Σ_{i≠o} y_i² v_i)``."""
        square = self.y.square()
        return square * ((1 - self.y).square() * v + sum_of_others(square * v, self.dim))

    def pull_squared(self, w: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """As ``push_squared``: the matrices are symmetric."""
        return self.push_squared(w)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *x"]) -> Float[Tensor, "b k k"]:
        """``Σ_o y_o (w_o - Σ y w) T̃_o S̃_o`` with ``T̃ = T - Σ y T``."""
        centred = self._centred(T)
        return gram(centred * (self.y * self._centred(w)), centred)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``y (T̃ S̃ - Σ y T̃ S̃)``."""
        product = self._centred(T) * self._centred(S)
        return self.y * self._centred(product)

    @property
    def T(self) -> Jacobian:
        """Itself."""
        return self

    def _centred(self, T: Tensor) -> Tensor:
        return T - (self.y * T).sum(self.dim, keepdim=True)


@dataclass(frozen=True, eq=False)
class LogSoftmax(Jacobian):
    """``y = x - log Σ exp x`` along one dimension: ``J = 1 - 1 pᵀ`` in every row, with ``p`` the softmax.

    Args:
        p: the probabilities ``(b, *x)``.
        dim: the dimension along which they sum to one, counted from the end (negative).
    """

    p: Float[Tensor, "b *x"]
    dim: int

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(*x) -> (*x)``."""
        return Signature.between(self.p, self.p)

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``T - Σ p T``."""
        return T - (self.p * T).sum(self.dim, keepdim=True)

    def pull(self, W: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``W - p Σ W``."""
        return W - self.p * W.sum(self.dim, keepdim=True)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``(1 - p_o)² v_o + Σ_{i≠o} p_i² v_i``."""
        return (1 - self.p).square() * v + sum_of_others(self.p.square() * v, self.dim)

    def pull_squared(self, w: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``(1 - p_i)² w_i + p_i² Σ_{o≠i} w_o``."""
        return (1 - self.p).square() * w + self.p.square() * sum_of_others(w, self.dim)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *x"]) -> Float[Tensor, "b k k"]:
        """``-(Σ w) Σ_i p_i T̃_i S̃_i`` with ``T̃ = T - Σ p T``."""
        centred = self.push(T)
        return -gram(centred * (self.p * w.sum(self.dim, keepdim=True)), centred)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``-Σ p T̃ S̃``, the same for all entries of a row."""
        covariance = (self.p * self.push(T) * self.push(S)).sum(self.dim, keepdim=True)
        return -covariance.expand_as(T)


def sum_of_others(values: Tensor, dim: int) -> Tensor:
    """For every entry the sum of the others along a dimension.

    Subtracting the entry from the total would cancel where one entry holds nearly all of it, as in saturated softmax;
    sums from both sides do not.
    """
    return _sum_before(values, dim) + _sum_before(values.flip(dim), dim).flip(dim)


def _sum_before(values: Tensor, dim: int) -> Tensor:
    if values.shape[dim] == 0:
        return values
    sums = values.cumsum(dim).narrow(dim, 0, values.shape[dim] - 1)
    return torch.cat([torch.zeros_like(values.narrow(dim, 0, 1)), sums], dim)
