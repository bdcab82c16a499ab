"""Operations on parameters alone, whose result is the same for every sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from pullgeo._torch.equal_values import spreading
from pullgeo._torch.plain_memory import unshared
from pullgeo._torch.substitutes import SUBSTITUTES, is_foreign
from pullgeo._torch.torch_names import Function, functions_named
from pullgeo._torch.transforms import vjp
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.autodiff import Autodiff, Map, differentiable_kernels
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tangents import over_stack, tangent
from pullgeo.jacobian.tracing.operations import name_of, writes_in_place
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain, recorded_in
from pullgeo.jacobian.tracing.tape import Tape


@dataclass(frozen=True, eq=False)
class SharedAutodiff(Jacobian):
    """The derivative of a function of a parameter: one map for all samples, whose tangents differ by sample."""

    function: Map
    value: Float[Tensor, "*x"]
    signature: Signature

    def push(self, T: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """``J T``. Cost: one evaluation and k b tangents."""
        if T.shape[0] * T.shape[1] == 0:
            return T.new_zeros(*T.shape[:2], *self.signature.out_shape)
        with differentiable_kernels():
            value = self.value.view_as(self.value)
            moved = over_stack(lambda t: tangent(self.function, value, t), T.flatten(0, 1))
        return moved.unflatten(0, T.shape[:2])

    def pull(self, W: Float[Tensor, "k b *y"]) -> Float[Tensor, "k b *x"]:
        """``Jᵀ W``. Cost: one evaluation and k b cotangents."""
        if W.shape[0] * W.shape[1] == 0:
            return W.new_zeros(*W.shape[:2], *self.signature.in_shape)
        with differentiable_kernels():
            pullback = vjp(self.function, self.value.view_as(self.value))[1]
            moved = over_stack(lambda w: pullback(w)[0], W.flatten(0, 1))
        return moved.unflatten(0, W.shape[:2])

    def second(self, T: Float[Tensor, "k b *x"], w: Float[Tensor, "b *y"]) -> Float[Tensor, "b k k"]:
        """As of the function repeated for every sample."""
        return self._repeated.second(T, w)

    def second_push(self, T: Float[Tensor, "k b *x"], S: Float[Tensor, "k b *x"]) -> Float[Tensor, "k b *y"]:
        """As of the function repeated for every sample."""
        return self._repeated.second_push(T, S)

    @property
    def _repeated(self) -> Autodiff:
        repeated = unshared(self.value.expand(self.signature.batch, *self.value.shape))
        return Autodiff(vmap(self.function), repeated, self.signature)


def shared(tape: Tape, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record any function of parameters.

    Raises:
        Untraceable: the function writes in place, is an operator that transforms do not know, or decomposes a matrix
            with equal values.
    """
    if is_foreign(function):
        raise Untraceable(f"{function} is an operator from outside of torch")
    if writes_in_place(function):
        raise Untraceable(f"{name_of(function)} writes into what is computed of parameters alone")
    function = SUBSTITUTES.get(function, function)
    operands = list({id(operand): operand for operand in recorded_in((args, kwargs))}.values())
    with spreading() as found:
        result = function(*plain(args), **plain(kwargs))
    if found.met:
        raise Untraceable("decomposes a matrix with equal values, of whose parts alone derivatives have no limits")

    def note(piece: Tensor, pick: Callable[[Any], Tensor], per_sample: bool = False) -> Any:
        if piece.is_complex():
            raise Untraceable("computes complex numbers of its parameters")
        if not piece.is_floating_point():
            return piece
        shape = tuple(piece.shape[1:] if per_sample else piece.shape)

        def derivative(operand: Recorded) -> Jacobian:
            def of_one(value: Tensor) -> Tensor:
                return pick(function(*_with(args, operand, value), **_with(kwargs, operand, value)))

            signature = Signature(tape.batch, tuple(operand.shape), shape, piece.dtype, piece.device)
            return SharedAutodiff(of_one, unshared(operand.state.value), signature)

        return tape.emit(piece, [(operand, derivative(operand)) for operand in operands], per_sample=per_sample)

    if isinstance(result, Tensor):
        if function in _REPETITIONS and _repeats_over_batch(tape, operands[0], result):
            return note(result, lambda y: y[0], per_sample=True)
        return note(result, lambda y: y)
    if isinstance(result, tuple | list):
        return tuple(note(piece, lambda y, i=i: y[i]) for i, piece in enumerate(result))  # type: ignore[misc]
    return result


_REPETITIONS = frozenset(
    function for name in ("expand", "expand_as", "broadcast_to", "repeat", "tile") for function in functions_named(name)
)


def _repeats_over_batch(tape: Tape, operand: Recorded, result: Tensor) -> bool:
    """Whether the first dimension of a repeated parameter can only be the batch, and not one that it had before."""
    grown = operand.ndim < result.ndim or operand.shape[0] == 1
    return grown and tape.batch != 1 and result.ndim > 0 and len(result) == tape.batch


def _with(argument: Any, operand: Recorded, value: Tensor) -> Any:
    """The same nested arguments with a value in place of one recorded tensor, and their own values for the others."""
    if argument is operand:
        return value
    if isinstance(argument, tuple | list):
        return type(argument)(_with(item, operand, value) for item in argument)
    if isinstance(argument, dict):
        return {key: _with(item, operand, value) for key, item in argument.items()}
    return plain(argument)
