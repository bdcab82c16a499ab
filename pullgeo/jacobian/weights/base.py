"""What Jacobians with respect to weights can do besides: all samples share one tangent space, so they may meet."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian, added_up
from pullgeo.jacobian.contractions import times
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.signature import Signature
from pullgeo.numerics.chunking import SUMS, Budget


class WeightKind(Jacobian):
    """A Jacobian ``J_b`` of every sample b from the same space, that of a layer's P weights.

    Sums over the batch and products between samples form weights for a part of the samples at a time, never for all;
    kinds that can contract without forming any do so.
    """

    @abstractmethod
    def at(self, part: slice) -> "WeightKind":
        """The Jacobians of some of the samples, which follow one another."""

    def pull_pieces(self, W: Float[Tensor, "k b *y"]) -> list[Float[Tensor, "k b _"]]:
        """``Jᵀ W`` in pieces that follow one another, such as weight and bias, where a kind has them apart."""
        return [self.pull(W)]

    def pull_into(self, W: Float[Tensor, "k b *y"], targets: list[Float[Tensor, "k b _"]]) -> None:
        """Write ``Jᵀ W`` into tensors that follow one another, one for each parameter; outside of graphs only."""
        pieces = self.pull_pieces(W)
        if len(pieces) != len(targets):
            pieces = list(torch.cat(pieces, -1).split([target.shape[-1] for target in targets], -1))
        for target, piece in zip(targets, pieces, strict=True):
            target.copy_(piece)

    def pull_squared_summed(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k p"]:
        """``Σ_b (J_b∘J_b)ᵀ w_b``."""

        def term(part: slice) -> Tensor:
            return self.at(part).pull_squared_layerwise(w[:, part]).sum(1)

        total = added_up(over_chunks(self._parts(), term))
        return w.new_zeros(len(w), self.signature.n_in) if total is None else total

    def pull_diag_summed(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """``Σ_b Σ_k J_bᵀ W_kb ∘ J_bᵀ V_kb``."""

        def term(part: slice) -> Tensor:
            w = W[:, part]
            return self.at(part).pull_diag(w, w if V is W else V[:, part]).sum(0)

        total = added_up(over_chunks(self._parts(), term))
        return W.new_zeros(self.signature.n_in) if total is None else total

    def pull_scaled_summed(self, c: Float[Tensor, "k b"], W: Float[Tensor, "k b *y"]) -> Float[Tensor, " p"]:
        """``Σ_b Σ_k c_kb (J_bᵀ W_kb)²``, by entries."""
        return self.pull_diag_summed(times(c, W), W)

    def pull_outer_summed(self, W: Float[Tensor, "k b *y"], V: Float[Tensor, "k b *y"]) -> Float[Tensor, "p p"]:
        """``Σ_b J_bᵀ (Σ_k W_kb V_kbᵀ) J_b``."""
        tiles = [(k, part) for k in self._tangents(len(W)) for part in self._parts(k.stop - k.start)]

        def term(tile: tuple[slice, slice]) -> Tensor:
            own = self.at(tile[1])
            left = own.pull(W[tile]).flatten(0, 1)
            right = left if V is W else own.pull(V[tile]).flatten(0, 1)
            return left.T @ right

        total = added_up(over_chunks(tiles, term))
        return W.new_zeros(self.signature.n_in, self.signature.n_in) if total is None else total

    def cross_gram(
        self, W: Float[Tensor, "k b *y"], other: "WeightKind", V: Float[Tensor, "l c *z"]
    ) -> Float[Tensor, "b k c l"]:
        """``⟨J_bᵀ W_kb, J'_cᵀ V_lc⟩`` between all samples of two batches that the same weights serve."""
        if W.shape[1] * V.shape[1] * len(W) * len(V) == 0:
            return W.new_zeros(W.shape[1], len(W), V.shape[1], len(V))
        columns = other._tangents(len(V))
        others = other._parts(columns[0].stop)
        right = other._pulling(V, [(k, c) for k in columns for c in others])
        tangents = self._tangents(len(W))

        def rows(part: slice) -> Tensor:
            here = self.at(part)
            found = []
            for some in tangents:
                left = here.pull(W[some, part])
                tiles = [[torch.einsum("kbp,lcp->bkcl", left, right(k, c)) for k in columns] for c in others]
                found.append(torch.cat([torch.cat(of_part, 3) for of_part in tiles], 2))
            return torch.cat(found, 1)

        return torch.cat(list(over_chunks(self._parts(tangents[0].stop), rows)))

    def cross_diag(
        self, W: Float[Tensor, "k b *y"], other: "WeightKind", V: Float[Tensor, "k c *z"]
    ) -> Float[Tensor, "k b c"]:
        """``⟨J_bᵀ W_kb, J'_cᵀ V_kc⟩``: the products of cotangents of the same number only."""
        if W.shape[1] * V.shape[1] * len(W) == 0:
            return W.new_zeros(len(W), W.shape[1], V.shape[1])
        stacks = [(some, some.stop - some.start) for some in self._tangents(len(W))]
        right = other._pulling(V, [(some, c) for some, k in stacks for c in other._parts(k)])
        tiles = [(some, k, part) for some, k in stacks for part in self._parts(k)]

        def row(tile: tuple[slice, int, slice]) -> Tensor:
            some, k, part = tile
            left = right(some, part) if other is self and V is W else self.at(part).pull(W[some, part])
            return torch.cat([left @ right(some, c).mT for c in other._parts(k)], 2)

        found = over_chunks(tiles, row)
        return torch.cat([torch.cat([next(found) for _ in self._parts(k)], 1) for _, k in stacks])

    def _tangents(self, k: int) -> list[slice]:
        """Slices of a stack: as many as may be pulled to the weights of one sample at a time."""
        return list(SUMS.slices(k, self._weight_bytes))

    def _parts(self, k: int = 1) -> list[slice]:
        """Slices of the batch: as many samples as k cotangents may be pulled for, and never the whole batch."""
        b = self.signature.batch
        return list(Budget(min(-(-b // 4), SUMS.rows(k * self._weight_bytes))).slices(b))

    @property
    def _weight_bytes(self) -> int:
        return self.signature.n_in * self.signature.dtype.itemsize

    def _pulling(self, W: Tensor, tiles: list[tuple[slice, slice]]) -> Callable[[slice, slice], Float[Tensor, "k b p"]]:
        """Pulls tiles of a stack, some tangents of some samples; at once if all together are small."""

        def pull(tangents: slice, part: slice) -> Tensor:
            return self.at(part).pull(W[tangents, part])

        if not SUMS.fits(W.shape[:2].numel(), self._weight_bytes):
            return pull
        held = {(tangents.start, part.start): pull(tangents, part) for tangents, part in tiles}
        return lambda tangents, part: held[tangents.start, part.start]


@dataclass(frozen=True, eq=False)
class SampleSlice(WeightKind):
    """Some samples of a Jacobian of any kind: the others get zeros, and their answers are dropped.

    Args:
        J: the Jacobian of all samples.
        part: first of the samples, and the one behind the last.
    """

    J: Jacobian
    part: tuple[int, int]
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        start, stop = self.part
        object.__setattr__(self, "signature", replace(self.J.signature, batch=stop - start))

    def at(self, part: slice) -> "SampleSlice":
        """Some of these samples."""
        start, stop, _ = part.indices(self.signature.batch)
        if isinstance(self.J, Reshape):  # the same for every sample
            return SampleSlice(Reshape(replace(self.signature, batch=stop - start)), (0, stop - start))
        return SampleSlice(self.J, (self.part[0] + start, self.part[0] + stop))

    def push(self, T: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """``J T``."""
        return self._own(self.J.push(self._among_all(T)))

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``Jᵀ W``."""
        return self._own(self.J.pull(self._among_all(W)))

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b p"]:
        """``(J∘J)ᵀ w`` as the kind propagates diagonals."""
        return self._own(self.J.pull_squared_layerwise(self._among_all(w)))

    def second(self, T: Float[Tensor, "k b p"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """As of the whole batch."""
        start, stop = self.part
        return self.J.second(self._among_all(T), self._among_all(w.unsqueeze(0)).squeeze(0))[start:stop]

    def second_push(self, T: Float[Tensor, "k b p"], S: Float[Tensor, "k b p"]) -> Float[Tensor, "k b *y"]:
        """As of the whole batch."""
        return self._own(self.J.second_push(self._among_all(T), self._among_all(S)))

    def _among_all(self, stack: Tensor) -> Tensor:
        start, stop = self.part
        b = self.J.signature.batch
        if (start, stop) == (0, b):
            return stack
        before, after = (stack.new_zeros(len(stack), n, *stack.shape[2:]) for n in (start, b - stop))
        return torch.cat([before, stack, after], 1)

    def _own(self, stack: Tensor) -> Tensor:
        return stack[:, self.part[0] : self.part[1]]


def as_weight_kind(J: Jacobian) -> WeightKind:
    """A Jacobian with respect to a layer's weights, with what samples can do together."""
    return J if isinstance(J, WeightKind) else SampleSlice(J, (0, J.signature.batch))
