"""Operations that lay out the elements of a sample in another way."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pullgeo._torch.torch_names import Function, functions_named
from pullgeo.jacobian.kinds.linear_map import LinearMap, Reshape, stacked
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.ops.adjoint import adjoint
from pullgeo.jacobian.tracing.proxy import Origin, Recorded, State, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Tape

_MOVED = "moves the batch from the first dimension"


def reshaped(tape: Tape, input: Recorded, value: Tensor) -> Recorded:
    """Record that the elements of every sample are those of the argument, in their order.

    Raises:
        Untraceable: samples are cut or glued.
    """
    if value.ndim == 0 or len(value) != tape.batch or math.prod(value.shape[1:]) != math.prod(input.shape[1:]):
        raise Untraceable(f"reshapes {tuple(input.shape)} to {tuple(value.shape)}, which cuts or glues samples")
    return tape.emit(value, [(input, Reshape(tape.signature(input, value)))], view_of=input)


def selected(
    tape: Tape, input: Recorded, select: Callable[[Tensor], Tensor], *, view: bool = True, value: Tensor | None = None
) -> Recorded:
    """Record that every element of the result is an element of the same sample, or zero.

    Args:
        tape: where the argument comes from.
        input: the argument.
        select: acts alike on every sample of a batch of any size.
        view: whether the result shares memory with the argument.
        value: the result, where it is not ``select(input)`` but has constants in place of the zeros.
    """
    value = select(plain(input)) if value is None else value
    forward, backward = stacked(select), adjoint(select, tuple(input.shape[1:]))
    J = LinearMap(tape.signature(input, value), forward, backward, forward, backward)
    return tape.emit(value, [(input, J)], view_of=input if view else None)


def dimension(input: Tensor, dim: int) -> int:
    """The position of a dimension that is not the batch, counted from the front.

    Raises:
        Untraceable: it is the batch.
    """
    position = dim % max(1, input.ndim)
    if position == 0:
        raise Untraceable("acts along the batch")
    return position


def _register_reshape(name: str) -> None:
    (method,) = functions_named(f"Tensor.{name}")

    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        return reshaped(tape, input, method(plain(input), *plain(args), **plain(kwargs)))


for _name in ("reshape", "view", "flatten", "unflatten", "squeeze", "view_as", "reshape_as", "ravel"):
    _register_reshape(_name)


@operation("unsqueeze")
def unsqueeze(tape: Tape, input: Recorded, dim: int) -> Any:
    """A new dimension of size one, also in front of the batch, as first states of recurrent layers have it."""
    if dim % (input.ndim + 1) == 0 and tape.batch != 1:
        behind: Any = input.unsqueeze(1)
        return reordered(tape, behind, (1, 0, *range(2, behind.ndim)))
    return reshaped(tape, input, plain(input).unsqueeze(dim))


def _register_permutation(name: str) -> None:
    (method,) = functions_named(f"Tensor.{name}")

    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        return permuted(tape, input, lambda t: method(t, *args, **kwargs))


def permuted(tape: Tape, input: Recorded, permute: Callable[[Tensor], Tensor]) -> Recorded:
    """Record an exchange of dimensions. Where the batch does not stay in front, few operations take the result."""
    # distinct sizes tell which dimension went where
    order = [size - 1 for size in permute(torch.empty(*range(1, input.ndim + 1), device="meta")).shape]
    return reordered(tape, input, order)


def reordered(tape: Tape, input: Recorded, order: Sequence[int]) -> Recorded:
    """The dimensions of a tensor in another order."""
    origin = input.state.origin
    if origin is not None:
        return reordered(tape, origin.base, [origin.order[i] for i in order])
    value = plain(input).permute(*order)
    if order[0] != 0:
        state = State(value, None, True, input.state.family, _MOVED, Origin(input, tuple(order)))
        input.state.family.members += 1
        return Recorded.of(tape, state)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    there, back = _behind_stack(order), _behind_stack(inverse)
    J = LinearMap(tape.signature(input, value), there, back, there, back)
    return tape.emit(value, [(input, J)], view_of=input)


def _behind_stack(order: Sequence[int]) -> Function:
    dims = (0, *(i + 1 for i in order))
    return lambda T: T.permute(dims)


_ATTRIBUTES = tuple(f"{letter}.__get__" for letter in ("mT", "T", "mH", "H"))
PERMUTATIONS = ("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", *_ATTRIBUTES)
for _name in PERMUTATIONS:
    _register_permutation(_name)


def _register_same(name: str) -> None:
    (method,) = functions_named(f"Tensor.{name}")

    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        value = method(plain(input), *plain(args), **plain(kwargs))
        if isinstance(value, str):
            return value  # type() without arguments
        if value.is_complex():
            raise Untraceable("computes with complex numbers")
        if not value.is_floating_point():
            return value.detach()
        return input if value is plain(input) else reshaped(tape, input, value)


for _name in ("contiguous", "to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda"):
    _register_same(_name)


@operation("clone")
def clone(tape: Tape, input: Recorded, *, memory_format: Any = torch.preserve_format) -> Any:
    """``input`` in memory of its own."""
    value = plain(input).clone(memory_format=memory_format)
    return tape.emit(value, [(input, Reshape(tape.signature(input, value)))])
