"""The gated linear unit."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.contractions import gram
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class GatedLinear(Jacobian):
    """``y = a σ(g)``, with ``x = (a, g)`` the two halves along one dimension and σ the logistic function.

    Args:
        a: the first half.
        gate: ``σ(g)``.
        dim: the dimension that was halved, counted from the end (negative).
    """

    a: Float[Tensor, "b *y"]
    gate: Float[Tensor, "b *y"]
    dim: int

    @property
    def signature(self) -> Signature:  # type: ignore[override]
        """``(*x) -> (*y)``, half as long along one dimension."""
        out = Signature.between(self.a, self.a)
        shape = list(out.out_shape)
        shape[self.dim] *= 2
        return Signature(out.batch, tuple(shape), out.out_shape, out.dtype, out.device)

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``σ T_a + a σ' T_g``."""
        T_a, T_g = T.chunk(2, self.dim)
        return self.gate * T_a + self._slope * T_g

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(σ W, a σ' W)``."""
        return torch.cat([self.gate * W, self._slope * W], self.dim)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``σ² v_a + (a σ')² v_g``."""
        v_a, v_g = v.chunk(2, self.dim)
        return self.gate.square() * v_a + self._slope.square() * v_g

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(σ² w, (a σ')² w)``."""
        return torch.cat([self.gate.square() * w, self._slope.square() * w], self.dim)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """``Σ w (σ' (T_a S_g + T_g S_a) + a σ'' T_g S_g)``."""
        T_a, T_g = T.chunk(2, self.dim)
        mixed = gram(T_a * (self._gate_slope * w), T_g)
        return mixed + mixed.mT + gram(T_g * (self._gate_curvature * w), T_g)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``σ' (T_a S_g + T_g S_a) + a σ'' T_g S_g``."""
        T_a, T_g = T.chunk(2, self.dim)
        S_a, S_g = S.chunk(2, self.dim)
        return self._gate_slope * (T_a * S_g + T_g * S_a) + self._gate_curvature * T_g * S_g

    @property
    def _gate_slope(self) -> Tensor:
        return self.gate * (1 - self.gate)

    @property
    def _slope(self) -> Tensor:
        return self.a * self._gate_slope

    @property
    def _gate_curvature(self) -> Tensor:
        return self._slope * (1 - 2 * self.gate)
