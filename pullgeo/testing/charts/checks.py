"""What the charts demand of their arguments."""

import math

from torch import Tensor

from pullgeo.errors import OptionError, ShapeError


def positive(where: str, **values: float) -> None:
    """Raise `OptionError` unless every value is a positive finite number."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise OptionError(
                f"{where}: {name} must be positive and finite, got {value}. Lengths are in ambient units."
            )


def dimension(where: str, d: int, least: int = 1) -> None:
    """Raise `OptionError` unless ``d`` is an integer of at least ``least``."""
    if isinstance(d, bool) or not isinstance(d, int) or d < least:
        raise OptionError(f"{where}: d must be an integer >= {least}, got {d!r}. It counts the chart's coordinates.")


def coordinates(where: str, x: Tensor, d: int) -> None:
    """Raise `ShapeError` unless ``x`` ends in ``d`` coordinates."""
    if x.ndim < 1 or x.shape[-1] != d:
        raise ShapeError(
            f"{where}: points must have shape (*batch, {d}), got {tuple(x.shape)}. Coordinates go in the last axis."
        )
