"""Operations on tensors whose batch is not in front, as attention has them between two permutations.

Each is done to the tensor that the argument comes from, where the batch is in front, and the result's dimensions are
put into the order that the operation promises. What is not here refuses such tensors.
"""

from collections.abc import Callable
from typing import Any, cast

from pullgeo._torch.torch_names import Function, functions_named
from pullgeo.jacobian.tracing.operations import name_of, operation_for
from pullgeo.jacobian.tracing.ops.reshaping import PERMUTATIONS, reordered
from pullgeo.jacobian.tracing.proxy import Origin, Recorded, Untraceable, recorded_in
from pullgeo.jacobian.tracing.tape import Tape

_served: dict[Function, Function] = {}


def is_moved(operand: Recorded) -> bool:
    """Whether the batch of a tensor is not in front."""
    return operand.state.origin is not None


def on_moved(tape: Tape, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record a function of tensors of which one or more have the batch elsewhere.

    Raises:
        Untraceable: the function takes none of them.
    """
    served = _served.get(function)
    if served is None:
        (first, *_) = filter(is_moved, recorded_in((args, kwargs)))
        raise Untraceable(f"{first.state.refusal}, and {name_of(function)} follows it there in no graph")
    return served(tape, *args, **kwargs)


def _register(*names: str) -> Callable[[Function], Function]:
    def add(record: Function) -> Function:
        for name in names:
            _served.update(dict.fromkeys(functions_named(name), record))
        return record

    return add


def _origin(input: Any) -> Origin:
    if not isinstance(input, Recorded) or input.state.origin is None:
        raise Untraceable("meets a tensor whose batch is not in front")
    return input.state.origin


# these know themselves where a batch may be
for _name in (*PERMUTATIONS, "einsum"):
    for _function in functions_named(_name):
        _served[_function] = cast(Function, operation_for(_function))


@_register("contiguous", "clone")
def same(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
    """The same values in memory of their own; stand-ins have no memory."""
    return input


@_register("mul", "multiply", "__mul__", "__rmul__")
def multiplied(tape: Tape, input: Any, other: Any) -> Any:
    """A tensor times a number."""
    number, tensor = (input, other) if isinstance(input, int | float) else (other, input)
    scaled: Any = _origin(tensor).base * _number(number)
    return reordered(tape, scaled, _origin(tensor).order)


@_register("div", "divide", "true_divide", "__truediv__")
def divided(tape: Tape, input: Any, other: Any) -> Any:
    """A tensor divided by a number."""
    scaled: Any = _origin(input).base / _number(other)
    return reordered(tape, scaled, _origin(input).order)


def _number(value: Any) -> int | float:
    if not isinstance(value, int | float):
        raise Untraceable("combines a tensor whose batch is not in front with another one")
    return value


@_register("select")
def select(tape: Tape, input: Recorded, dim: int, index: int) -> Any:
    """One slice along a dimension that is not the batch."""
    origin = _origin(input)
    position = dim % input.ndim
    taken = origin.order[position]
    if taken == 0:
        raise Untraceable("takes one sample")
    rest = [i - (i > taken) for i in origin.order if i != taken]
    chosen: Any = origin.base.select(taken, index)
    return reordered(tape, chosen, rest)


@_register("unbind")
def unbind(tape: Tape, input: Recorded, dim: int = 0) -> Any:
    """All slices along a dimension."""
    return tuple(select(tape, input, dim, i) for i in range(input.shape[dim]))


@_register("__getitem__")
def getitem(tape: Tape, input: Recorded, index: Any) -> Any:
    """``input[index]`` with numbers and whole dimensions."""
    entries = list(index) if isinstance(index, tuple) else [index]
    if not all(isinstance(e, int) or e is Ellipsis or e == slice(None) for e in entries) or any(
        isinstance(e, bool) for e in entries
    ):
        raise Untraceable("an index into a tensor whose batch is not in front")
    if Ellipsis in entries:
        i = entries.index(Ellipsis)
        entries[i : i + 1] = [slice(None)] * (input.ndim - len(entries) + 1)
    dim, result = 0, cast(Any, input)
    for entry in entries:
        if isinstance(entry, int):
            result = result.select(dim, entry)
        else:
            dim += 1
    return result


def _register_pieces(name: str) -> None:
    """A function ``(input, sizes, dim)`` that cuts along a dimension."""
    function = functions_named(name)[0]

    @_register(name)
    def record(tape: Tape, input: Recorded, sizes: Any, dim: int = 0) -> Any:
        origin = _origin(input)
        pieces = function(origin.base, sizes, origin.order[dim % input.ndim])
        return tuple(reordered(tape, piece, origin.order) for piece in pieces)


for _name in ("chunk", "split", "tensor_split"):
    _register_pieces(_name)
