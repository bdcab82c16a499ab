"""Sums, products and quotients, with broadcasting."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pullgeo.jacobian.kinds.graph import Bilinear
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.ops.alignment import aligned, scaled, spread, summed_to
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Tape


@operation("add", "__radd__", "__iadd__")
def add(tape: Tape, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """``input + alpha other``."""
    value = torch.add(plain(input), plain(other), alpha=alpha) if alpha != 1 else plain(input) + plain(other)
    return _linear(tape, value, (input, 1.0), (other, float(alpha)))


@operation("sub", "subtract", "__isub__")
def sub(tape: Tape, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """``input - alpha other``."""
    return _linear(tape, plain(input) - alpha * plain(other), (input, 1.0), (other, -float(alpha)))


@operation("rsub", "__rsub__")
def rsub(tape: Tape, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """``other - alpha input``."""
    return sub(tape, other, input, alpha=alpha)


@operation("neg", "negative", "__neg__")
def neg(tape: Tape, input: Recorded) -> Any:
    """``-input``."""
    return _linear(tape, -plain(input), (input, -1.0))


@operation("positive", "__pos__")
def positive(tape: Tape, input: Recorded) -> Any:
    """``input`` itself."""
    return input


@operation("mul", "multiply", "__rmul__", "__imul__")
def mul(tape: Tape, input: Any, other: Any) -> Any:
    """``input ∘ other``."""
    value = plain(input) * plain(other)
    if input is other:
        return input.square()
    if not (isinstance(input, Recorded) and isinstance(other, Recorded)):
        argument, factor = (input, other) if isinstance(input, Recorded) else (other, input)
        return _linear(tape, value, (argument, factor))
    left, right, out = aligned(input, value), aligned(other, value), tuple(value.shape[1:])
    product = Bilinear(
        product=lambda T, S: spread(T, left, spread(S, right, 1.0, out), out),
        pull_left=lambda w, S: summed_to(spread(S, right, w, out), left).reshape(*S.shape[:2], *_sample(input)),
    )
    edges = [
        (input, scaled(tape, input, value, other.state.value)),
        (other, scaled(tape, other, value, input.state.value)),
    ]
    return tape.emit(value, edges, product)


@operation("div", "divide", "true_divide", "__truediv__", "__itruediv__", "__div__", "__idiv__")
def div(tape: Tape, input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """``input / other``."""
    if rounding_mode is not None:
        raise Untraceable(f"div rounds by {rounding_mode}")
    if isinstance(other, Recorded):
        return input * other.reciprocal()
    return _linear(tape, plain(input) / other, (input, 1.0 / other))


@operation("__rdiv__", "__rtruediv__")
def rdiv(tape: Tape, input: Recorded, other: Any) -> Any:
    """``other / input``."""
    return other * input.reciprocal()


@operation("addcmul")
def addcmul(tape: Tape, input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Any:
    """``input + value tensor1 ∘ tensor2``."""
    return input + value * (tensor1 * tensor2)


@operation("addcdiv")
def addcdiv(tape: Tape, input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1) -> Any:
    """``input + value tensor1 / tensor2``."""
    return input + value * (tensor1 / tensor2)


@operation("lerp")
def lerp(tape: Tape, input: Tensor, end: Tensor, weight: Any) -> Any:
    """``input + weight (end - input)``."""
    return input + weight * (end - input)


@operation("where")
def where(tape: Tape, condition: Tensor, input: Any, other: Any) -> Any:
    """``input`` where the condition holds, ``other`` elsewhere."""
    if isinstance(condition, Recorded):
        raise Untraceable("where chooses by recorded integers")
    value = torch.where(condition, plain(input), plain(other))
    chosen = condition.to(value.dtype)
    return _linear(tape, value, (input, chosen), (other, 1 - chosen))


@operation("masked_fill")
def masked_fill(tape: Tape, input: Any, mask: Tensor, value: Any) -> Any:
    """``value`` where the mask holds, ``input`` elsewhere."""
    return where(tape, mask, value, input)


@operation("maximum")
def maximum(tape: Tape, input: Tensor, other: Tensor) -> Any:
    """The larger of each pair; where they are equal both count half, as in torch."""
    return _choice(tape, torch.maximum, input, other)


@operation("minimum")
def minimum(tape: Tape, input: Tensor, other: Tensor) -> Any:
    """The smaller of each pair; where they are equal both count half, as in torch."""
    return _choice(tape, torch.minimum, input, other)


def _choice(tape: Tape, choose: Callable[[Tensor, Tensor], Tensor], input: Tensor, other: Tensor) -> Any:
    left, right = plain(input), plain(other)
    value = choose(left, right)
    chosen = (value == left).to(value.dtype)
    chosen = torch.where(left == right, chosen / 2, chosen)
    return _linear(tape, value, (input, chosen), (other, 1 - chosen))


def _linear(tape: Tape, value: Tensor, *terms: tuple[Any, Any]) -> Any:
    """The sum of arguments times factors."""
    edges = [(argument, scaled(tape, argument, value, f)) for argument, f in terms if isinstance(argument, Recorded)]
    return tape.emit(value, edges)


def _sample(argument: Recorded) -> tuple[int, ...]:
    return tuple(argument.shape[1:] if argument.state.per_sample else argument.shape)
