"""Tensors that torch can differentiate: outside of inference mode, each entry in a place of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pullgeo.errors import GradModeError


def outside_inference(x: Tensor) -> Tensor:
    """The same values where torch takes derivatives: ``x``, or a copy if it was made under ``torch.inference_mode``.

    Batches that trainers predict are made there. While inference mode is on there is nothing to do: torch records
    nothing then, and complains of nothing.
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


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
        "linearize: torch takes no derivatives with tensors that were made under torch.inference_mode(), and the map, "
        "or this Jacobian of it, holds some. Weights become ordinary ones by copy.deepcopy(module) outside of inference "
        "mode, other tensors by clone(). A Jacobian that is used outside must be computed outside: "
        "linearize under torch.no_grad() instead."
    )
