"""The entry point: the value of a module and its derivative, as a structured linear map."""

from collections.abc import Callable, Hashable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import OutOfMemoryError, Tensor, nn

from pullgeo._torch.guard import Guard
from pullgeo._torch.plain_memory import named, outside_inference, unshared
from pullgeo._torch.state import left_alone
from pullgeo._torch.submodules import all_parameters
from pullgeo._torch.substitutes import has_substitute
from pullgeo.errors import ModuleError, PullgeoError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.boundary import FAILURES, name_of, undifferentiable, value_of
from pullgeo.jacobian.chain_weight import chain_stages
from pullgeo.jacobian.checks import agree, check_batch, check_independence, check_module, check_wrt, checked_value
from pullgeo.jacobian.kinds.autodiff import Autodiff, check_connected, differentiable_kernels, watched
from pullgeo.jacobian.registry import rule_for, weight_rule_for
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tracing.proxy import Untraceable
from pullgeo.jacobian.tracing.trace import record_input, record_weight
from pullgeo.jacobian.weight_run import WeightRun, recorded, run_of
from pullgeo.jacobian.weights.autodiff import AutodiffWeight, Known
from pullgeo.jacobian.weights.parameters import ParameterLayout, check_selection
from pullgeo.jacobian.weights.remembered import described, findings, remember
from pullgeo.jacobian.weights.weight_graph import ParameterBlock, Stage, Stages, WeightGraph, own_of
from pullgeo.typing import Decoder, Parameters


def linearize(
    module: Decoder, x: Tensor, wrt: str = "input", parameters: Parameters = "all"
) -> tuple[Tensor, Jacobian]:
    """``f(x)`` and the derivative ``J = ∂f/∂x`` or ``J = ∂f/∂θ`` at each sample of a batch.

    Args:
        module: a network, or with ``wrt="input"`` any function of a batch that treats samples independently.
        x: a batch of points, ``(b, *x)``. Batches that were made under ``torch.inference_mode`` are copied, and so are
            those whose entries share memory, as after ``expand``.
        wrt: ``"input"`` or ``"weight"``. Weights are one vector of length P, in the order of
            ``torch.nn.utils.parameters_to_vector(module.parameters())``; complex ones count twice, as
            ``torch.view_as_real`` orders them.
        parameters: which of the parameters are the weights, for ``wrt="weight"``: ``"all"``; ``"trainable"`` for those
            that require gradients, as of a network with adapters; names, or patterns such as ``"*.lora_*"``; or a
            function ``(name, parameter) -> bool``. See `ParameterLayout.of`. P counts these, in the order of
            ``module.parameters()``; the others are held fixed, and no work is done for them.

    Returns:
        The value ``(b, *y)`` and a `Jacobian` whose tangents are stacks ``(k, b, *x)`` or ``(k, b, P)``. Layers with
        a rule (see `rule_for`) keep their structure, and so do chains of them and any module whose ``forward`` is made
        of them and of known operations, and any such function, which become a `Graph`; anything else is exact by
        automatic differentiation, with the tangents leading. `explain` tells which it was. What a module computes
        under ``torch.no_grad`` or detaches counts as constant, as in torch.

    Raises:
        OptionError: ``wrt`` or ``parameters`` is something else, or no parameter is chosen.
        ShapeError, DtypeError, DeviceError: ``x`` does not fit the module.
        CoupledSamplesError: the module mixes samples (batch norm in train mode) or is random (dropout in train mode).
        ModuleError: it has no parameters for ``wrt="weight"``, is not materialised, does not return one tensor with a
            row per sample, switches gradients off, or does what torch cannot differentiate. Products raise it too,
            with torch's error as its cause. What the module raises when it is called by itself stays what it is.
        GradModeError: its weights were made under ``torch.inference_mode``.

    Cost: one forward pass; nothing of the Jacobian is multiplied out.

    Example:
        >>> import torch
        >>> from pullgeo import linearize
        >>> f = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> y, J = linearize(f, torch.zeros(3, 2))
        >>> J.push(torch.ones(1, 3, 2)).shape, J.pull(torch.ones(4, 3, 7)).shape
        (torch.Size([1, 3, 7]), torch.Size([4, 3, 2]))
    """
    check_wrt(wrt)
    check_batch(x, wrt)
    x = unshared(outside_inference(x))
    try:
        return _linearized(module, x, wrt, parameters)
    except FAILURES as error:
        if isinstance(error, PullgeoError | OutOfMemoryError):
            raise
        renamed = named(error) if isinstance(error, RuntimeError) else error
        if renamed is not error:
            raise renamed from error
        value_of(_sparing(module), x)  # what the module raises by itself is the caller's own
        raise undifferentiable(module, error) from error


def linearize_again(module: Decoder, x: Tensor) -> tuple[Tensor, Jacobian]:
    """`linearize` for a map that has been linearised before, and that nobody has changed since: it is not checked.

    A batch that the map does not take is refused as `linearize` refuses it.
    """
    try:
        x = unshared(outside_inference(x))
        return linearize_input(module, x) if isinstance(module, nn.Module) else _linearize_function(module, x)
    except FAILURES as error:
        if isinstance(error, OutOfMemoryError):
            raise
        return linearize(module, x)


def _linearized(module: Decoder, x: Tensor, wrt: str, parameters: Parameters) -> tuple[Tensor, Jacobian]:
    check_selection("Jacobian", wrt, parameters)
    if not isinstance(module, nn.Module):
        if wrt == "weight":
            raise ModuleError("Jacobian: wrt='weight' needs a torch.nn.Module; a plain function has no parameters.")
        owner = getattr(module, "__self__", None)
        if isinstance(owner, nn.Module):
            check_module(owner, x, wrt)
        return _linearize_function(module, x)
    if wrt == "input":
        check_module(module, x, wrt)
        return linearize_input(module, x)
    layout = ParameterLayout.of(module, parameters) if all_parameters(module) else None
    check_module(module, x, wrt, None if layout is None else layout.parameters)
    return linearize_weight(module, x, layout or ParameterLayout.of(module))


