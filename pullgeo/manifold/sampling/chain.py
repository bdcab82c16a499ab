"""What random motion asks of a manifold, and of its caller."""

import math
from typing import Protocol, runtime_checkable

from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.metric import Metric


@runtime_checkable
class Chart(Protocol):
    """A metric and its connection."""

    def metric(self, z: Tensor) -> Metric:
        """``G(z)``."""

    def connection(self, z: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``Γ(u, w)``."""


def check_step_size(where: str, step_size: float) -> None:
    """Raise `OptionError` unless a step size is a positive number."""
    if not (math.isfinite(step_size) and step_size > 0):
        raise OptionError(f"{where}: step_size must be positive, got {step_size}. It is the time that a step takes.")


def check_count(where: str, name: str, count: int, least: int = 0) -> None:
    """Raise `OptionError` unless a count is an integer of at least ``least``."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise OptionError(f"{where}: {name} must be an integer >= {least}, got {count!r}.")
