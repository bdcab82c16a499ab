"""Maps that act on every element by itself: a diagonal Jacobian."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.contractions import flat, gram, same_for_all
from pullgeo.jacobian.signature import Signature


@dataclass(frozen=True, eq=False)
class Elementwise(Jacobian):
    """``y_i = σ(x_i)``: push and pull multiply by ``σ'(x)``.

    Args:
        derivative: ``σ'(x)``, of the input's shape ``(b, *x)``.
        curvature: computes ``σ''(x)``, of the same shape, when it is needed; ``None`` where it vanishes (piecewise
            linear activations, masks).

    Raises:
        OptionError: ``curvature`` is a tensor, not a function.
    """

    derivative: Float[Tensor, "b *x"]
    curvature: Callable[[], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.curvature is not None and not callable(self.curvature):
            raise OptionError(
                f"Elementwise: curvature must be a function without arguments, got {type(self.curvature).__name__}. It "
                "is computed only when it is needed: Elementwise(derivative, lambda: second_derivative)."
            )

    @cached_property
    def signature(self) -> Signature:  # type: ignore[override]
        """Shapes of the derivative, which are looked at only where something asks for them."""
        return Signature.between(self.derivative, self.derivative)

    @property
    def item_bytes(self) -> int:
        """Of a tangent."""
        return self.derivative.nbytes

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``σ' T``."""
        return T * self.derivative

    def pull(self, W: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``σ' W``."""
        return W * self.derivative

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``σ'² v``."""
        return v * self.derivative.square()

    def pull_squared(self, w: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``σ'² w``."""
        return w * self.derivative.square()

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *x"]) -> Float[Tensor, "b k k"]:
        """``Tᵀ diag(σ'' w) T``."""
        if self.curvature is None:
            return T.new_zeros(T.shape[1], len(T), len(T))
        return _weighted_gram(T, self.curvature() * w)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *x"]:
        """``σ'' T S``."""
        return torch.zeros_like(T) if self.curvature is None else self.curvature() * T * S

    @property
    def T(self) -> Jacobian:
        """Itself: diagonal maps are symmetric."""
        return self

    def dense(self) -> Float[Tensor, "b n n"]:
        """The diagonal matrices."""
        return flat(self.derivative.unsqueeze(0)).squeeze(0).diag_embed()

    def columns(self) -> Float[Tensor, "n b n"]:
        """The columns of the diagonal matrices."""
        return self.dense().transpose(0, 1)


def _weighted_gram(T: Float[Tensor, "k b *x"], weight: Float[Tensor, "b *x"]) -> Float[Tensor, "b k k"]:
    """``Tᵀ diag(w) T``; where all samples share their tangents, from the products of these."""
    if not same_for_all(T):
        return gram(T * weight, T)
    k = len(T)
    shared = flat(T[:, :1]).squeeze(1)
    products = (shared.unsqueeze(1) * shared).reshape(k * k, -1)
    return (flat(weight.unsqueeze(0)).squeeze(0) @ products.mT).reshape(-1, k, k)
