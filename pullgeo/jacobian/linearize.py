"""The one entry: the value of a module and its derivative, as a structured linear map."""

from typing import cast

from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.jacobian.autodiff import Autodiff, AutodiffWeight
from pullgeo.jacobian.base import Jacobian
from pullgeo.jacobian.checks import check_batch, check_module, check_wrt, checked_value
from pullgeo.jacobian.parameters import ParameterLayout
from pullgeo.jacobian.registry import rule_for, served_class, weight_rule_for
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.weights import Stage, WeightChain
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
        a rule (see `rule_for`) and chains of them keep their structure; anything else is exact by automatic
        differentiation, with the tangents leading.

    Raises:
        OptionError: ``wrt`` is something else.
        ShapeError, DtypeError, DeviceError: ``x`` does not fit the module.
        CoupledSamplesError: the module mixes samples (batch norm in train mode) or is random (dropout in train mode).
        ModuleError: it has no parameters for ``wrt="weight"``, is not materialised, or does not return one tensor
            with a row per sample.

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
    return found(module, x) if found is not None else by_autodiff(module, x)


def linearize_weight(module: nn.Module, x: Tensor) -> tuple[Tensor, Jacobian]:
    """`linearize` with respect to the weights, for arguments already checked."""
    try:
        y, stages = _stages(module, x, input_needed=False)
    except ModuleError:  # a child hands on something else than one tensor per sample: serve the module as a whole
        y = checked_value(module, x)
        stages = [Stage(module, None, _weight_by_autodiff(module, x, y))]
    size = ParameterLayout.of(module).size
    signature = Signature(len(x), (size,), tuple(y.shape[1:]), y.dtype, y.device)
    return y, WeightChain(module, x, tuple(stages), signature)


def by_autodiff(function: Decoder, x: Tensor) -> tuple[Tensor, Jacobian]:
    """The derivative with respect to the input for anything without a rule."""
    y = checked_value(_sparing(function), x)
    return y, Autodiff(_sparing(function), x, Signature.between(x, y))


def _stages(module: nn.Module, x: Tensor, input_needed: bool) -> tuple[Tensor, list[Stage]]:
    if served_class(module) is not nn.Sequential:
        y, through = linearize_input(module, x) if input_needed else (checked_value(_sparing(module), x), None)
        return y, [Stage(module, through, _weight_jacobian(module, x, y))]
    stages: list[Stage] = []
    for child in cast(nn.Sequential, module):
        x, more = _stages(child, x, input_needed)
        stages.extend(more)
        input_needed = input_needed or any(stage.weight is not None for stage in more)
    return x, stages


def _weight_jacobian(module: nn.Module, x: Tensor, y: Tensor) -> Jacobian | None:
    if not any(True for _ in module.parameters()):
        return None
    found = weight_rule_for(module)
    return found(module, x) if found is not None else _weight_by_autodiff(module, x, y)


def _weight_by_autodiff(module: nn.Module, x: Tensor, y: Tensor) -> Jacobian:
    size = ParameterLayout.of(module).size
    return AutodiffWeight(module, x, Signature(len(x), (size,), tuple(y.shape[1:]), y.dtype, y.device))


def _sparing(function: Decoder) -> Decoder:
    """The function, kept from writing into its argument where a submodule works in place."""
    if isinstance(function, nn.Module) and any(getattr(m, "inplace", False) for m in function.modules()):
        return lambda x: function(x.clone())
    return function
