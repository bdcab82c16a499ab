"""The derivative of ``y = a(x) ∘ θ`` where θ is broadcast: per-channel slopes and scales."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import LinearKind
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class BroadcastWeight(LinearKind):
    """``J_θ δθ = a ∘ expand(δθ)``.

    Args:
        factor: ``a(x)``, of the output's shape ``(b, *y)``.
        shape: shape in which θ broadcasts against one sample ``(*y)``: same number of dimensions, ones where it is
            repeated.
        signature: ``(P,) -> (*y)``.
    """

    factor: Float[Tensor, "b *y"]
    shape: tuple[int, ...]
    signature: Signature

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``a ∘ expand(T)``."""
        return self.factor * T.unflatten(2, self.shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``a ∘ W``, summed over the repeated dimensions."""
        return self._collect(self.factor * W)

    def push_squared(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``a² ∘ expand(v)``."""
        return self.factor.square() * v.unflatten(2, self.shape)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``a² ∘ w``, summed over the repeated dimensions."""
        return self._collect(self.factor.square() * w)

    def _collect(self, products: Tensor) -> Tensor:
        repeated = [2 + i for i, size in enumerate(self.shape) if size == 1]
        summed = products.sum(repeated, keepdim=True) if repeated else products
        return summed.flatten(2)
