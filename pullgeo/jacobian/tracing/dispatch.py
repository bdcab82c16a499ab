"""From a function of torch to the operation that records it."""

from typing import Any

import torch
from torch import Tensor

from pullgeo._torch.torch_names import Function
from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.tracing.operations import (
    CONSTANT,
    METADATA,
    RANDOM,
    READING,
    name_of,
    operation_for,
    writes_in_place,
)
from pullgeo.jacobian.tracing.ops.moved import is_moved, on_moved
from pullgeo.jacobian.tracing.parameters import shared
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain, recorded_in
from pullgeo.jacobian.tracing.tape import Tape


def dispatch(tape: Tape, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute a function of recorded tensors and note it on the tape.

    Raises:
        Untraceable: the function is unknown, or called in an unknown way.
        CoupledSamplesError: it draws random numbers.
    """
    if tape.closed or function in METADATA:
        return function(*plain(args), **plain(kwargs))
    if (
        tape.outermost
        and tape.of_weights
        and any(_is_foreign(tape, argument) for argument in (*args, *kwargs.values()))
    ):
        raise Untraceable("uses a parameter, or what is computed of one, that its own module does not hand out")
    if tape.outermost and not torch.is_grad_enabled():
        return _without_gradient(tape, function, args, kwargs)
    return tape.computing(lambda: _compute(tape, function, args, kwargs))


def _without_gradient(tape: Tape, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What the module computes where it has switched gradients off: a constant, as in torch."""
    tape.stop()
    if writes_in_place(function):
        raise Untraceable(f"{name_of(function)} writes in place under torch.no_grad")
    return function(*plain(args), **plain(kwargs))


def _compute(tape: Tape, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    operands = recorded_in((args, kwargs))
    for operand in operands:
        if is_moved(operand) and function not in CONSTANT:
            return on_moved(tape, function, args, kwargs)
    for operand in operands:
        if operand.state.refusal is not None and not is_moved(operand):
            raise Untraceable(operand.state.refusal)
    if function in CONSTANT:
        result = function(*plain(args), **plain(kwargs))
        return result.detach() if isinstance(result, Tensor) else result
    if function in RANDOM:
        raise CoupledSamplesError(
            f"Jacobian: the module calls {name_of(function)}, which draws anew at every call, so the map is not "
            "fixed. Call module.eval() first, or let the module take its noise as part of its input."
        )
    if True not in [operand.state.per_sample for operand in operands]:
        return shared(tape, function, args, kwargs)
    operation = operation_for(function)
    if function in READING:
        raise Untraceable(f"{name_of(function)} reads values, on which control flow may depend")
    if operation is None:
        raise Untraceable(f"{name_of(function)} is not among the operations that graphs know")
    result = operation(tape, *args, **kwargs)
    return tape.write(args[0], result) if writes_in_place(function) else result


def _is_foreign(tape: Tape, argument: Any) -> bool:
    """Whether a tensor that is not recorded may depend on a parameter that is differentiated."""
    if not isinstance(argument, Tensor) or isinstance(argument, Recorded) or not argument.requires_grad:
        return False
    if argument.grad_fn is None:  # a leaf: of the parameters only those that are held fixed may be used as they are
        return id(argument) not in tape.fixed
    return not _rests_on(argument, tape.fixed)


def _rests_on(tensor: Tensor, ids: frozenset[int]) -> bool:
    """Whether all leaves of a tensor's graph are among some tensors, given by their ids."""
    waiting, met = [tensor.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in ids:
            return False
        waiting.extend(parent for parent, _ in node.next_functions)
    return True
