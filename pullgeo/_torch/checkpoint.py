"""Decoders that compute parts of themselves twice to save memory, by ``torch.utils.checkpoint``."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from torch.utils import checkpoint

from pullgeo.errors import ModuleError

_RUNNER = "_checkpoint_without_reentrant_generator"
"""What surrounds a part that is computed twice, between two ``next``; a torch without it is left as it is."""


class _Kept:
    """How many threads keep what checkpoints would not, and what they found in place."""

    lock = Lock()
    count = 0
    runner: Any = None


@contextmanager
def checkpoints_kept() -> Iterator[None]:
    """Parts under ``checkpoint(..., use_reentrant=False)`` keep what they have computed, as if they stood alone.

    What a transform or a recording computes in them is computed otherwise in the backward pass, which then misses
    tensors. The change is the process's: a thread that trains meanwhile keeps its tensors too.
    """
    with _Kept.lock:
        if not _Kept.count:
            _Kept.runner = getattr(checkpoint, _RUNNER, None)
            if _Kept.runner is not None:
                setattr(checkpoint, _RUNNER, _alone)
        _Kept.count += 1
    try:
        yield
    finally:
        with _Kept.lock:
            _Kept.count -= 1
            if not _Kept.count and _Kept.runner is not None:
                setattr(checkpoint, _RUNNER, _Kept.runner)


def _alone(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


@contextmanager
def custom_functions_named() -> Iterator[None]:
    """Say by name if a function of the user's own has derivatives that transforms cannot use.

    Raises:
        ModuleError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        if "setup_context" not in str(error):
            raise
        raise ModuleError(
            "linearize: the map calls a torch.autograd.Function without setup_context, which cannot be differentiated "
            "forward or twice, as metrics and geodesics need it. In torch.utils.checkpoint that is use_reentrant=True: "
            "set use_reentrant=False. A function of your own needs setup_context, and generate_vmap_rule = True or "
            "vmap; see torch's Extending torch.func with autograd.Function."
        ) from error