def linearize_input(module: nn.Module, x: Tensor) -> tuple[Tensor, Jacobian]:
    """`linearize` with respect to the input, for arguments already checked; rules of containers call it on children."""
    if x.is_complex():  # a part of a network; the network around it takes real numbers, and is differentiated whole
        raise ModuleError(f"Jacobian: {type(module).__name__} is applied to {x.dtype}, expected real numbers.")
    found = rule_for(module)
    if found is not None:
        return found(module, x)
    with suppress(Untraceable):
        return record_input(module, x)
    return by_autodiff(module, x)


def _linearize_function(function: Decoder, x: Tensor) -> tuple[Tensor, Jacobian]:
    """A function is recorded as a module is; what goes wrong then is found again, and named, without a recording."""
    try:
        return record_input(function, x)
    except (Untraceable, PullgeoError, *FAILURES) as error:
        if isinstance(error, OutOfMemoryError):
            raise
    return by_autodiff(function, x)


def linearize_weight(module: nn.Module, x: Tensor, layout: ParameterLayout) -> tuple[Tensor, Jacobian]:
    """`linearize` with respect to the weights, for arguments already checked."""
    chain = _chain(module, x, layout)
    run = run_of(module, x, layout) if chain is None else None
    if run is not None and run.trusted:
        y, source = run.y, Stages(partial(_later, run, module, layout))
    else:
        y, stages = _stages(module, x, layout) if chain is None else chain
        source = Stages(lambda: stages)
        if run is not None and not agree(run.y, y):
            run.distrust()
    signature = Signature(len(x), (layout.size,), tuple(y.shape[1:]), y.dtype, y.device)
    return y, WeightGraph(module, x, source, signature, layout, run)


def by_autodiff(function: Decoder, x: Tensor) -> tuple[Tensor, Jacobian]:
    """The derivative with respect to the input for anything without a rule."""
    spare = _sparing(function)
    # what is differentiated by the caller has derivatives of every order where products have them
    with differentiable_kernels() if torch.is_grad_enabled() and x.requires_grad else nullcontext():
        y, seen = watched(lambda x: checked_value(spare, x), x)
    check_independence(spare.__name__, spare, (x,), y)
    if seen.hides or _is_cut_off(y):
        check_connected(spare, x)
    signature = Signature.between(x, y)
    return y, Autodiff(spare, x, signature, seen.switched, seen.compiled, seen.nested, seen.widest)


def _chain(module: nn.Module, x: Tensor, layout: ParameterLayout) -> tuple[Tensor, list[Stage]] | None:
    """The value and the stages of a layer, or of several in a row; ``None`` of anything else."""
    found = weight_rule_for(module)
    if found is None:
        return chain_stages(module, x, layout)
    y = linearize_input(module, x)[0] if x.is_floating_point() else checked_value(module, x)
    return y, [Stage(own_of(module, found(module, x), layout))]


def _later(run: WeightRun, module: nn.Module, layout: ParameterLayout) -> list[Stage]:
    """The stages of a module that has run already."""
    with run.as_it_was():
        return _stages(module, run.x, layout)[1]


def _stages(module: nn.Module, x: Tensor, layout: ParameterLayout) -> tuple[Tensor, list[Stage]]:
    """The value and the stages of a module, of a graph or else by automatic differentiation."""
    if not findings(module):
        with suppress(Untraceable):
            graph = record_weight(module, x, layout)
            recorded(module, x, layout)
            return graph
    spare = _sparing(module)
    ran: list[Any] = []
    given: list[Hashable] = [layout.names, described(x)]

    def note(function: Any, args: Any, kwargs: Any) -> None:
        ran.append(function)
        given.append(tuple([described(argument) for argument in args]))
        given.append(described(kwargs) if kwargs else ())

    y, seen = watched(lambda x: checked_value(spare, x), x, note)
    cut = seen.hides or seen.compiled or _is_cut_off(y)
    sequence = None if cut else (*ran, *given)
    right = None if sequence is None else findings(module).get(sequence)
    if right is None and findings(module):
        with suppress(Untraceable):  # it is another one than it was
            return record_weight(module, x, layout)
    if not right or True not in right.values():
        check_independence(spare.__name__, spare, (x,), y)
        if sequence is not None:
            remember(module, sequence)
    signature = Signature(len(x), (layout.size,), tuple(y.shape[1:]), y.dtype, y.device)
    known = Known(None if seen.hides else seen, y, sequence, right, any(map(has_substitute, ran)))
    J = AutodiffWeight(module, x, signature, layout, known=known)
    J.check(seen.hides or _is_cut_off(y))
    return y, [Stage(ParameterBlock(module, layout.parameters, J))]


def _is_cut_off(y: Tensor) -> bool:
    """Whether a value was computed in inference mode, which the caller is not in."""
    return y.is_inference() and not torch.is_inference_mode_enabled()


def _sparing(function: Decoder) -> Callable[[Tensor], Any]:
    """The function, kept from writing into its argument and into weights, and from leaving traces on itself."""

    def spare(x: Tensor) -> Any:
        with left_alone(function), Guard():
            return function(x.clone())

    spare.__name__ = name_of(function)
    spare.__wrapped__ = function  # type: ignore[attr-defined]
    return spare
