"""What ``torch.func`` keeps to itself: whether a transform is under way, and what it has wrapped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch: Any = torch._C._functorch


def transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward mode is under way."""
    return _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def unwrapped(tensor: Tensor) -> Tensor:
    """What transforms have wrapped."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def is_mapped(tensor: Tensor) -> bool:
    """Whether ``torch.vmap`` holds several values of a tensor at once."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


@contextmanager
def no_slow_batching() -> Iterator[None]:
    """Operations that torch batches by a loop over samples, with a warning, raise an error instead."""
    before = _functorch._is_vmap_fallback_enabled()
    _functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        _functorch._set_vmap_fallback_enabled(before)


def vjp(function: Callable[..., Any], *primals: Tensor, has_aux: bool = False) -> tuple[Any, ...]:
    """`torch.func.vjp`, also where inference mode is on and torch is so old that it returns zeros there."""
    if not torch.is_inference_mode_enabled() or _works_in_inference():
        return torch.func.vjp(function, *primals, has_aux=has_aux)
    with torch.inference_mode(False):
        value, back, *aux = torch.func.vjp(function, *map(_ordinary, primals), has_aux=has_aux)

    def pull(*cotangents: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode(False):
            pulled: tuple[Tensor, ...] = back(*map(_ordinary, cotangents))
            return pulled

    return (value, pull, *aux)


def jvp(
    function: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...], *, has_aux: bool = False
) -> tuple[Any, ...]:
    """`torch.func.jvp`, likewise."""
    if not torch.is_inference_mode_enabled() or _works_in_inference():
        return torch.func.jvp(function, primals, tangents, has_aux=has_aux)
    with torch.inference_mode(False):
        return torch.func.jvp(
            function, tuple(map(_ordinary, primals)), tuple(map(_ordinary, tangents)), has_aux=has_aux
        )


def _ordinary(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


@cache
def _works_in_inference() -> bool:
    with torch.inference_mode():
        one = torch.ones(())
        return bool(torch.func.jvp(torch.neg, (one,), (one,))[1])
