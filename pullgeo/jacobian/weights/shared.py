"""Layers that share weights, taken together."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights.base import WeightKind, as_weight_kind
from pullgeo.jacobian.weights.parameters import coordinate_count
from pullgeo.jacobian.weights.weight_graph import ParameterBlock, Swept, WeightGraph


@dataclass(frozen=True, eq=False)
class SharedWeight(WeightKind):
    """From the weights of several layers to all their outputs side by side; what layers share adds up when pulled.

    Args:
        owners: the layers; not none.
        parameters: each of theirs once, in the order of the coordinates of the Jacobian.
    """

    owners: tuple[ParameterBlock, ...]
    parameters: tuple[nn.Parameter, ...] = field(init=False)
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        parameters = tuple({id(p): p for own in self.owners for p in own.parameters}.values())
        first = self.owners[0].J.signature
        n_in, n_out = sum(map(coordinate_count, parameters)), sum(own.J.signature.n_out for own in self.owners)
        object.__setattr__(self, "parameters", parameters)
        object.__setattr__(self, "signature", replace(first, in_shape=(n_in,), out_shape=(n_out,)))

    def at(self, part: slice) -> "SharedWeight":
        """Some of the samples."""
        return SharedWeight(tuple(replace(own, J=as_weight_kind(own.J).at(part)) for own in self.owners))

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b y"]:
        """``δ`` of all outputs, side by side."""
        return torch.cat([flat(own.J.push(t)) for own, t in zip(self.owners, self._tangents_of(T), strict=True)], 2)

    def pull(self, W: Float[Tensor, "k b y"]) -> Float[Tensor, "k b p"]:
        """What all layers pull, added up where they share."""
        found: dict[int, Tensor] = {}
        for own, w in zip(self.owners, self._cotangents_of(W), strict=True):
            for p, piece in own.split(own.J.pull(w)):
                found[id(p)] = found[id(p)] + piece if id(p) in found else piece
        return torch.cat([found[id(p)] for p in self.parameters], 2)

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b y"]) -> Float[Tensor, "b k k"]:
        """The sum of what the layers say."""
        tangents, cotangents = self._tangents_of(T), self._cotangents_of(w.unsqueeze(0))
        layers = zip(self.owners, tangents, cotangents, strict=True)
        return torch.stack([own.J.second(t, c.squeeze(0)) for own, t, c in layers]).sum(0)

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b y"]:
        """What the layers say, side by side."""
        layers = zip(self.owners, self._tangents_of(T), self._tangents_of(S), strict=True)
        return torch.cat([flat(own.J.second_push(t, s)) for own, t, s in layers], 2)

    def _tangents_of(self, T: Tensor) -> list[Tensor]:
        sizes = [coordinate_count(p) for p in self.parameters]
        pieces = dict(zip(map(id, self.parameters), T.split(sizes, 2), strict=True))
        return [torch.cat([pieces[id(p)] for p in own.parameters], 2) for own in self.owners]

    def _cotangents_of(self, W: Tensor) -> list[Tensor]:
        signatures = [own.J.signature for own in self.owners]
        pieces = W.split([s.n_out for s in signatures], 2)
        return [w.reshape(*w.shape[:2], *s.out_shape) for w, s in zip(pieces, signatures, strict=True)]


def grouped(J: WeightGraph, swept: Swept) -> Iterator[tuple[ParameterBlock, WeightKind, Tensor, Tensor]]:
    """What a sweep meets, with all layers that share weights with another as one; so every weight comes up once."""
    shared: list[tuple[ParameterBlock, Tensor, Tensor]] = []
    for own, delta, gamma in swept:
        if J.is_shared(own):
            shared.append((own, delta, gamma))
        else:
            yield own, as_weight_kind(own.J), delta, gamma
    if shared:
        together, W, V = joined(shared)
        yield ParameterBlock(None, together.parameters, together), together, W, V


def joined(swept: Swept) -> tuple[SharedWeight, Float[Tensor, "k b y"], Float[Tensor, "l b y"]]:
    """All that a sweep meets as one."""
    met = list(swept)
    W = torch.cat([flat(delta) for _, delta, _ in met], 2)
    same = all(gamma is delta for _, delta, gamma in met)
    V = W if same else torch.cat([flat(gamma) for _, _, gamma in met], 2)
    return SharedWeight(tuple(own for own, _, _ in met)), W, V
