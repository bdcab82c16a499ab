"""Tensors that torch can differentiate: outside of inference mode, each entry in a place of its own."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pullgeo.errors import GradModeError

JACOBIAN_PRODUCTS = (
    "push",
    "pull",
    "second",
    "second_push",
    "push_with_second",
    "push_jet",
    "push_squared",
    "pull_squared",
    "push_squared_layerwise",
    "pull_squared_layerwise",
    "push_gram",
    "pull_gram",
    "push_diag",
    "pull_diag",
    "pull_scaled_diag",
    "push_outer",
    "pull_outer",
    "pull_squared_summed",
    "pull_diag_summed",
    "pull_scaled_summed",
    "pull_outer_summed",
    "cross_gram",
    "cross_diag",
)
"""The methods of Jacobians that take stacks of tangents or cotangents."""


def outside_inference(x: Tensor) -> Tensor:
    """The same values where torch takes derivatives: ``x``, or a copy if it was made under ``torch.inference_mode``.

    Batches that trainers predict are made there. While inference mode is on there is nothing to do: torch records
    nothing then, and complains of nothing.
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def hold_outside_inference(record: Any) -> None:
    """Let a frozen dataclass hold its tensors `outside_inference`."""
    for name, value in list(vars(record).items()):
        if isinstance(value, Tensor) and value.is_inference():
            object.__setattr__(record, name, outside_inference(value))
        elif isinstance(value, tuple) and any(isinstance(item, Tensor) and item.is_inference() for item in value):
            object.__setattr__(record, name, tuple(map(outside_inference, value)))


def take_any_tensors(cls: type, names: Iterable[str]) -> None:
    """Let methods that a class states take tensors that were made under ``torch.inference_mode``."""
    for name in names:
        if name in vars(cls):
            setattr(cls, name, _of_any_tensors(vars(cls)[name]))


def _of_any_tensors(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, which is called again with copies if it fails with tensors of inference mode.

    Layers call each other's products, so nothing is looked at before something fails.
    """

    @functools.wraps(method)
    def taking(self: Any, /, *tensors: Any, **more: Any) -> Any:
        try:
            return method(self, *tensors, **more)
        except RuntimeError as error:
            return _again(error, method, self, tensors, more)

    @functools.wraps(method)
    def taking_one(self: Any, tensor: Any = None, /, **more: Any) -> Any:  # which is faster than to take any number
        if more:
            return taking(self, *(() if tensor is None else (tensor,)), **more)
        try:
            return method(self, tensor)
        except RuntimeError as error:
            return _again(error, method, self, (tensor,), more)

    return taking_one if len(inspect.signature(method).parameters) == 2 else taking


def _again(
    error: RuntimeError, method: Callable[..., Any], owner: Any, tensors: tuple[Any, ...], more: dict[str, Any]
) -> Any:
    """What a method returns for copies of those tensors that were made in inference mode, if that was the matter."""
    given = [t for t in (*tensors, *more.values()) if isinstance(t, Tensor)]
    # what was one tensor stays one, which halves the work of some products
    ordinary = {id(t): outside_inference(t) for t in given}
    if any(ordinary[id(t)] is not t for t in given):
        try:
            return method(
                owner,
                *(ordinary.get(id(t), t) for t in tensors),
                **{name: ordinary.get(id(t), t) for name, t in more.items()},
            )
        except RuntimeError as other:
            error = other
    renamed = named(error)
    if renamed is error:
        raise error
    raise renamed from error


def unshared(x: Tensor) -> Tensor:
    """The same values, each entry in a place of its own: ``x``, or a copy that is connected to it.

    Forward mode refuses tensors whose entries share memory, as those of ``expand`` and ``unfold`` do.
    """
    return x.clone(memory_format=torch.contiguous_format) if _shares_memory(x) else x


def _shares_memory(x: Tensor) -> bool:
    if x.layout is not torch.strided or x.is_nested or x.is_contiguous():
        return False
    reached = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride <= reached:
            return True
        reached += stride * (size - 1)
    return False


@contextmanager
def inference_named() -> Iterator[None]:
    """Say by name if tensors made under ``torch.inference_mode`` are in the way of a derivative.

    Raises:
        GradModeError: they are.
    """
    try:
        yield
    except RuntimeError as error:
        renamed = named(error)
        if renamed is error:
            raise
        raise renamed from error


def named(error: RuntimeError) -> RuntimeError:
    """Our error if torch's is about tensors of inference mode, else the same."""
    if isinstance(error, GradModeError) or not str(error).startswith("Inference tensors cannot be saved"):
        return error
    return GradModeError(
        "torch takes no derivatives with tensors that were made under torch.inference_mode(), and the map, its "
        "Jacobian or a metric holds some. Weights become ordinary ones by copy.deepcopy(module) outside of inference "
        "mode, other tensors by clone(). A Jacobian or metric that was computed under inference mode serves there "
        "alone: compute it under torch.no_grad() instead."
    )
