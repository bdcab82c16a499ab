"""The cells of recurrent layers at every step of every sample: value, derivative and second derivative.

A cell takes its state and an input to the next state. To first order that is a linear recursion, whose coefficients are
numbers for each sample, step and hidden unit, and two matrices that all of them share. States are tuples: ``(h,)``, or
``(h, c)`` of an LSTM. Time comes first, so that what belongs to a step lies together in memory. Letters: b samples, t
steps, h hidden units, g gates, k tangents.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

State = tuple[Tensor, ...]
"""A state, or tangents or cotangents of it: one tensor for each part."""

Term = tuple[int, Tensor, Tensor, Tensor]
"""``(part, a, l, r)``, which adds ``a (l_T r_S + r_T l_S)`` to the second derivative of a part of the next state."""


@dataclass(frozen=True)
class Weights:
    """Weights of one layer in one direction, as torch has them: gates one below the other."""

    input: Float[Tensor, "gh f"]
    hidden: Float[Tensor, "gh h"]
    input_bias: Float[Tensor, " gh"] | None
    hidden_bias: Float[Tensor, " gh"] | None


class Gates(ABC):
    """What a cell did at each step, which is all that its derivatives depend on.

    Where the hidden states of all steps are known, the gates of all steps are computed at once. Classes take the input
    ``(t, b, f)``, the hidden state before each step, and that after it, or ``None``, ``(t, b, h)``.
    """

    parts: ClassVar[int] = 1
    """How many parts a state has."""

    weights: Weights
    values: Float[Tensor, "t b h"]
    """The hidden state after each step."""

    coefficients: Float[Tensor, "t b g h"]
    """How each gate's hidden pre-activation moves the next state."""

    @abstractmethod
    def sources(self, dx: Float[Tensor, "t k b f"]) -> State:
        """What tangents of the input add to the next state at every step, ``(t, k, b, h)`` for each part."""

    @abstractmethod
    def step(self, t: int, state: State, source: State) -> State:
        """The tangent of the next state."""

    @abstractmethod
    def back(self, t: int, delta: State) -> tuple[State, State]:
        """From what the steps behind say of a state: its whole cotangent, and that of the state before."""

    @abstractmethod
    def inputs(self, deltas: State) -> Float[Tensor, "t k b f"]:
        """The cotangent of the input at every step, from those of the next states."""

    @abstractmethod
    def terms(self, dx: Tensor | None, before: State, after: State) -> list[Term]:
        """The second derivatives of the steps, at tangents of the input and of the states around each of them."""

    @property
    def width(self) -> int:
        """h."""
        return self.coefficients.shape[3]

    def _gates(self, moved: Tensor) -> Float[Tensor, "*k g h"]:
        return moved.reshape(*moved.shape[:-1], *self.coefficients.shape[2:])

    def _by_input(self, dx: Tensor) -> Float[Tensor, "t k b g h"]:
        return self._gates(dx @ self.weights.input.mT)

    def _by_hidden(self, dh: Tensor) -> Float[Tensor, "t k b g h"]:
        return self._gates(dh @ self.weights.hidden.mT)


class Simple(Gates):
    """``h' = φ(W x + U h + b)`` with φ the hyperbolic tangent or the rectifier: `torch.nn.RNN`."""

    def __init__(self, weights: Weights, x: Tensor, before: Tensor, values: Tensor | None, rectified: bool) -> None:
        if values is None:
            a = F.linear(x, weights.input, weights.input_bias) + F.linear(before, weights.hidden, weights.hidden_bias)
            values = a.relu() if rectified else a.tanh()
        self.weights, self.values, self.rectified = weights, values, rectified
        slope = (values > 0).to(values.dtype) if rectified else 1 - values.square()
        self.coefficients = slope.unsqueeze(2)
        self._slopes = slope.unbind(0)

    def sources(self, dx: Tensor) -> State:
        """``φ' W dx``."""
        return (self.coefficients.squeeze(2).unsqueeze(1) * (dx @ self.weights.input.mT),)

    def step(self, t: int, state: State, source: State) -> State:
        """``φ' U dh``, with the source."""
        return (torch.addcmul(source[0], self._slopes[t], state[0] @ self.weights.hidden.mT),)

    def back(self, t: int, delta: State) -> tuple[State, State]:
        """``Uᵀ φ' δ``."""
        return delta, ((self._slopes[t] * delta[0]) @ self.weights.hidden,)

    def inputs(self, deltas: State) -> Tensor:
        """``Wᵀ φ' δ``."""
        return (self.coefficients.squeeze(2).unsqueeze(1) * deltas[0]) @ self.weights.input

    def terms(self, dx: Tensor | None, before: State, after: State) -> list[Term]:
        """``φ'' da da``."""
        if self.rectified:
            return []
        h, a = self.values.unsqueeze(1), self._by_hidden(before[0])
        a = (a if dx is None else a + self._by_input(dx)).squeeze(3)
        return [(0, -h * (1 - h.square()), a, a)]


