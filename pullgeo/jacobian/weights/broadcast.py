"""The derivative of ``y = a(x) ∘ θ`` or ``a(x) ∘ θ + β`` where these are broadcast: per-channel slopes and scales."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.base import WeightKind


@dataclass(frozen=True, eq=False)
class BroadcastWeight(WeightKind, LinearKind):
    """``J_θ δθ = a ∘ expand(δθ)``, and with a bias ``J_θ (δθ, δβ) = a ∘ expand(δθ) + expand(δβ)``.

    Args:
        factor: ``a(x)``, of the output's shape ``(b, *y)``.
        shape: shape in which θ broadcasts against one sample ``(*y)``: same number of dimensions, ones where it is
            repeated.
        signature: ``(P,) -> (*y)``.
        bias: whether there is a β, of the same shape, behind θ.
    """

    factor: Float[Tensor, "b *y"]
    shape: tuple[int, ...]
    signature: Signature
    bias: bool = False

    def at(self, part: slice) -> "BroadcastWeight":
        """Some of the samples."""
        factor = self.factor[part]
        return replace(self, factor=factor, signature=replace(self.signature, batch=len(factor)))

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``a ∘ expand(T)``."""
        return self._spread(self.factor, T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``a ∘ W``, summed over the repeated dimensions."""
        return self._collected(self.factor, W)

    def pull_pieces(self, W: Float[Tensor, "k b *y"]) -> list[Float[Tensor, "k b _"]]:
        """That of θ, and that of β."""
        scale = self._summed(self.factor * W)
        return [scale, self._summed(W)] if self.bias else [scale]

    def push_squared(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``a² ∘ expand(v)``."""
        return self._spread(self.factor.square(), v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``a² ∘ w``, summed over the repeated dimensions."""
        return self._collected(self.factor.square(), w)

    def _spread(self, factor: Tensor, T: Tensor) -> Tensor:
        if not self.bias:
            return factor * self._shaped(T)
        scale, shift = T.chunk(2, 2)
        return factor * self._shaped(scale) + self._shaped(shift)

    def _shaped(self, T: Tensor) -> Tensor:
        return T.reshape(*T.shape[:2], *self.shape)

    def _collected(self, factor: Tensor, W: Tensor) -> Tensor:
        pieces = replace(self, factor=factor).pull_pieces(W)
        return torch.cat(pieces, 2) if self.bias else pieces[0]

    def _summed(self, products: Tensor) -> Tensor:
        repeated = [2 + i for i, size in enumerate(self.shape) if size == 1]
        summed = products.sum(repeated, keepdim=True) if repeated else products
        return flat(summed)
