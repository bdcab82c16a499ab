"""What must hold of a module and a batch before there is a Jacobian per sample."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from pullgeo.errors import CoupledSamplesError, DeviceError, DtypeError, ModuleError, OptionError, ShapeError
from pullgeo.jacobian.returned import checked_tensor

FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a ``forward`` may raise when it meets tensors that it does not expect."""


def check_wrt(wrt: str) -> None:
    """Raise unless ``wrt`` is one of the two arguments a network has.

    Raises:
        OptionError: it is something else.
    """
    if wrt not in ("input", "weight"):
        raise OptionError(f'linearize: wrt must be "input" or "weight", got {wrt!r}.')


def check_batch(x: Tensor, wrt: str) -> None:
    """Raise unless ``x`` is a batch that can be differentiated at.

    Raises:
        ShapeError: it has no batch dimension.
        DtypeError: it is not a tensor, or not a floating point one where the derivative is taken with respect to it.
    """
    if not isinstance(x, Tensor):
        raise DtypeError(f"linearize: x must be a torch.Tensor, got {type(x).__name__}. Use torch.as_tensor(x).")
    if x.ndim == 0:
        raise ShapeError("linearize: x must have shape (b, *shape), got a scalar. Add a batch dimension.")
    if wrt == "input" and not x.is_floating_point():
        raise DtypeError(
            f"linearize: x must be floating point for wrt='input', got {x.dtype}. Use x.float(), or wrt='weight' if "
            "these are indices."
        )


def check_module(module: nn.Module, x: Tensor, wrt: str) -> None:
    """Raise unless the module acts on the samples of ``x`` one by one, the same way every time.

    Raises:
        CoupledSamplesError: a submodule mixes samples or draws random numbers.
        ModuleError: a lazy submodule has no parameters yet, or there are no parameters for ``wrt="weight"``, or none in
            reach.
        DtypeError: all parameters are floating point numbers of another precision than ``x``.
        DeviceError: all parameters are on another device than ``x``.
    """
    parameters = list(module.parameters())
    if any(is_lazy(p) for p in parameters):
        raise ModuleError(
            "linearize: a lazy module has no parameters yet. Call the module once on a batch, which materialises it."
        )
    check_fixed(module)
    if wrt == "weight":
        for name, child in module.named_modules():
            if isinstance(child, ScriptModule) and any(True for _ in child.parameters()):
                raise ModuleError(
                    f"linearize: {_where(name, child)} is compiled by TorchScript, which keeps its parameters out of "
                    "reach, so there is no wrt='weight'. Linearize the module that was compiled."
                )
    if wrt == "weight" and not parameters:
        raise ModuleError(f"linearize: {type(module).__name__} has no parameters, so there is no wrt='weight'.")
    floating = [p for p in parameters if p.is_floating_point()]
    if floating and x.is_floating_point() and all(p.dtype != x.dtype for p in floating):
        raise DtypeError(
            f"linearize: x is {x.dtype} and the module's parameters are {floating[0].dtype}. "
            f"Use x.to({floating[0].dtype}) or module.to({x.dtype})."
        )
    if parameters and all(p.device != x.device for p in parameters):
        raise DeviceError(
            f"linearize: x is on {x.device} and the module's parameters are on {parameters[0].device}. "
            f"Use x.to({str(parameters[0].device)!r})."
        )


def check_fixed(module: nn.Module) -> None:
    """Raise unless the module is a map of single samples, the same at every call.

    Raises:
        CoupledSamplesError: a submodule mixes samples or draws random numbers.
    """
    for name, child in module.named_modules():
        if isinstance(child, _BatchNorm) and (child.training or child.running_mean is None):
            fix = (
                "Call module.eval() first."
                if child.running_mean is not None
                else ("It keeps no running statistics (track_running_stats=False): use one that does, or another norm.")
            )
            raise CoupledSamplesError(
                f"linearize: {_where(name, child)} normalises over the batch, so samples are coupled and there is no "
                f"Jacobian per sample. {fix}"
            )
        if child.training and _is_random(child):
            raise CoupledSamplesError(
                f"linearize: {_where(name, child)} is in train mode and draws a new random mask at every call, so the "
                "map is not fixed. Call module.eval() first."
            )
        if isinstance(child, nn.FractionalMaxPool2d | nn.FractionalMaxPool3d) and child._random_samples is None:
            raise CoupledSamplesError(
                f"linearize: {_where(name, child)} draws the windows that it pools at random at every call, in eval "
                "mode too, so the map is not fixed. Draw them once and pass them to it as _random_samples=."
            )


def _where(name: str, child: nn.Module) -> str:
    return f"{type(child).__name__} ({name or 'the module itself'})"


def checked_value(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """``function(x)``, which must be one floating point tensor with a row per sample.

    Raises:
        ModuleError: the value is no such tensor.
    """
    y = function(x)
    name = type(function).__name__ if isinstance(function, nn.Module) else getattr(function, "__name__", "the function")
    y = checked_tensor(name, y)
    if y.ndim == 0 or len(y) != len(x):
        raise ModuleError(
            f"linearize: {name} maps a batch of {len(x)} to shape {tuple(y.shape)}, expected ({len(x)}, *out). "
            "The first dimension must be the batch, and samples must be independent."
        )
    if not y.is_floating_point():
        raise ModuleError(f"linearize: {name} returned {y.dtype}, expected floating point numbers.")
    return y


def check_independence(name: str, function: Callable[..., Any], inputs: Sequence[Tensor], y: Tensor) -> None:
    """Raise if the last two samples by themselves give something else than in company.

    Where nothing is known of a function this shows whether it has a Jacobian per sample: otherwise the other samples'
    tangents would be added to a sample's own. A function that takes no batch of another size cannot be checked.

    Args:
        name: of the function, for the message.
        function: of one or more batches.
        inputs: the batches.
        y: the function's value there.

    Raises:
        CoupledSamplesError: the values differ by far more than rounding.

    Cost: a forward pass of two samples.
    """
    if len(y) < 2:
        return
    few = min(2, len(y) - 1)  # batch norm does not take one sample
    try:
        with torch.no_grad():
            alone, within = function(*(x[-few:].clone() for x in inputs)), y[-few:]
            if not isinstance(alone, Tensor) or alone.ndim != within.ndim or len(alone) != few or not within.numel():
                return
            allowed = 10 * torch.finfo(y.dtype).eps ** 0.5 * within.abs().max()
            coupled = alone.shape != within.shape or bool(((alone - within).abs() > allowed).any())
    except FAILURES:  # another size of batch, or values that cannot be looked at inside a transform
        return
    if coupled:
        raise CoupledSamplesError(
            f"linearize: {name} gives other values for a sample when other samples are in the batch, or draws random "
            "numbers, so there is no Jacobian per sample. Let it reduce over the dimensions after the first only, and "
            "call .eval() on the modules in it."
        )


def _is_random(child: nn.Module) -> bool:
    if isinstance(child, _DropoutNd):
        return child.p > 0
    if isinstance(child, nn.RReLU):
        return child.lower != child.upper
    dropout = getattr(child, "dropout", 0.0)  # recurrent layers and attention keep their rate under this name
    return isinstance(child, nn.RNNBase | nn.MultiheadAttention) and isinstance(dropout, float) and dropout > 0
