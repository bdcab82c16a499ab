"""Recurrent layers and their cells."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pullgeo.jacobian.kinds.gates import Gated, Gates, LongShort, Simple, State, Weights
from pullgeo.jacobian.kinds.recurrence import Part, Recurrence, Shown
from pullgeo.jacobian.registry import forward_owner
from pullgeo.jacobian.tracing.ops.reshaping import reordered
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Tape

_LAYERS = (nn.RNN, nn.GRU, nn.LSTM)
_CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module runs the ``forward`` of one of torch's recurrent layers or cells."""
    return isinstance(module, (*_LAYERS, *_CELLS)) and forward_owner(type(module)) in (*_LAYERS, *_CELLS)


def recurrent(tape: Tape, module: nn.Module, input: Any, hx: Any = None) -> Any:
    """What a recurrent layer or cell returns, recorded.

    Raises:
        Untraceable: its weights are differentiated, or it is called or set up in a way that is not known here.
    """
    if tape.counts(module):
        raise Untraceable("its parameters have no rule")
    if not isinstance(input, Tensor):
        raise Untraceable("a recurrent layer of packed sequences")
    if isinstance(module, nn.RNNCellBase):
        return tape.computing(lambda: _cell(tape, module, input, hx))
    return tape.computing(lambda: _layers(tape, cast(nn.RNNBase, module), input, hx))


def _cell(tape: Tape, module: nn.RNNCellBase, input: Tensor, hx: Any) -> Any:
    if input.ndim != 2:
        raise Untraceable("a cell of something else than a batch of vectors")
    long = isinstance(module, nn.LSTMCell)
    first = [None] if hx is None else list(hx) if long else [hx]
    start = _start(tape, module, input, first, 2 if long else 1)
    run = _Run(tape, module, "", input.unsqueeze(1), start, [0])
    if not long:
        return run.shown("state", run.gates.last[0])
    return run.shown("state", torch.cat(run.gates.last, 1)).chunk(2, 1)


def _layers(tape: Tape, module: nn.RNNBase, input: Tensor, hx: Any) -> Any:
    if module.proj_size > 0 or (module.dropout > 0 and module.training and module.num_layers > 1):
        raise Untraceable("a recurrent layer with projections or dropout")
    x = _in_front(tape, input) if not module.batch_first else input
    if x.ndim != 3 or (isinstance(x, Recorded) and x.state.origin is not None):
        raise Untraceable("a recurrent layer of something else than a batch of sequences")
    parts = 2 if isinstance(module, nn.LSTM) else 1
    directions = 2 if module.bidirectional else 1
    given = [None] * parts if hx is None else list(hx) if parts == 2 else [hx]
    starts = [None if part is None else _in_front(tape, part) for part in given]
    lasts: list[list[Tensor]] = [[] for _ in range(parts)]
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            i = layer * directions + direction
            start = _start(tape, module, x, [None if part is None else part[:, i] for part in starts], parts)
            order = range(x.shape[1])[:: 1 - 2 * direction]
            run = _Run(tape, module, f"_l{layer}{'_reverse' * direction}", x, start, order)
            values = run.shown("values", run.gates.values)  # type: ignore[attr-defined]
            outputs.append(values)
            lasts[0].append(values[:, order[-1]])
            if parts == 2:
                lasts[1].append(run.shown("memory", run.gates.last[1]))
        x = outputs[0] if directions == 1 else torch.cat(outputs, 2)
    states = tuple(_behind(tape, torch.stack(last, 1)) for last in lasts)
    y = x if module.batch_first else _behind(tape, x)
    return y, states if parts == 2 else states[0]


class _Run:
    """One layer in one direction, computed, from which derivatives of what it returns are recorded."""

    def __init__(
        self, tape: Tape, module: nn.Module, suffix: str, x: Tensor, start: Sequence[Tensor], order: Sequence[int]
    ) -> None:
        names = (f"weight_ih{suffix}", f"weight_hh{suffix}", f"bias_ih{suffix}", f"bias_hh{suffix}")
        weights = Weights(*(getattr(module, name, None) for name in names))  # type: ignore[arg-type]
        self.tape, self.order = tape, order
        self.gates = _gates(module, weights, plain(x), tuple(map(plain, start)), order)
        tensors: dict[Part, Tensor] = {"input": x, **dict(zip(("hidden", "memory"), start, strict=False))}  # type: ignore[dict-item]
        varying = {
            part: tensor
            for part, tensor in tensors.items()
            if isinstance(tensor, Recorded) and tensor.state.node is not None
        }
        self.parts = tuple(varying)
        pieces = list(varying.values())
        self.argument = torch.cat([piece.flatten(1) for piece in pieces], 1) if len(pieces) > 1 else [*pieces, None][0]

    def shown(self, what: Shown, value: Tensor) -> Tensor:
        """A value of the layer, recorded if anything that it depends on is."""
        if self.argument is None:
            return value
        argument = cast(Recorded, self.argument)
        J = Recurrence(self.gates, self.parts, what, self.order, self.tape.signature(argument, value))
        return self.tape.emit(value, [(argument, J)])


def _gates(module: nn.Module, weights: Weights, x: Tensor, start: State, order: Sequence[int]) -> Gates:
    if isinstance(module, nn.GRU | nn.GRUCell):
        return Gated(weights, x, start, order)
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return LongShort(weights, x, start, order)
    return Simple(weights, x, start, order, cast(nn.RNN, module).nonlinearity == "relu")


def _start(tape: Tape, module: Any, x: Tensor, given: Sequence[Tensor | None], parts: int) -> list[Tensor]:
    """The first state, zero where none is given.

    Raises:
        Untraceable: one does not fit, of which the module speaks.
    """
    zero = plain(x).new_zeros(tape.batch, module.hidden_size)
    start = [zero if part is None else part for part in (given if len(given) == parts else [None] * parts)]
    if len(given) not in (1, parts) or any(part.shape != zero.shape for part in start):
        raise Untraceable("a recurrent layer with a first state of another shape")
    if any(isinstance(part, Recorded) and not part.state.per_sample for part in start):
        raise Untraceable("a recurrent layer with a first state of parameters")
    return start


def _in_front(tape: Tape, tensor: Any) -> Any:
    """A tensor whose second dimension is the batch, with this in front.

    Raises:
        Untraceable: it has the batch elsewhere.
    """
    if not isinstance(tensor, Tensor) or tensor.ndim != 3:
        raise Untraceable("a recurrent layer with a state of other dimensions")
    if isinstance(tensor, Recorded) and tensor.state.origin is None:
        if tensor.shape[:2] != (1, 1):
            raise Untraceable("a recurrent layer that takes the batch for another dimension")
        return tensor  # of a single sample
    return tensor.transpose(0, 1)


def _behind(tape: Tape, tensor: Tensor) -> Tensor:
    """The first dimension exchanged with the second."""
    return reordered(tape, tensor, (1, 0, 2)) if isinstance(tensor, Recorded) else tensor.transpose(0, 1)
