"""Recurrent layers and their cells."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import _VF, Tensor, nn

from pullgeo._torch.transforms import transformed
from pullgeo.jacobian.kinds.autodiff import differentiable_kernels
from pullgeo.jacobian.kinds.gates import Gated, Gates, LongShort, Simple, Weights
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
    parts = 2 if isinstance(module, nn.LSTMCell) else 1
    start = _start(tape, module, input, [None] * parts if hx is None else list(hx) if parts == 2 else [hx])
    gates = _gates(module, "", plain(input).unsqueeze(0), plain(start[0]).unsqueeze(0), None, plain(start[-1]), (0,))
    shown = _shown(tape, gates, input, start, (0,))
    h = gates.values.squeeze(0)
    return shown("state", h) if parts == 1 else shown("state", torch.cat([h, _memory(gates)], 1)).chunk(2, 1)


def _layers(tape: Tape, module: nn.RNNBase, input: Tensor, hx: Any) -> Any:
    if module.proj_size > 0 or (module.dropout > 0 and module.training and module.num_layers > 1):
        raise Untraceable("a recurrent layer with projections or dropout")
    x = input if module.batch_first else _in_front(input)
    if x.ndim != 3 or (isinstance(x, Recorded) and x.state.origin is not None):
        raise Untraceable("a recurrent layer of something else than a batch of sequences")
    parts = 2 if isinstance(module, nn.LSTM) else 1
    directions = 2 if module.bidirectional else 1
    given = [None] * parts if hx is None else list(hx) if parts == 2 else [hx]
    starts = [None if part is None else _in_front(part) for part in given]
    lasts: list[list[Tensor]] = [[] for _ in range(parts)]
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            i = layer * directions + direction
            start = _start(tape, module, x, [None if part is None else part[:, i] for part in starts])
            y, last = _run(tape, module, f"_l{layer}{'_reverse' * direction}", x, start, backwards=direction == 1)
            outputs.append(y)
            for states, state in zip(lasts, last, strict=True):
                states.append(state)
        x = outputs[0] if directions == 1 else torch.cat(outputs, 2)
    ends = tuple(_behind(tape, torch.stack(states, 1)) for states in lasts)
    y = x if module.batch_first else _behind(tape, x)
    return y, ends if parts == 2 else ends[0]


def _run(
    tape: Tape, module: nn.RNNBase, suffix: str, x: Tensor, start: list[Tensor], backwards: bool
) -> tuple[Tensor, list[Tensor]]:
    """The output of one layer in one direction, and its last state."""
    order = range(x.shape[1])[:: -1 if backwards else 1]
    inputs, first = plain(x).transpose(0, 1), plain(start[0])
    values = _values(module, suffix, inputs, plain(start), backwards)
    earlier = [first.unsqueeze(0), values[1:] if backwards else values[:-1]]
    before = torch.cat(earlier[:: -1 if backwards else 1])
    gates = _gates(module, suffix, inputs, before, values, plain(start[-1]), order)
    shown = _shown(tape, gates, x, start, order)
    y = shown("values", values.transpose(0, 1))
    last = [y[:, order[-1]]]
    return y, last if len(start) == 1 else [*last, shown("memory", _memory(gates))]


def _values(module: nn.RNNBase, suffix: str, x: Tensor, start: list[Tensor], backwards: bool) -> Tensor:
    """The hidden states after all steps, by torch's own loop."""
    weights = [weight for weight in _weights(module, suffix) if weight is not None]
    state = [part.unsqueeze(0) for part in start]
    settings = (weights, bool(module.bias), 1, 0.0, False, False, False)
    layer = getattr(_VF, module.mode.lower())
    with differentiable_kernels() if torch.is_grad_enabled() or transformed() else nullcontext():
        y: Tensor = layer(x.flip(0) if backwards else x, state if len(state) == 2 else state[0], *settings)[0]
    return y.flip(0) if backwards else y


def _weights(module: Any, suffix: str) -> list[Tensor | None]:
    return [getattr(module, f"{name}{suffix}", None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def _gates(
    module: nn.Module,
    suffix: str,
    x: Tensor,
    before: Tensor,
    values: Tensor | None,
    memory: Tensor,
    order: Sequence[int],
) -> Gates:
    weights = Weights(*_weights(module, suffix))  # type: ignore[arg-type]
    if isinstance(module, nn.GRU | nn.GRUCell):
        return Gated(weights, x, before, values)
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        return LongShort(weights, x, before, values, memory, order)
    return Simple(weights, x, before, values, cast(nn.RNN, module).nonlinearity == "relu")


def _memory(gates: Gates) -> Tensor:
    return cast(LongShort, gates).memory


def _shown(
    tape: Tape, gates: Gates, x: Tensor, start: list[Tensor], order: Sequence[int]
) -> Callable[[Shown, Tensor], Tensor]:
    """A function that records values of a layer, or gives them back where nothing that they depend on is recorded."""
    names: tuple[Part, ...] = ("input", "hidden", "memory")
    arguments = zip(names, (x, *start), strict=False)
    varying = {name: tensor for name, tensor in arguments if isinstance(tensor, Recorded) and _varies(tensor)}
    if not varying:
        return lambda what, value: value
    pieces = list(varying.values())
    argument: Any = pieces[0] if len(pieces) == 1 else torch.cat([_vector(piece) for piece in pieces], 1)

    def shown(what: Shown, value: Tensor) -> Tensor:
        J = Recurrence(gates, tuple(varying), what, order, tape.signature(argument, value))
        return tape.emit(value, [(argument, J)])

    return shown


def _vector(piece: Tensor) -> Tensor:
    return piece if piece.ndim == 2 else piece.flatten(1)


def _varies(tensor: Recorded) -> bool:
    return tensor.state.node is not None


def _start(tape: Tape, module: Any, x: Tensor, given: Sequence[Tensor | None]) -> list[Tensor]:
    """The first state, zero where none is given.

    Raises:
        Untraceable: one does not fit, of which the module speaks.
    """
    zero = plain(x).new_zeros(tape.batch, module.hidden_size)
    start = [zero if part is None else part for part in given]
    if any(part.shape != zero.shape for part in start):
        raise Untraceable("a recurrent layer with a first state of another shape")
    if any(isinstance(part, Recorded) and not part.state.per_sample for part in start):
        raise Untraceable("a recurrent layer with a first state of parameters")
    return start


def _in_front(tensor: Any) -> Any:
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
