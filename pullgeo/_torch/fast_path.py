"""Attention as it is while gradients are on.

Without gradients torch runs transformer encoders by fused kernels that have no derivative, and that give tokens behind
a padding mask other values than the layers themselves do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_lock = Lock()
_within = 0
_before = True


@contextmanager
def fast_path_off() -> Iterator[None]:
    """Within this context, in whichever thread, encoders run layer by layer."""
    global _within, _before
    with _lock:
        if _within == 0:
            _before = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                torch.backends.mha.set_fastpath_enabled(_before)
