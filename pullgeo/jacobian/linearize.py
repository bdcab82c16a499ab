"""The entry point: the value of a module and its derivative, as a structured linear map."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from pullgeo._torch.state import left_alone
from pullgeo.errors import ModuleError
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.chain_weight import chain_stages
from pullgeo.jacobian.checks import check_batch, check_independence, check_module, check_wrt, checked_value
from pullgeo.jacobian.kinds.autodiff import Autodiff, AutodiffWeight, watched
from pullgeo.jacobian.registry import rule_for, weight_rule_for
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tracing.proxy import Untraceable
from pullgeo.jacobian.tracing.trace import record_input, record_weight
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.weight_graph import ParameterBlock, Stage, WeightGraph
from pullgeo.typing import Decoder


def linearize(module: Decoder, x: Tensor, wrt: str = "input") -> tuple[Tensor, Jacobian]:
    """``f(x)`` and the derivative ``J = ∂f/∂x`` or ``J = ∂f/∂θ`` at each sample of a batch.

    Args:
        module: a network, or with ``wrt="input"`` any function of a batch that treats samples independently.
        x: a batch of points, ``(b, *x)``.
        wrt: ``"input"`` or ``"weight"``. Weights are one vector of length P, in the order of
            ``torch.nn.utils.parameters_to_vector(module.parameters())``.

    Returns:
        The value ``(b, *y)`` and a `Jacobian` whose tangents are stacks ``(k, b, *x)`` or ``(k, b, P)``. Layers with
        a rule (see `rule_for`) keep their structure, and so do chains of them and any module whose ``forward`` is made
        of them and of known operations, which becomes a `Graph`; anything else is exact by automatic differentiation,
        with the tangents leading. `explain` tells which it was. What a module computes under ``torch.no_grad`` or
        detaches counts as constant, as in torch.

    Raises:
        OptionError: ``wrt`` is something else.
        ShapeError, DtypeError, DeviceError: ``x`` does not fit the module.
        CoupledSamplesError: the module mixes samples (batch norm in train mode) or is random (dropout in train mode).
        ModuleError: it has no parameters for ``wrt="weight"``, is not materialised, does not return one tensor with a
            row per sample, or switches gradients off.

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
    if not isinstance(module, nn.Module):
        if wrt == "weight":
            raise ModuleError("linearize: wrt='weight' needs a torch.nn.Module; a plain function has no parameters.")
        owner = getattr(module, "__self__", None)
        if isinstance(owner, nn.Module):
            check_module(owner, x, wrt)
        return by_autodiff(module, x)
    check_module(module, x, wrt)
    return linearize_input(module, x) if wrt == "input" else linearize_weight(module, x)


def linearize_input(module: nn.Module, x: Tensor) -> tuple[Tensor, Jacobian]:
    """`linearize` with respect to the input, for arguments already checked; rules of containers call it on children."""
    found = rule_for(module)
    if found is not None:
        return found(module, x)
    with suppress(Untraceable):
        return record_input(module, x)
    return by_autodiff(module, x)


def linearize_weight(module: nn.Module, x: Tensor) -> tuple[Tensor, Jacobian]:
    """`linearize` with respect to the weights, for arguments already checked."""
    y, stages = _stages(module, x)
    size = ParameterLayout.of(module).size
    signature = Signature(len(x), (size,), tuple(y.shape[1:]), y.dtype, y.device)
    return y, WeightGraph(module, x, tuple(stages), signature)


def by_autodiff(function: Decoder, x: Tensor) -> tuple[Tensor, Jacobian]:
    """The derivative with respect to the input for anything without a rule."""
    spare = _sparing(function)
    y, seen = watched(lambda x: checked_value(spare, x), x)
    check_independence(spare.__name__, spare, (x,), y)
    return y, Autodiff(spare, x, Signature.between(x, y), seen.switched, seen.compiled, seen.widest)


def _stages(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Stage]]:
    found = weight_rule_for(module)
    if found is not None:
        y = linearize_input(module, x)[0] if x.is_floating_point() else checked_value(module, x)
        return y, [_whole(module, found(module, x))]
    chain = chain_stages(module, x)
    if chain is not None:
        return chain
    with suppress(Untraceable):
        return record_weight(module, x)
    spare = _sparing(module)
    y = checked_value(spare, x)
    check_independence(spare.__name__, spare, (x,), y)
    return y, [_whole(module, _weight_by_autodiff(module, x, y))]


def _whole(module: nn.Module, J: Jacobian) -> Stage:
    return Stage(ParameterBlock(module, tuple(module.parameters()), J))


def _weight_by_autodiff(module: nn.Module, x: Tensor, y: Tensor) -> Jacobian:
    size = ParameterLayout.of(module).size
    return AutodiffWeight(module, x, Signature(len(x), (size,), tuple(y.shape[1:]), y.dtype, y.device))


def _sparing(function: Decoder) -> Callable[[Tensor], Any]:
    """The function, kept from writing into its argument, should it work in place, and from leaving traces on itself."""

    def spare(x: Tensor) -> Any:
        with left_alone(function):
            return function(x.clone())

    spare.__name__ = (
        type(function).__name__ if isinstance(function, nn.Module) else getattr(function, "__name__", "the function")
    )
    return spare
