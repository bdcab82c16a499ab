"""Layers of which some parameters are differentiated and others are held fixed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.base import WeightKind, as_weight_kind
from pullgeo.jacobian.weights.broadcast import BroadcastWeight
from pullgeo.jacobian.weights.conv import ConvWeight
from pullgeo.jacobian.weights.linear import LinearWeight
from pullgeo.jacobian.weights.parameters import coordinate_count


@dataclass(frozen=True, eq=False)
class PartialWeight(WeightKind):
    """Some coordinates of the Jacobian of a layer's weights; the layer computes all of them.

    Args:
        J: with respect to all weights of the layer.
        places: which coordinates.
    """

    J: WeightKind
    places: Int[Tensor, " p"]
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", replace(self.J.signature, in_shape=(len(self.places),)))

    def at(self, part: slice) -> "PartialWeight":
        """Some of the samples."""
        return PartialWeight(self.J.at(part), self.places)

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``J T`` with zeros for the others."""
        return self.J.push(self._among_all(T))

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """The coordinates of ``Jᵀ W``."""
        return self.J.pull(W)[..., self.places]

    def push_squared(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``(J∘J) v`` with zeros for the others."""
        return self.J.push_squared(self._among_all(v))

    def pull_squared(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """The coordinates of ``(J∘J)ᵀ w``."""
        return self.J.pull_squared(w)[..., self.places]

    def push_squared_layerwise(self, v: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """As the layer propagates diagonals."""
        return self.J.push_squared_layerwise(self._among_all(v))

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """As the layer propagates diagonals."""
        return self.J.pull_squared_layerwise(w)[..., self.places]

    def pull_diag(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "b p"]:
        """The coordinates of the layer's diagonal."""
        return self.J.pull_diag(W, V)[..., self.places]

    def pull_diag_summed(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """The coordinates of the layer's diagonal, added up over the batch."""
        return self.J.pull_diag_summed(W, V)[..., self.places]

    def pull_squared_summed(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k p"]:
        """The coordinates of the layer's squares, added up over the batch."""
        return self.J.pull_squared_summed(w)[..., self.places]

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """With zeros for the others."""
        return self.J.second(self._among_all(T), w)

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """With zeros for the others."""
        return self.J.second_push(self._among_all(T), self._among_all(S))

    def _among_all(self, T: Tensor) -> Tensor:
        return T.new_zeros(*T.shape[:-1], self.J.signature.n_in).index_copy(-1, self.places, T)


def restricted(J: Jacobian, every: Sequence[Tensor], chosen: Sequence[nn.Parameter]) -> Jacobian:
    """The Jacobian of a layer with respect to some of its parameters.

    A linear layer or a convolution without its bias, or the bias alone, has a kind of its own, which forms nothing of
    the other; of other layers the coordinates are picked out of all.

    Args:
        J: with respect to all parameters of the layer.
        every: these parameters, in the order of the coordinates.
        chosen: some of them, in the same order.
    """
    ids = set(map(id, chosen))
    size = sum(map(coordinate_count, chosen))
    signature = replace(J.signature, in_shape=(size,))
    if isinstance(J, LinearWeight | ConvWeight) and J.bias and len(every) == 2:
        if id(every[0]) in ids:
            return replace(J, bias=False, signature=signature)
        return _bias(J, signature)
    device = J.signature.device
    sizes = [coordinate_count(p) for p in every]
    places = torch.arange(sum(sizes), device=device).split(sizes)
    kept = [place for p, place in zip(every, places, strict=True) if id(p) in ids]
    return PartialWeight(as_weight_kind(J), torch.cat(kept))


def _bias(J: LinearWeight | ConvWeight, signature: Signature) -> BroadcastWeight:
    """The bias alone: its channels are the last dimension behind a linear layer, the first behind a convolution."""
    out = signature.out_shape
    ones = torch.ones((), dtype=signature.dtype, device=signature.device).expand(signature.batch, *out)
    channel = len(out) - 1 if isinstance(J, LinearWeight) else 0
    shape = tuple(size if i == channel else 1 for i, size in enumerate(out))
    return BroadcastWeight(ones, shape, signature)
