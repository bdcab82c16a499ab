"""How tensors of different shapes meet in elementwise operations."""

from torch import Tensor

from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.kinds.linear_map import LinearMap, Reshape
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable
from pullgeo.jacobian.tracing.tape import Tape


def aligned(argument: Recorded, value: Tensor) -> tuple[int, ...]:
    """The shape in which a tangent of one sample of an argument broadcasts against one sample of the result.

    Raises:
        Untraceable: samples of the argument would meet another dimension than the batch.
    """
    shape = tuple(argument.shape)
    if argument.state.per_sample:
        if argument.ndim != value.ndim:
            raise Untraceable(f"broadcasts a batch of shape {shape} to {tuple(value.shape)}, which moves the batch")
        return shape[1:]
    if argument.ndim > value.ndim or (argument.ndim == value.ndim and shape[0] != 1):
        raise Untraceable(f"broadcasts a parameter of shape {shape} along the batch of {tuple(value.shape)}")
    shape = shape[1:] if argument.ndim == value.ndim else shape
    return (1,) * (value.ndim - 1 - len(shape)) + shape


def scaled(tape: Tape, argument: Recorded, value: Tensor, factor: Tensor | float | int = 1.0) -> Jacobian:
    """The derivative of ``factor ∘ argument`` with respect to the argument, broadcast to the shape of ``value``.

    Args:
        tape: where the argument comes from.
        argument: of the result.
        value: the result.
        factor: a number, or a tensor that broadcasts to the result's shape.
    """
    shape = aligned(argument, value)
    signature = tape.signature(argument, value)
    if isinstance(factor, Tensor):
        factor = factor.to(value.dtype)
    if shape == signature.out_shape and argument.state.per_sample:
        if isinstance(factor, Tensor):
            return Elementwise(factor.expand_as(value))
        if factor == 1.0:
            return Reshape(signature)
    return LinearMap(
        signature,
        forward=lambda T: spread(T, shape, factor, signature.out_shape),
        backward=lambda W: gathered(W, shape, factor, signature.in_shape),
        forward_squared=lambda v: spread(v, shape, factor * factor, signature.out_shape),
        backward_squared=lambda w: gathered(w, shape, factor * factor, signature.in_shape),
    )


def spread(T: Tensor, shape: tuple[int, ...], factor: Tensor | float | int, out_shape: tuple[int, ...]) -> Tensor:
    """``factor ∘ T``, repeated where T's shape has ones."""
    return (T.reshape(*T.shape[:2], *shape) * factor).expand(*T.shape[:2], *out_shape)


def gathered(W: Tensor, shape: tuple[int, ...], factor: Tensor | float | int, in_shape: tuple[int, ...]) -> Tensor:
    """The adjoint of `spread`: ``factor ∘ W``, summed where T was repeated."""
    return summed_to(W * factor, shape).reshape(*W.shape[:2], *in_shape)


def summed_to(W: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A stack summed over the dimensions of its samples along which ``shape`` has ones."""
    repeated = [i + 2 for i, size in enumerate(shape) if size == 1 and W.shape[i + 2] != 1]
    return W.sum(repeated, keepdim=True) if repeated else W
