"""What must hold of a module and a batch before there is a Jacobian per sample."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.rnn import PackedSequence
from torch.nn.utils.spectral_norm import SpectralNorm

from pullgeo._torch.submodules import buffers_of, named_modules, parameters_of
from pullgeo._torch.substitutes import unseen
from pullgeo.errors import (
    CoupledSamplesError,
    DeviceError,
    DtypeError,
    GradModeError,
    ModuleError,
    OptionError,
    ShapeError,
)
from pullgeo.jacobian.boundary import FAILURES, name_of, value_of
from pullgeo.jacobian.returned import checked_tensor

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")

_WATCHED = (
    _BatchNorm,
    _DropoutNd,
    _SpectralNorm,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RReLU,
)
"""Classes of modules that may mix samples or draw random numbers; hooks may too."""

_ORDINARY = (nn.Parameter, Tensor)
"""Classes of parameters; those of float64 copies are plain tensors."""

_ROUNDED = 4
"""Bytes of a floating point number below which an output is too coarse to be differentiated twice or measured."""


def check_wrt(wrt: str) -> None:
    """Raise unless ``wrt`` is one of the two arguments a network has.

    Raises:
        OptionError: it is something else.
    """
    if wrt not in ("input", "weight"):
        raise OptionError(f'Jacobian: wrt must be "input" or "weight", got {wrt!r}.')


def check_batch(x: Tensor, wrt: str) -> None:
    """Raise unless ``x`` is a batch that can be differentiated at.

    Raises:
        ShapeError: it has no batch dimension.
        DtypeError: it is not a tensor, or not a floating point one where the derivative is taken with respect to it.
    """
    if not isinstance(x, Tensor):
        use = (
            "Pass the padded batch, torch.nn.utils.rnn.pad_packed_sequence(x, batch_first=True)[0], and let the module "
            "pack it"
            if isinstance(x, PackedSequence)
            else "Use torch.as_tensor(x)"
        )
        raise DtypeError(f"Jacobian: x must be a torch.Tensor, got {type(x).__name__}. {use}.")
    if x.is_nested or x.layout is not torch.strided:
        kind, use = ("nested", "torch.nested.to_padded_tensor(x, 0.0)") if x.is_nested else (x.layout, "x.to_dense()")
        raise DtypeError(
            f"Jacobian: x must be a dense tensor with one row per sample, got a {kind} one, whose entries are no "
            f"coordinates. Use {use}."
        )
    if x.ndim == 0:
        raise ShapeError("Jacobian: x must have shape (b, *shape), got a scalar. Add a batch dimension.")
    if wrt == "input" and x.is_complex():
        raise DtypeError(
            f"Jacobian: x must be real for wrt='input', got {x.dtype}, for which a derivative has two real parts. Let "
            "the map begin with torch.view_as_complex, and pass torch.view_as_real(x)."
        )
    if wrt == "input" and not x.is_floating_point():
        raise DtypeError(
            f"Jacobian: x must be floating point for wrt='input', got {x.dtype}. Use x.float(), or wrt='weight' if "
            "these are indices."
        )


def check_module(module: nn.Module, x: Tensor, wrt: str, chosen: Sequence[Tensor] | None = None) -> None:
    """Raise unless the module acts on the samples of ``x`` one by one, the same way every time.

    Args:
        module: the module.
        x: the batch.
        wrt: ``"input"`` or ``"weight"``.
        chosen: the parameters that count as weights, if not all do.

    Raises:
        CoupledSamplesError: a submodule mixes samples or draws random numbers.
        ModuleError: a lazy submodule has no parameters yet, or there are no parameters for ``wrt="weight"``, or none in
            reach.
        DtypeError: all parameters are floating point numbers of another precision than ``x``.
        DeviceError: all parameters are on another device than ``x``.
        GradModeError: parameters or buffers were made under ``torch.inference_mode``, which is over.
    """
    children = named_modules(module)
    if _is_plain(children, x, wrt):
        return
    parameters = parameters_of(children)
    if True in map(is_lazy, parameters):
        raise ModuleError(
            "Jacobian: a lazy module has no parameters yet. Call the module once on a batch, which materialises it."
        )
    _check_fixed(children)
    _check_parameters(module, parameters if chosen is None else chosen, wrt)
    _check_recorded(module, [*parameters, *buffers_of(children)])
    if wrt == "weight":
        for name, child in children:
            if isinstance(child, ScriptModule) and any(True for _ in child.parameters()):
                raise ModuleError(
                    f"Jacobian: {_where(name, child)} is compiled by TorchScript, which keeps its parameters out of "
                    "reach, so there is no wrt='weight'. Use the module that was compiled."
                )
    if wrt == "weight" and not parameters:
        raise ModuleError(f"Jacobian: {type(module).__name__} has no parameters, so there is no wrt='weight'.")
    precisions = [p.dtype.to_real() for p in parameters if p.is_floating_point() or p.is_complex()]
    if precisions and x.is_floating_point() and x.dtype not in precisions:
        raise DtypeError(
            f"Jacobian: x is {x.dtype} and the module's parameters are {precisions[0]}. "
            f"Use x.to({precisions[0]}) or module.to({x.dtype})."
        )
    if parameters and x.device not in [p.device for p in parameters]:
        raise DeviceError(
            f"Jacobian: x is on {x.device} and the module's parameters are on {parameters[0].device}. "
            + (
                "Tensors on meta have no values: load some with module.to_empty(device=...) and load_state_dict."
                if parameters[0].is_meta
                else "Tensors on meta have no values: compute x."
                if x.is_meta
                else f"Use x.to({str(parameters[0].device)!r})."
            )
        )


def _is_plain(children: Iterable[tuple[str, nn.Module]], x: Tensor, wrt: str) -> bool:
    """Whether one look at each module shows that nothing is the matter, as it does of most; else all is looked at."""
    dtype, device, in_inference = x.dtype, x.device, torch.is_inference_mode_enabled()
    found = wrt == "input"
    for _, child in children:
        if wrt == "weight" and isinstance(child, ScriptModule):
            return False
        kind: Any = type(child)
        if _is_watched(kind) or getattr(child, "_forward_pre_hooks", None):
            return False
        for p in child._parameters.values():
            if p is None:
                continue
            if type(p) not in _ORDINARY or p.dtype is not dtype or p.layout is not torch.strided or p.device != device:
                return False
            if p.is_inference() and not in_inference:
                return False
            found = True
        for b in child._buffers.values():
            if b is not None and b.is_inference() and not in_inference:
                return False
    return found


def _check_parameters(module: nn.Module, parameters: Sequence[Tensor], wrt: str) -> None:
    for p in parameters:
        if type(p) is nn.Parameter and p.layout is torch.strided:
            continue
        if wrt == "weight" and p.layout is not torch.strided:
            name = next(name for name, q in module.named_parameters() if q is p)
            raise ModuleError(
                f"Jacobian: the parameter {name} is a {p.layout} tensor, whose entries are no coordinates, so there "
                "is no wrt='weight'. Make its values a dense parameter and the sparse tensor in forward, or leave it "
                "out by parameters=."
            )
        if type(p).__name__ == "DTensor":
            raise ModuleError(
                "Jacobian: the module's parameters are sharded over processes (DTensor), so a product of one process "
                "has only a part of them. Gather them first, by FSDPModule.unshard() or DTensor.full_tensor()."
            )


def _check_recorded(module: nn.Module, tensors: Sequence[Tensor]) -> None:
    if torch.is_inference_mode_enabled() or True not in [tensor.is_inference() for tensor in tensors]:
        return
    held = [*module.named_parameters(), *module.named_buffers()]
    unusable = [name for name, tensor in held if tensor is not None and tensor.is_inference()]
    if unusable:
        raise GradModeError(
            f"Jacobian: {len(unusable)} of the parameters and buffers of {type(module).__name__} ({unusable[0]} is "
            "the first) were made under torch.inference_mode(), and torch takes no derivatives with such tensors. "
            "copy.deepcopy(module), outside of inference mode, has ordinary ones; or build the module outside."
        )


def check_fixed(module: nn.Module) -> None:
    """Raise unless the module is a map of single samples, the same at every call.

    Raises:
        CoupledSamplesError: a submodule mixes samples or draws random numbers.
        ModuleError: a submodule is quantised, or sharded over processes.
    """
    _check_fixed(named_modules(module))


def _check_fixed(children: Iterable[tuple[str, nn.Module]]) -> None:
    for name, child in children:
        kind: Any = type(child)
        if not _is_watched(kind) and not getattr(child, "_forward_pre_hooks", None):
            continue
        if isinstance(child, _BatchNorm) and (child.training or child.running_mean is None):
            fix = (
                "Call module.eval() first."
                if child.running_mean is not None
                else ("It keeps no running statistics (track_running_stats=False): use one that does, or another norm.")
            )
            raise CoupledSamplesError(
                f"Jacobian: {_where(name, child)} normalises over the batch, so samples are coupled and there is no "
                f"Jacobian per sample. {fix}"
            )
        if isinstance(child, nn.FractionalMaxPool2d | nn.FractionalMaxPool3d) and child._random_samples is None:
            raise CoupledSamplesError(
                f"Jacobian: {_where(name, child)} draws the windows that it pools at random at every call, in eval "
                "mode too, so the map is not fixed. Draw them once and pass them to it as _random_samples=."
            )
        if type(child).__module__.startswith(_QUANTISED):
            raise ModuleError(
                f"Jacobian: {_where(name, child)} is quantised: it rounds to integers, which has no derivative. "
                "Use the module as it was before torch.ao.quantization.convert or quantize_dynamic."
            )
        if type(child).__name__ == "FullyShardedDataParallel":  # importing it takes longer than the rest of torch
            raise ModuleError(
                f"Jacobian: {_where(name, child)} gathers and frees its parameters at every pass, which transforms "
                "and repeated passes break. Use the module inside, under its summon_full_params()."
            )
        if not getattr(child, "training", False):  # a module that torch.jit.freeze has frozen has no such attribute
            continue
        if isinstance(child, _SpectralNorm) or any(
            isinstance(hook, SpectralNorm) for hook in getattr(child, "_forward_pre_hooks", {}).values()
        ):
            raise CoupledSamplesError(
                f"Jacobian: {_where(name, child)} is a spectral norm in train mode, which goes on iterating at every "
                "call, so the map is not fixed. Call module.eval() first."
            )
        if _is_random(child):
            raise CoupledSamplesError(
                f"Jacobian: {_where(name, child)} is in train mode and draws a new random mask at every call, so the "
                "map is not fixed. Call module.eval() first."
            )


@lru_cache(maxsize=1024)
def _is_watched(kind: Any) -> bool:
    """Whether something may be the matter with modules of a class itself."""
    return (
        issubclass(kind, _WATCHED)
        or kind.__module__.startswith(_QUANTISED)
        or kind.__name__ == "FullyShardedDataParallel"
    )


def _where(name: str, child: nn.Module) -> str:
    return f"{type(child).__name__} ({name or 'the module itself'})"


def checked_value(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """``function(x)``, which must be one floating point tensor with a row per sample.

    Raises:
        ModuleError: the value is no such tensor.
    """
    name = name_of(function)
    y = checked_tensor(name, value_of(function, x))
    with unseen():  # by what watches the function
        _check_value(name, y, x)
    return y


def _check_value(name: str, y: Tensor, x: Tensor) -> None:
    if y.is_nested or y.layout is not torch.strided:
        kind, use = ("nested", "torch.nested.to_padded_tensor(y, 0.0)") if y.is_nested else (y.layout, "y.to_dense()")
        raise ModuleError(f"Jacobian: {name} returned a {kind} tensor, expected a dense one. Let it return {use}.")
    if y.ndim == 0 or len(y) != len(x):
        raise ModuleError(
            f"Jacobian: {name} maps a batch of {len(x)} to shape {tuple(y.shape)}, expected ({len(x)}, *out). "
            "The first dimension must be the batch, and samples must be independent."
        )
    if y.is_complex():
        raise ModuleError(
            f"Jacobian: {name} returned {y.dtype}, expected real numbers. Let it return torch.view_as_real(y), or "
            "whichever real part you want the derivative of."
        )
    if not y.is_floating_point():
        raise ModuleError(f"Jacobian: {name} returned {y.dtype}, expected floating point numbers.")
    if y.device != x.device:
        raise ModuleError(
            f"Jacobian: {name} returned a tensor on {y.device} for a batch on {x.device}. Let it return "
            f"y.to({str(x.device)!r})."
        )
    check_rounding(name, y, x)


def check_rounding(name: str, y: Tensor, x: Tensor) -> None:
    """Raise if the output has half precision and the input more, as under ``torch.autocast``.

    Raises:
        ModuleError: it has.
    """
    if y.dtype.itemsize < _ROUNDED and x.is_floating_point() and x.dtype.itemsize >= _ROUNDED:
        raise ModuleError(
            f"Jacobian: {name} returned {y.dtype} for {x.dtype} inputs, as torch.autocast does; its derivatives would "
            f"be rounded to {y.dtype.itemsize} bytes and do not mix with {x.dtype}. Leave torch.autocast, with "
            f"torch.autocast({x.device.type!r}, enabled=False), or let it return y.to({x.dtype})."
        )


def check_independence(name: str, function: Callable[..., Any], inputs: Sequence[Tensor], y: Tensor) -> None:
    """Raise if the last two samples give something else when the others change.

    Where nothing is known of a function this shows whether it has a Jacobian per sample: otherwise the other samples'
    tangents would be added to a sample's own. The others are left out; where that changes anything they are replaced by
    samples of the same batch, as the function may hold something for each place of a batch of this size, such as a
    mask.

    Args:
        name: of the function, for the message.
        function: of one or more batches.
        inputs: the batches.
        y: the function's value there.

    Raises:
        CoupledSamplesError: the values differ by far more than rounding.

    Cost: a forward pass of two samples; one of the whole batch if the function does not take two, or not alike.
    """
    if len(y) < 2 or not y.numel():
        return
    few = min(2, len(y) - 1)  # batch norm does not take one sample
    if _agree(function, [x[-few:] for x in inputs], y[-few:], few) is True:
        return
    rest = len(y) - few
    changed = [torch.cat([x[-1:].expand(rest, *x.shape[1:]), x[-few:]]) for x in inputs]
    if _agree(function, changed, y[-few:], few) is False:
        raise CoupledSamplesError(
            f"Jacobian: {name} gives other values for a sample when other samples are in the batch, or draws random "
            "numbers, so there is no Jacobian per sample. Let it reduce over the dimensions after the first only, and "
            "call .eval() on the modules in it."
        )


def needs_whole_batch(function: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> bool:
    """Whether a function of independent samples must see them all, each in its place, to give the value of one.

    So it is where it holds something for each place, such as a mask or a condition with the batch's length.

    Args:
        function: of a batch.
        x: the batch.
        y: the function's value there.

    Cost: a forward pass of one sample, and one of the batch.
    """
    if len(y) < 2 or not y.numel():
        return False
    if _agree(function, [x[:1]], y[:1], 1) is not True:
        return True
    return _agree(function, [x.roll(1, 0)], y.roll(1, 0), len(y)) is not True


def _agree(function: Callable[..., Any], inputs: Sequence[Tensor], expected: Tensor, last: int) -> bool | None:
    """Whether the last samples of batches have the expected values; ``None`` where the function does not take them."""
    try:
        with torch.no_grad():
            value = value_of(lambda _: function(*(x.clone() for x in inputs)), inputs[0])
            if not isinstance(value, Tensor) or value.ndim != expected.ndim or len(value) != len(inputs[0]):
                return None
            return agree(value[-last:], expected)
    except FAILURES:  # another size of batch, or values that cannot be looked at inside a transform
        return None


def agree(got: Tensor, expected: Tensor) -> bool:
    """Whether values are the same up to far more than rounding."""
    with torch.no_grad():
        allowed = 10 * torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().max()
        return got.shape == expected.shape and not bool(((got - expected).abs() > allowed).any())


def _is_random(child: nn.Module) -> bool:
    if isinstance(child, _DropoutNd):
        return child.p > 0
    if isinstance(child, nn.RReLU):
        return child.lower != child.upper
    dropout = getattr(child, "dropout", 0.0)  # recurrent layers and attention keep their rate under this name
    return isinstance(child, nn.RNNBase | nn.MultiheadAttention) and isinstance(dropout, float) and dropout > 0