class Gated(Gates):
    """``r, z = σ(…)``, ``n = tanh(W x + c + r (U h + b))``, ``h' = (1 - z) n + z h``: `torch.nn.GRU`.

    Source: Cho et al., EMNLP 2014, in the variant of cuDNN.
    """

    def __init__(self, weights: Weights, x: Tensor, before: Tensor, values: Tensor | None) -> None:
        width = before.shape[-1]
        by_x = F.linear(x, weights.input, weights.input_bias).split([2 * width, width], -1)
        by_h = F.linear(before, weights.hidden, weights.hidden_bias).split([2 * width, width], -1)
        gates = torch.sigmoid(by_x[0] + by_h[0])
        self._r, self._z = r, z = gates.chunk(2, -1)
        self._q, self._before = q, _ = by_h[1], before
        self._n = n = torch.addcmul(by_x[1], r, q).tanh()
        change = before - n
        self.weights, self.values = weights, torch.addcmul(n, z, change) if values is None else values
        slope_r, slope_z = _slope(gates).chunk(2, -1)
        by_n = (1 - z) * (1 - n.square())
        by_r, by_z = by_n * q * slope_r, change * slope_z
        self.coefficients = torch.stack([by_r, by_z, by_n * r], 2)
        self._of_inputs = torch.stack([by_r, by_z, by_n], 2)
        self._steps = self.coefficients.flatten(2).unbind(0)
        self._kept = z.unbind(0)

    def sources(self, dx: Tensor) -> State:
        """What the gates do with ``W dx``."""
        return ((self._of_inputs.unsqueeze(1) * self._by_input(dx)).sum(3),)

    def step(self, t: int, state: State, source: State) -> State:
        """``z dh``, and what the gates do with ``U dh``."""
        (dh,) = state
        r, z, n = (self._steps[t] * (dh @ self.weights.hidden.mT)).chunk(3, 2)
        return (torch.addcmul(source[0], self._kept[t], dh) + r + z + n,)

    def back(self, t: int, delta: State) -> tuple[State, State]:
        """The transpose."""
        moved = (self._steps[t] * delta[0].repeat(1, 1, 3)) @ self.weights.hidden
        return delta, (torch.addcmul(moved, self._kept[t], delta[0]),)

    def inputs(self, deltas: State) -> Tensor:
        """The transpose of the sources."""
        return (self._of_inputs.unsqueeze(1) * deltas[0].unsqueeze(3)).flatten(3) @ self.weights.input

    def terms(self, dx: Tensor | None, before: State, after: State) -> list[Term]:
        """With ``m`` the argument of the tangent, ``dm = u + q r' da_r + r dq`` and ``e = dh - n' dm``."""
        r, z, n, q, h = (gate.unsqueeze(1) for gate in (self._r, self._z, self._n, self._q, self._before))
        a_r, a_z, dq = self._by_hidden(before[0]).unbind(3)
        dm = r * dq
        if dx is not None:
            u_r, u_z, u_n = self._by_input(dx).unbind(3)
            a_r, a_z, dm = a_r + u_r, a_z + u_z, dm + u_n
        dm = dm + q * _slope(r) * a_r
        slope, kept = 1 - n.square(), 1 - z
        e = before[0] - slope * dm
        return [
            (0, -kept * n * slope, dm, dm),
            (0, 0.5 * kept * slope * q * _bend(r), a_r, a_r),
            (0, kept * slope * _slope(r), a_r, dq),
            (0, 0.5 * (h - n) * _bend(z), a_z, a_z),
            (0, _slope(z), a_z, e),
        ]


