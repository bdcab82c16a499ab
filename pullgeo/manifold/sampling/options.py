"""What random motion asks of its caller."""

import math

from pullgeo.errors import OptionError


def check_step_size(where: str, step_size: float) -> None:
    """Raise `OptionError` unless a step size is a positive number."""
    if not (math.isfinite(step_size) and step_size > 0):
        raise OptionError(f"{where}: step_size must be positive, got {step_size}. It is the time that a step takes.")


def check_count(where: str, name: str, count: int, least: int = 0) -> None:
    """Raise `OptionError` unless a count is an integer of at least ``least``."""
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise OptionError(f"{where}: {name} must be an integer >= {least}, got {count!r}.")
