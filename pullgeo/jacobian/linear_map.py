"""Maps that are linear (or affine) in their input and do not depend on the point."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian, LinearKind
from pullgeo.jacobian.signature import Signature

Move = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LinearMap(LinearKind):
    """``y = A x + c``, given by the functions that apply ``A``, ``Aᵀ`` and their entrywise squares to stacks.

    The four functions take stacks ``(k, b, *shape)`` and are linear in them.
    """

    signature: Signature
    forward: Move
    backward: Move
    forward_squared: Move
    backward_squared: Move

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``A T``."""
        return self.forward(T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Aᵀ W``."""
        return self.backward(W)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(A∘A) v``."""
        return self.forward_squared(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(A∘A)ᵀ w``."""
        return self.backward_squared(w)


@dataclass(frozen=True, eq=False)
class Reshape(LinearKind):
    """Another shape for the same elements in the same order; the identity where the shapes are the same."""

    signature: Signature

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``T`` in the output's shape."""
        return T.reshape(*T.shape[:2], *self.signature.out_shape)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``W`` in the input's shape."""
        return W.reshape(*W.shape[:2], *self.signature.in_shape)

    def push_squared(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """As ``push``: the entries are zeros and ones."""
        return self.push(v)

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """As ``pull``: the entries are zeros and ones."""
        return self.pull(w)

    @property
    def T(self) -> Jacobian:
        """The reshape back."""
        return Reshape(self.signature.transposed)
