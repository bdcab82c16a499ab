"""What ``torch.func`` keeps to itself: whether a transform is under way, and what it has wrapped."""

from collections.abc import Iterator
from contextlib import contextmanager
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
