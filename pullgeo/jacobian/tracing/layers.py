"""Layers with a rule of their own: the leaves of a graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.jacobian.registry import rule_for, weight_rule_for
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Argument, Tape
from pullgeo.jacobian.weights.partial import restricted
from pullgeo.jacobian.weights.weight_graph import ParameterBlock


def leaf(tape: Tape, input: Recorded, y: Tensor, J: Jacobian, own: ParameterBlock | None = None) -> Recorded:
    """Record what a rule returned."""
    if y is plain(input) and own is None:
        return input
    view = input if isinstance(J, Reshape) else None
    return tape.emit(y, [(input, J)], view_of=view, own=own)


def check_batch(module: nn.Module, input: Tensor) -> None:
    """Raise where torch takes a batch without channels for one sample, and so mixes what are samples to us.

    Raises:
        CoupledSamplesError: the batch would stand for the channels.
    """
    dims = len(module.kernel_size) + 1 if isinstance(module, _ConvNd) else 3 if isinstance(module, nn.Softmax2d) else 0
    if input.ndim == dims:
        raise CoupledSamplesError(
            f"Jacobian: {module} takes the first of {dims} dimensions for the channels of a single sample, so the "
            f"samples of {tuple(input.shape)} are coupled. Insert the dimension of the channels: x.unsqueeze(1)."
        )


def by_rule(tape: Tape, input: Tensor, module: nn.Module) -> Recorded:
    """Record a layer without parameters that stands for a function.

    Raises:
        Untraceable: it has no rule, or is not applied to a batch.
    """
    found = rule_for(module)
    if found is None or not isinstance(input, Recorded) or not input.state.per_sample:
        raise Untraceable(f"{type(module).__name__} of what is no batch, or without a rule")
    return leaf(tape, input, *found(module, plain(input)))


def by_rules(tape: Tape, input: Any, module: nn.Module, parameters: dict[str, Any]) -> Recorded:
    """Record a layer that stands for a function of an input and parameters.

    Args:
        tape: where the arguments come from.
        input: a batch.
        module: of the class whose rules to use, with its settings.
        parameters: what it is called with in place of parameters of its own, in their order; ``None`` for one that it
            does not have.

    Raises:
        Untraceable: there is no rule, or a parameter depends on the sample.
        CoupledSamplesError: the module would mix the samples.
    """
    given = [p for p in parameters.values() if p is not None]
    if not isinstance(input, Recorded) or any(isinstance(p, Recorded) and p.state.per_sample for p in given):
        raise Untraceable(f"{type(module).__name__} with parameters that depend on the sample")
    check_batch(module, input)
    for name, value in parameters.items():
        module._parameters.pop(name)
        setattr(module, name, plain(value))
    arguments: list[Argument] = []
    own: ParameterBlock | None = None
    if any(isinstance(p, Recorded) for p in given):
        of_parameters = weight_rule_for(module)
        if of_parameters is None:
            raise Untraceable(f"{type(module).__name__} has no rule for its parameters")
        J = of_parameters(module, plain(input))
        own = _own(tape, given, J)
        if own is None:
            arguments.append((torch.cat([p.reshape(-1) for p in given]), J))  # type: ignore[arg-type]
    if not input.is_floating_point():
        y = module.forward(plain(input))
    else:
        found = rule_for(module)
        if found is None:
            raise Untraceable(f"{type(module).__name__} has no rule")
        y, J = found(module, plain(input))
        arguments.append((input, J))
    return tape.emit(y, arguments, own=own)


def _own(tape: Tape, given: Sequence[Any], J: Jacobian) -> ParameterBlock | None:
    """The parameters themselves, where nothing was computed of them before; the others are held fixed."""
    found = [tape.source(p) for p in given if isinstance(p, Recorded)]
    chosen = tuple(parameter for parameter in found if parameter is not None)
    if len(chosen) < len(found):
        return None
    if len(chosen) == len(given):
        return ParameterBlock(None, chosen, J)
    sources = iter(chosen)
    every = [next(sources) if isinstance(p, Recorded) else p for p in given]
    return ParameterBlock(None, chosen, restricted(J, every, chosen))
