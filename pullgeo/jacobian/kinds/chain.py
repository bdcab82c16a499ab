"""Composition: one Jacobian after another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import Move, Reshape
from pullgeo.jacobian.signature import Signature
from pullgeo.numerics.chunking import working_set


@dataclass(frozen=True, eq=False)
class Chain(Jacobian):
    """``J = J_L ⋯ J_2 J_1``; the stages stand in the order in which data flows, ``J_1`` first.

    Nothing is multiplied together: stacks travel from stage to stage, as many tangents at a time as a cache holds.
    """

    stages: tuple[Jacobian, ...]
    signature: Signature = field(init=False)

    def __post_init__(self) -> None:
        first, last = self.stages[0].signature, self.stages[-1].signature
        signature = Signature(last.batch, first.in_shape, last.out_shape, last.dtype, last.device)
        object.__setattr__(self, "signature", signature)

    def _kind(self) -> str:
        return f"Chain[{', '.join(stage._kind() for stage in self.stages)}]"

    @cached_property
    def item_bytes(self) -> int:
        """As of the widest stage."""
        return max([stage.item_bytes for stage in self.stages])

    def push_basis(self) -> Float[Tensor, "n_in b *y"]:
        """The first stage's own, pushed on; in chunks, as others are, where they are larger than a cache."""
        if not self._stays_in_cache(self.signature.n_in):
            return super().push_basis()
        return self._push(self.stages[0].push_basis(), self.stages[1:])

    def push_jet_of_basis(self, u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]) -> Float[Tensor, "n b *y"]:
        """The first stage's own, pushed on."""
        X = self.stages[0].push_jet_of_basis(u, w)
        for stage in self.stages[1:]:
            X = stage.push_jet(X, u, w)
        return X

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J_L ⋯ J_1 T``, in chunks that stay in cache on their way."""
        return self._in_chunks(self._push, T)

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``J_1ᵀ ⋯ J_Lᵀ W``, in chunks that stay in cache on their way."""
        return self._in_chunks(self._pull, W)

    def push_squared_layerwise(self, v: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``(J_L∘J_L) ⋯ (J_1∘J_1) v``."""
        for stage in self.stages:
            v = stage.push_squared_layerwise(v)
        return v

    def pull_squared_layerwise(self, w: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``(J_1∘J_1)ᵀ ⋯ (J_L∘J_L)ᵀ w``."""
        for stage in reversed(self.stages):
            w = stage.pull_squared_layerwise(w)
        return w

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """``Σ_l A_lᵀ ∂²_l[δ_l] A_l``: ``A_l`` the tangents pushed to stage l, ``δ_l`` the cotangent pulled there."""
        return self.push_with_second(T, w)[1]

    def push_with_second(
        self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]
    ) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "b k k"]]:
        """One backward sweep of the cotangent, then one forward sweep in which each stage's tangents serve at once."""
        deltas = [w.unsqueeze(0)]
        for stage in reversed(self.stages[1:]):
            deltas.append(stage.pull(deltas[-1]))
        total = T.new_zeros(T.shape[1], len(T), len(T))
        for stage, delta in zip(self.stages, reversed(deltas), strict=True):
            if stage.is_linear:
                T = stage.push(T)
            else:
                T, second_order = stage.push_with_second(T, delta.squeeze(0))
                total = total + second_order
        return T, total

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """One forward sweep of ``(T, S, C)`` with ``C ← J_l C + ∂²_l[T, S]``."""
        C: Tensor | None = None
        for stage in self.stages:
            C = None if C is None else stage.push(C)
            if not stage.is_linear:
                second_order = stage.second_push(T, S)
                C = second_order if C is None else C + second_order
            same = S is T
            T = stage.push(T)
            S = T if same else stage.push(S)
        return torch.zeros_like(T) if C is None else C

    def push_jet(
        self, X: Float[Tensor, "m b *x"], u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]
    ) -> Float[Tensor, "n b *y"]:
        """One forward sweep: no direction is pushed besides the tangents that it is combined of."""
        for stage in self.stages:
            X = stage.push_jet(X, u, w)
        return X

    def _push(self, T: Tensor, stages: Sequence[Jacobian] | None = None) -> Tensor:
        for stage in self.stages if stages is None else stages:
            T = stage.push(T)
        return T

    def _pull(self, W: Tensor) -> Tensor:
        for stage in reversed(self.stages):
            W = stage.pull(W)
        return W

    def _stays_in_cache(self, k: int) -> bool:
        return working_set(self.signature.device).fits(k, self.item_bytes)

    def _in_chunks(self, move: Move, stack: Tensor) -> Tensor:
        if self._stays_in_cache(stack.shape[0]) and stack.shape[1] <= self.signature.batch:
            return move(stack)
        s = self.signature
        shapes = [s.in_shape, *[stage.signature.out_shape for stage in self.stages]]
        widest = max([math.prod(shape) for shape in shapes])
        parts = list(working_set(s.device).slices(len(stack), widest * stack.shape[1] * stack.element_size()))
        return torch.cat([move(stack[part]) for part in parts]) if len(parts) > 1 else move(stack)


def compose(stages: list[Jacobian]) -> Jacobian:
    """The composition of stages in data-flow order; nested chains are laid flat and needless reshapes dropped."""
    flat: list[Jacobian] = []
    for stage in stages:
        flat.extend(stage.stages if type(stage) is Chain else [stage])
    essential = [s for s in flat if not (type(s) is Reshape and s.signature.in_shape == s.signature.out_shape)]
    essential = essential or flat[:1]
    return essential[0] if len(essential) == 1 else Chain(tuple(essential))
