"""Normalisation of rows: Jacobians that couple a row, the identity minus rank two."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.signature import Signature

SMALL_ROW = 32
"""Rows up to this length are squared as matrices, which is as fast and does not cancel where a row has few entries."""


@dataclass(frozen=True, eq=False)
class RowNormalization(Jacobian):
    """``y = γ ∘ n(x)`` with ``n(x) = (x - mean x)/σ`` and ``σ² = mean (x - mean x)² + ε``, in every row of length n.

    In a row ``J = diag(γ) N`` with the symmetric ``N = (C - x̂ x̂ᵀ/n)/σ``, where ``x̂ = n(x)`` and C subtracts the
    mean; without centring (root mean square) C is the identity. Layer, group, instance and RMS norm differ in
    nothing but what is a row.

    Args:
        normal: ``x̂``, ``(b, r, n)``: the elements of a sample, in their order, as r rows.
        inverse: ``1/σ``, ``(b, r, 1)``.
        scale: ``γ``, which broadcasts to ``(r, n)``; ``None`` for ones.
        centred: whether the mean is subtracted.
        signature: ``(*x) -> (*x)``.
    """

    normal: Float[Tensor, "b r n"]
    inverse: Float[Tensor, "b r 1"]
    scale: Float[Tensor, "#r #n"] | None
    centred: bool
    signature: Signature

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``γ N T``."""
        return self._scaled(self._normalized(self._rows(T))).reshape(T.shape)

    def pull(self, W: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``N γ W``."""
        return self._normalized(self._scaled(self._rows(W))).reshape(W.shape)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``γ² (N∘N) v``."""
        return self._scaled(self._scaled(self._squared(self._rows(v)))).reshape(v.shape)

    def pull_squared(self, w: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``(N∘N) γ² w``."""
        return self._squared(self._scaled(self._scaled(self._rows(w)))).reshape(w.shape)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *x"]) -> Float[Tensor, "b k k"]:
        """As `second_push`, contracted: grams of the stacks and of two numbers for each row."""
        weights = self._scaled(self._rows(w.unsqueeze(0)))
        centred = self._centre(self._rows(T))
        along = self._mean(self.normal * centred)
        across = (weights * (centred - self.normal * along)).sum(-1, keepdim=True) * self.inverse
        mixed = gram(across * self.inverse, along)
        curve = (weights * self.normal).sum(-1, keepdim=True) * self.inverse.square()
        spread = gram(centred * (curve / max(1, self.normal.shape[-1])), centred)
        return gram(along * curve, along) - spread - mixed - mixed.mT

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``-(u_T a_S + u_S a_T + x̂ (mean T̃ S̃ - a_T a_S)/σ)/σ`` with ``T̃ = C T``, ``a_T = mean x̂ T̃``, ``u_T = N T``."""
        T_c, S_c = self._centre(self._rows(T)), self._centre(self._rows(S))
        a_T, a_S = self._mean(self.normal * T_c), self._mean(self.normal * S_c)
        u_T, u_S = (T_c - self.normal * a_T) * self.inverse, (S_c - self.normal * a_S) * self.inverse
        covariance = (self._mean(T_c * S_c) - a_T * a_S) * self.inverse
        return self._scaled(-(u_T * a_S + u_S * a_T + self.normal * covariance) * self.inverse).reshape(T.shape)

    def _rows(self, T: Tensor) -> Tensor:
        return T.reshape(len(T), *self.normal.shape)

    def _centre(self, T: Tensor) -> Tensor:
        return T - self._mean(T) if self.centred else T

    def _normalized(self, T: Tensor) -> Tensor:
        centred = self._centre(T)
        return (centred - self.normal * self._mean(self.normal * centred)) * self.inverse

    def _scaled(self, T: Tensor) -> Tensor:
        return T if self.scale is None else T * self.scale

    def _mean(self, T: Tensor) -> Tensor:
        return T.sum(-1, keepdim=True) / max(1, self.normal.shape[-1])

    def _squared(self, v: Tensor) -> Tensor:
        """``(N∘N) v``: with ``q_oi = (c + x̂_o x̂_i)/n`` the entries are ``(δ_oi - q_oi)²/σ²``."""
        n, x, c = max(1, self.normal.shape[-1]), self.normal, float(self.centred)
        if n <= SMALL_ROW:
            q = (c + x.unsqueeze(-1) * x.unsqueeze(-2)) / n
            entries = (torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) - q).square()
            return (entries @ v.unsqueeze(-1)).squeeze(-1) * self.inverse.square()
        sums = [(power * v).sum(-1, keepdim=True) for power in (torch.ones_like(x), x, x.square())]
        off_diagonal = (c * sums[0] + 2 * c * x * sums[1] + x.square() * sums[2]) / n**2
        return ((1 - 2 * (c + x.square()) / n) * v + off_diagonal) * self.inverse.square()
