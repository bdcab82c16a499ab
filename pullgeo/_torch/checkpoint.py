"""Decoders that compute parts of themselves twice to save memory, by ``torch.utils.checkpoint``."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar

from torch.utils import checkpoint

_RUNNERS = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
"""What surrounds a part that is computed twice, between two ``next``; a torch has the first, or from 2.14 on both."""

_REENTRANT = "CheckpointFunction"
"""The autograd function of ``use_reentrant=True``, which neither transforms nor ``torch.autograd.grad`` can run."""


class _Kept:
    """How many threads keep what checkpoints would not, and what they found in place."""

    lock = Lock()
    count = 0
    originals: ClassVar[dict[str, Any]] = {}


@contextmanager
def checkpoints_kept() -> Iterator[None]:
    """Parts under ``checkpoint`` keep what they have computed, as if they stood alone.

    What a transform or a recording computes in them is computed otherwise in the backward pass, which then misses
    tensors. The change is the process's: a thread that trains meanwhile keeps its tensors too.
    """
    with _Kept.lock:
        if not _Kept.count:
            substitutes = {**dict.fromkeys(_RUNNERS, _alone), _REENTRANT: _Plainly}
            _Kept.originals = {name: vars(checkpoint)[name] for name in substitutes if name in vars(checkpoint)}
            for name in _Kept.originals:
                setattr(checkpoint, name, substitutes[name])
        _Kept.count += 1
    try:
        yield
    finally:
        with _Kept.lock:
            _Kept.count -= 1
            if not _Kept.count:
                for name, original in _Kept.originals.items():
                    setattr(checkpoint, name, original)


def _alone(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


class _Plainly:
    """In place of the autograd function of reentrant checkpoints: the part itself."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """The part's value."""
        return function(*args)
