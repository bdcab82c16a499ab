"""Decoders, metrics and manifolds as they are, in double precision: solvers need it, whatever they came in."""

from dataclasses import fields, is_dataclass, replace
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pullgeo._torch.copying import computed_tensors, copied, plain_copy
from pullgeo._torch.submodules import buffers_of, named_modules, parameters_of
from pullgeo.errors import ModuleError
from pullgeo.jacobian.checks import check_fixed
from pullgeo.manifold.float64.promote import Promoted
from pullgeo.metric.base import Metric

Thing = TypeVar("Thing")
Module = TypeVar("Module", bound=nn.Module)


def in_double(thing: Thing) -> Thing:
    """The same decoder, manifold or metric with every floating point tensor in float64.

    Modules, and bound methods of modules, are copied if they are not in float64 yet; the copy's weights are
    ``p.double()`` of the original's, so they are the present ones and gradients flow back to them; likewise the entries
    of dataclasses and tuples, such as a `Metric`. The original is not touched. A function cannot be copied: it is
    called with float64, and where the weights in it refuse that, they are converted at every call.

    Raises:
        CoupledSamplesError: a module mixes samples or draws random numbers.
        ModuleError: a module is lazy and has no parameters yet, or TorchScript keeps them in another precision.

    Cost: one copy of the weights (none where they are float64 already).
    """
    return _in_double(thing)


def is_single(decoder: object) -> bool:
    """Whether a decoder is a module, or a bound method of one, whose parameters and buffers are in float32."""
    return isinstance(_module_of(decoder), nn.Module) and _precisions(decoder) == {torch.float32}


def fits_single(stage: object) -> bool:
    """Whether something can work with float32: it holds no number of another precision, and is no plain function."""
    if callable(stage) and _module_of(stage) is None:
        return False
    return _precisions(stage) <= {torch.float32}


def with_tensors(module: Module, tensors: dict[int, Tensor]) -> Module:
    """A copy of a module in which the tensors with the given ``id`` are replaced, by ones that need not be leaves.

    Raises:
        ModuleError: the module holds something that Python cannot copy, such as a lock or an open file.
    """
    try:
        return copied(module, tensors)
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ModuleError(
            f"{type(module).__name__} cannot be copied, as its evaluation in float64 needs: {error}. Call .double() on "
            "the module before, or keep what cannot be copied outside of it."
        ) from error


def _in_double(thing: Any) -> Any:
    if isinstance(thing, nn.Module):
        check_fixed(thing)  # before it runs: batch norm in train mode would change its statistics
        tensors = _tensors(thing)
        if any(map(is_lazy, tensors)):
            raise ModuleError(
                "a lazy module has no parameters yet. Call the module once on a batch, which materialises it."
            )
        if {t.dtype for t in tensors if t.is_floating_point()} <= {torch.float64}:
            return thing
        _check_convertible(thing)
        converted = _doubled(tensors)
        plain = plain_copy(thing, converted)
        if plain is not None:
            return plain
        # what torch.nn.utils.weight_norm or a forward keeps
        return with_tensors(thing, converted | _doubled(computed_tensors(thing)))
    if isinstance(thing, MethodType) and isinstance(thing.__self__, nn.Module | Metric):
        return MethodType(thing.__func__, _in_double(thing.__self__))
    if isinstance(thing, Tensor):
        return thing.double() if thing.is_floating_point() else thing
    if isinstance(thing, tuple):
        return tuple(map(_in_double, thing))
    if isinstance(thing, torch.dtype):
        return torch.float64
    if isinstance(thing, Promoted):
        return thing
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{f.name: _in_double(getattr(thing, f.name)) for f in fields(thing)})
    return Promoted(thing) if callable(thing) and not isinstance(thing, type) else thing


def _check_convertible(module: nn.Module) -> None:
    if any(isinstance(child, torch.jit.ScriptModule) for child in module.modules()):
        raise ModuleError(
            f"{type(module).__name__} is compiled by TorchScript, and cannot be evaluated in float64 with the weights "
            "that it has, as geodesics need it. Give the module that was compiled, or call .double() on this one."
        )


def _precisions(thing: Any) -> set[torch.dtype]:
    """The floating point precisions of all numbers that something holds."""
    module = _module_of(thing)
    if module is not None:
        return {t.dtype for t in _tensors(module) if t.is_floating_point()}
    if isinstance(thing, Tensor):
        return {thing.dtype} if thing.is_floating_point() else set()
    if isinstance(thing, torch.dtype):
        return {thing}
    if isinstance(thing, tuple):
        return set().union(*map(_precisions, thing))
    if is_dataclass(thing) and not isinstance(thing, type):
        return set().union(*(_precisions(getattr(thing, f.name)) for f in fields(thing)))
    return set()


def _module_of(thing: Any) -> nn.Module | None:
    owner = thing.__self__ if isinstance(thing, MethodType) else thing
    return owner if isinstance(owner, nn.Module) else None


def _doubled(tensors: list[Tensor]) -> dict[int, Tensor]:
    return {id(t): t.double() if t.is_floating_point() else t for t in tensors}


def _tensors(module: nn.Module) -> list[Tensor]:
    children = named_modules(module)
    return [*parameters_of(children), *buffers_of(children)]
