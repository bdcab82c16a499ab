"""Recurrent layers: tangents and cotangents that travel from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.jacobian.base import Jacobian, add_second_order
from pullgeo.jacobian.contractions import combined, flat, gram
from pullgeo.jacobian.kinds.gates import Gates, State, Term
from pullgeo.jacobian.signature import Signature

Part = Literal["input", "hidden", "memory"]
"""The sequence of inputs, and the parts of the first state."""

Shown = Literal["values", "memory", "state"]
"""The hidden state after every step, the last memory of an LSTM, or all parts of the last state side by side."""

States = dict[int, State]
"""Tangents or cotangents of a state by the step, ``(k, b, h)`` for each part."""


@dataclass(frozen=True, eq=False)
class Recurrence(Jacobian):
    """The derivative of a recurrent layer in one direction: one sweep over the steps for a whole stack.

    What does not depend on the state, the products of tangents with the weights of the input, is done for all steps at
    once; a step is one matrix product and a few operations on its entries.

    Args:
        gates: what the cell did at each step.
        varying: what is differentiated; samples hold the parts one behind the other where there are several.
        shown: what the layer returns.
        order: the steps in the order in which they are taken.
        signature: shapes of both.
    """

    gates: Gates
    varying: tuple[Part, ...]
    shown: Shown
    order: Sequence[int]
    signature: Signature

    @property
    def item_bytes(self) -> int:
        """As of the pre-activations of all steps."""
        return max(super().item_bytes, self.gates.coefficients.numel() * self.signature.dtype.itemsize)

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``. Cost: that of the layer for k samples in place of each."""
        return self._shown(self._followed(T)[1])

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``, backwards through time."""
        deltas, first = self._followed_back(W)
        found = {"input": self.gates.inputs(deltas) if "input" in self.varying else None}
        found.update(zip(("hidden", "memory"), first, strict=False))
        if found["input"] is not None:
            found["input"] = found["input"].movedim(0, 2)
        pieces = [flat(found[part]) for part in self.varying]  # type: ignore[arg-type]
        pulled = pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)
        return pulled.reshape(*W.shape[:2], *self.signature.in_shape)

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """The sum over steps of their second derivatives, at the tangents and the cotangent that arrive there."""
        return self.push_with_second(T, w)[1]

    def push_with_second(
        self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]
    ) -> tuple[Float[Tensor, "k b *y"], Float[Tensor, "b k k"]]:
        """One sweep backwards of the cotangent and one forwards of the tangents."""
        deltas = self._followed_back(w.unsqueeze(0))[0]
        before, after = self._followed(T)
        total = T.new_zeros(T.shape[1], len(T), len(T))
        for part, a, left, right in self._terms(T, _over_time(before), _over_time(after)):
            mixed = gram((a * deltas[part] * left).movedim(0, 2), right.movedim(0, 2))
            total = total + mixed + mixed.mT
        return self._shown(after), total

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """A sweep whose sources are the second derivatives of the steps."""
        of_T = self._terms(T, *map(_over_time, self._followed(T)))
        of_S = of_T if S is T else self._terms(S, *map(_over_time, self._followed(S)))
        return self._swept(of_T, of_S, T)

    def push_jet(
        self, X: Float[Tensor, "m b *x"], u: Float[Tensor, "l b k"], w: Float[Tensor, "l b k"]
    ) -> Float[Tensor, "n b *y"]:
        """One sweep of all tangents, whose combinations are those of the directions, and one of second derivatives."""
        k = u.shape[2]
        before, after = self._followed(X)
        pushed = self._shown(after)
        stacks = _over_time(before), _over_time(after)

        def along(c: Tensor) -> list[Term]:
            states = [tuple(_combined(part[:, :k], c) for part in stack) for stack in stacks]
            return self._terms(combined(X[:k], c), *states)

        of_u = along(u)
        if not of_u:
            return pushed
        return add_second_order(pushed, k, self._swept(of_u, of_u if w is u else along(w), X[:1]))

    def _followed(self, T: Tensor) -> tuple[States, States]:
        """Tangents of the states before and after each step."""
        dx = self._part(T, "input")
        sources = self._nothing(T) if dx is None else self.gates.sources(dx)
        first = [self._part(T, name) for name in ("hidden", "memory")[: self.gates.parts]]
        zero = T.new_zeros(*T.shape[:2], self._width)
        return self._swept_from(tuple(zero if part is None else part for part in first), sources)

    def _swept_from(self, state: State, sources: State) -> tuple[States, States]:
        steps = [part.unbind(0) for part in sources]
        before: States = {}
        after: States = {}
        for t in self.order:
            before[t] = state
            after[t] = state = self.gates.step(t, state, tuple(part[t] for part in steps))
        return before, after

    def _followed_back(self, W: Tensor) -> tuple[State, State]:
        """Cotangents of the state after each step, and of the first state."""
        last = self.order[-1]
        zero = W.new_zeros(*W.shape[:2], self._width)
        carried: State = (zero,) * self.gates.parts
        arriving: tuple[Tensor, ...] | None = None
        if self.shown == "values":
            arriving = W.unbind(2)
        elif self.shown == "memory":
            carried = (zero, W)
        else:
            carried = tuple(W.split(self._width, 2))
        deltas: States = {}
        for t in reversed(self.order):
            if arriving is not None:
                carried = (arriving[t] if t == last else arriving[t] + carried[0], *carried[1:])
            deltas[t], carried = self.gates.back(t, carried)
        return _over_time(deltas), carried

    def _terms(self, T: Tensor, before: State, after: State) -> list[Term]:
        return self.gates.terms(self._part(T, "input"), before, after)

    def _swept(self, left: list[Term], right: list[Term], like: Tensor) -> Tensor:
        """Second derivatives of the last states, from the terms of two directions."""
        k = left[0][2].shape[1] if left else len(like)
        sources = list(self._nothing(like[:1].expand(k, *like.shape[1:])))
        for (part, a, l_T, r_T), (_, _, l_S, r_S) in zip(left, right, strict=True):
            sources[part] = sources[part] + a * (l_T * r_S + r_T * l_S)
        zero = like.new_zeros(k, like.shape[1], self._width)
        return self._shown(self._swept_from((zero,) * self.gates.parts, tuple(sources))[1])

    def _nothing(self, T: Tensor) -> State:
        zero = T.new_zeros(()).expand(len(self.order), *T.shape[:2], self._width)
        return (zero,) * self.gates.parts

    def _shown(self, after: States) -> Tensor:
        if self.shown == "values":
            return torch.stack([after[t][0] for t in range(len(after))], 2)
        last = after[self.order[-1]]
        return last[1] if self.shown == "memory" else torch.cat(last, 2)

    def _part(self, T: Tensor, name: str) -> Tensor | None:
        """Tangents of one part, ``(t, k, b, f)`` of the input and ``(k, b, h)`` of a state; ``None`` if it is fixed."""
        if name not in self.varying:
            return None
        states = (len(self.varying) - ("input" in self.varying)) * self._width
        start = 0 if name == "input" else self.signature.n_in - states
        if name == "memory" and "hidden" in self.varying:
            start += self._width
        length = self.signature.n_in - states if name == "input" else self._width
        piece = flat(T).narrow(2, start, length)
        return piece.unflatten(2, (len(self.order), -1)).movedim(2, 0) if name == "input" else piece

    @property
    def _width(self) -> int:
        return self.gates.width


def _combined(stack: Float[Tensor, "t k b h"], u: Float[Tensor, "l b k"]) -> Float[Tensor, "t l b h"]:
    return torch.einsum("tkbh,lbk->tlbh", stack, u)


def _over_time(states: States) -> State:
    """States of all steps, ``(t, k, b, h)`` for each part."""
    return tuple(torch.stack(parts) for parts in zip(*(states[t] for t in range(len(states))), strict=True))