class LongShort(Gates):
    """``c' = f c + i g``, ``h' = o tanh c'`` with ``i, f, o = σ(…)`` and ``g = tanh(…)``: `torch.nn.LSTM`.

    Source: Hochreiter, Schmidhuber, Neural Computation 1997, with the gate f of Gers et al., 2000.
    """

    parts = 2

    def __init__(
        self, weights: Weights, x: Tensor, before: Tensor, values: Tensor | None, memory: Tensor, order: Sequence[int]
    ) -> None:
        width = before.shape[-1]
        a = F.linear(x, weights.input, weights.input_bias) + F.linear(before, weights.hidden, weights.hidden_bias)
        a_if, a_g, a_o = a.split([2 * width, width, width], -1)
        gates = a_if.sigmoid()
        self._i, self._f = i, f = gates.chunk(2, -1)
        self._g, self._o = g, o = a_g.tanh(), a_o.sigmoid()
        self._kept, added = f.unbind(0), (i * g).unbind(0)
        memories: dict[int, Tensor] = {}
        remembered: dict[int, Tensor] = {}
        for t in order:
            remembered[t] = memory
            memories[t] = memory = torch.addcmul(added[t], self._kept[t], memory)
        self.memory = memory
        self._before, self._s = _in_time(remembered), _in_time(memories).tanh()
        s = self._s
        self.weights, self.values = weights, o * s if values is None else values
        slope_i, slope_f = _slope(gates).chunk(2, -1)
        self.coefficients = torch.stack([g * slope_i, self._before * slope_f, i * (1 - g.square()), s * _slope(o)], 2)
        self._steps = self.coefficients.flatten(2).unbind(0)
        self._shown = (o * (1 - s.square())).unbind(0)

    def sources(self, dx: Tensor) -> State:
        """What the gates do with ``W dx``."""
        moved = self.coefficients.unsqueeze(1) * self._by_input(dx)
        return moved[:, :, :, 3], moved[:, :, :, :3].sum(3)

    def step(self, t: int, state: State, source: State) -> State:
        """``dc' = f dc + …`` and ``dh' = o (1 - tanh²) dc' + …``."""
        i, f, g, o = (self._steps[t] * (state[0] @ self.weights.hidden.mT)).chunk(4, 2)
        dc = torch.addcmul(source[1], self._kept[t], state[1]) + i + f + g
        return torch.addcmul(source[0] + o, self._shown[t], dc), dc

    def back(self, t: int, delta: State) -> tuple[State, State]:
        """The transpose."""
        by_h, by_c = delta[0], torch.addcmul(delta[1], self._shown[t], delta[0])
        moved = self._steps[t] * torch.cat([by_c, by_c, by_c, by_h], 2)
        return (by_h, by_c), (moved @ self.weights.hidden, self._kept[t] * by_c)

    def inputs(self, deltas: State) -> Tensor:
        """The transpose of the sources."""
        by_h, by_c = deltas
        by_gate = torch.stack([by_c, by_c, by_c, by_h], 3)
        return (self.coefficients.unsqueeze(1) * by_gate).flatten(3) @ self.weights.input

    def terms(self, dx: Tensor | None, before: State, after: State) -> list[Term]:
        """Those of ``c'`` in its gates and ``c``, and those of ``h'`` in o and ``c'``."""
        i, f, g, o, s, c = (part.unsqueeze(1) for part in (self._i, self._f, self._g, self._o, self._s, self._before))
        a = self._by_hidden(before[0])
        a_i, a_f, a_g, a_o = (a if dx is None else a + self._by_input(dx)).unbind(3)
        slope, shown = 1 - g.square(), 1 - s.square()
        return [
            (1, 0.5 * c * _bend(f), a_f, a_f),
            (1, _slope(f), a_f, before[1]),
            (1, 0.5 * g * _bend(i), a_i, a_i),
            (1, _slope(i) * slope, a_i, a_g),
            (1, -i * g * slope, a_g, a_g),
            (0, 0.5 * s * _bend(o), a_o, a_o),
            (0, _slope(o) * shown, a_o, after[1]),
            (0, -o * s * shown, after[1], after[1]),
        ]


def _in_time(found: dict[int, Tensor]) -> Float[Tensor, "t b h"]:
    return torch.stack([found[t] for t in range(len(found))])


def _slope(s: Tensor) -> Tensor:
    """``σ'`` by the value of σ."""
    return s * (1 - s)


def _bend(s: Tensor) -> Tensor:
    """``σ''`` by the value of σ."""
    return s * (1 - s) * (1 - 2 * s)
