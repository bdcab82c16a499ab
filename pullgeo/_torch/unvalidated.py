"""Distributions that do not look at the values of their parameters."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributions import Distribution

_lock = threading.Lock()
_state: dict[str, Any] = {"depth": 0, "before": True}


@contextmanager
def unvalidated() -> Iterator[None]:
    """Distributions of torch are made without a look at their parameters' values.

    That look asks ``bool(valid.all())``, which torch can answer for no batch of tangents; nor is it needed twice. What
    was set before comes back when the last of nested and simultaneous contexts ends. Distributions that are made with
    ``validate_args=True`` look all the same.

    Example:
        >>> import torch
        >>> with unvalidated():
        ...     torch.distributions.Normal(0.0, -1.0)
        Normal(loc: 0.0, scale: -1.0)
    """
    with _lock:
        if _state["depth"] == 0:
            _state["before"] = Distribution._validate_args
        _state["depth"] += 1
        Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        with _lock:
            _state["depth"] -= 1
            if _state["depth"] == 0:
                Distribution.set_default_validate_args(_state["before"])
