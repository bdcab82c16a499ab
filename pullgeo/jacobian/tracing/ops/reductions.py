"""Sums and means over dimensions of the samples, and what else acts along them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pullgeo._torch.torch_names import functions_named
from pullgeo.jacobian.kinds.autodiff import Autodiff
from pullgeo.jacobian.kinds.linear_map import LinearMap
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.ops.reshaping import dimension
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Tape


class Extremes(NamedTuple):
    """What ``max`` and ``min`` along a dimension return."""

    values: Tensor
    indices: Tensor


def differentiated(tape: Tape, input: Recorded, function: Callable[[Tensor], Tensor]) -> Recorded:
    """Record a function that acts on every sample by itself, with its derivative by automatic differentiation."""
    x = plain(input)
    value = function(x)
    return tape.emit(value, [(input, Autodiff(function, x, tape.signature(input, value)))])


def joint(tape: Tape, inputs: Sequence[Recorded], function: Callable[..., Tensor]) -> Recorded:
    """Record a function of several batches that acts on every sample by itself.

    The arguments are put into one vector for each sample, so that automatic differentiation gives all mixed second
    derivatives with the others.
    """
    if not all(input.state.per_sample and input.is_floating_point() for input in inputs):
        raise Untraceable("a function of parameters and samples together")
    shapes = [tuple(input.shape[1:]) for input in inputs]
    sizes = [torch.Size(shape).numel() for shape in shapes]
    vectors = [input.reshape(tape.batch, size) for input, size in zip(inputs, sizes, strict=True)]
    vector = vectors[0] if len(vectors) == 1 else torch.cat(vectors, 1)

    def of_vector(v: Tensor) -> Tensor:
        pieces = zip(v.split(sizes, 1), shapes, strict=True)
        return function(*(piece.reshape(len(v), *shape) for piece, shape in pieces))

    return differentiated(tape, vector, of_vector)  # type: ignore[arg-type]


def positions(input: Tensor, dim: Any) -> list[int]:
    """The dimensions that are reduced, none of them the batch.

    Raises:
        Untraceable: the batch is among them.
    """
    dims = [dim] if isinstance(dim, int) and not isinstance(dim, bool) else dim
    if not isinstance(dims, tuple | list) or not dims:
        raise Untraceable("reduces over all dimensions, the batch included")
    return [dimension(input, d) for d in dims]


@operation("sum")
def sum_(tape: Tape, input: Recorded, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The sum over dimensions."""
    return _reduced(tape, input, plain(input).sum(positions(input, dim), keepdim, dtype=dtype), dim, 1.0)


@operation("mean")
def mean(tape: Tape, input: Recorded, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The mean over dimensions."""
    dims = positions(input, dim)
    count = torch.Size([input.shape[d] for d in dims]).numel()
    return _reduced(tape, input, plain(input).mean(dims, keepdim, dtype=dtype), dim, 1 / max(1, count))


def _reduced(tape: Tape, input: Recorded, value: Tensor, dim: Any, factor: float) -> Recorded:
    dims = [d + 1 for d in positions(input, dim)]
    kept = [1 if d + 1 in dims else size for d, size in enumerate(input.shape)][1:]
    signature = tape.signature(input, value)

    def forward(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda T: factor * T.sum(dims).reshape(*T.shape[:2], *signature.out_shape)

    def backward(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda W: factor * W.reshape(*W.shape[:2], *kept).expand(*W.shape[:2], *signature.in_shape)

    squared = factor * factor
    J = LinearMap(signature, forward(factor), backward(factor), forward(squared), backward(squared))
    return tape.emit(value, [(input, J)])


@operation("max")
def max_(tape: Tape, input: Recorded, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest entries along a dimension and where they are, or the larger of two tensors."""
    return _extremes(tape, torch.max, torch.maximum, input, dim if other is None else other, keepdim)


@operation("min")
def min_(tape: Tape, input: Recorded, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest entries along a dimension and where they are, or the smaller of two tensors."""
    return _extremes(tape, torch.min, torch.minimum, input, dim if other is None else other, keepdim)


def _extremes(
    tape: Tape, along: Callable[..., Any], of_two: Callable[..., Any], input: Recorded, dim: Any, keepdim: bool
) -> Any:
    if isinstance(dim, Tensor):
        return of_two(input, dim)
    (position,) = positions(input, dim)
    values = differentiated(tape, input, lambda t: along(t, position, keepdim)[0])
    return Extremes(values, along(plain(input), position, keepdim)[1])


def _register(name: str, place: int, default: Any = None) -> None:
    """A function whose dimensions are its argument at a place after the input."""
    function = functions_named(name)[0]

    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        positions(input, kwargs.get("dim", args[place] if len(args) > place else default))
        return differentiated(tape, input, lambda t: function(t, *args, **kwargs))


def _register_pair(name: str, place: int) -> None:
    """A function that also returns where it found its values, along the last dimension unless told otherwise."""
    function = functions_named(name)[0]

    @operation(name)
    def record(tape: Tape, input: Recorded, *args: Any, **kwargs: Any) -> Any:
        positions(input, kwargs.get("dim", args[place] if len(args) > place else -1))
        values = differentiated(tape, input, lambda t: function(t, *args, **kwargs)[0])
        return Extremes(values, function(plain(input), *args, **kwargs)[1])


_ALONG = ("amax", "amin", "prod", "logsumexp", "var", "std", "cumsum", "cumprod", "logcumsumexp", "nansum", "nanmean")
for _name in _ALONG:
    _register(_name, place=0)
for _name in ("norm", "linalg.vector_norm", "linalg.norm"):
    _register(_name, place=1)
_register("F.normalize", place=1, default=1)
_register_pair("sort", place=0)
_register_pair("topk", place=1)
_register_pair("kthvalue", place=1)
