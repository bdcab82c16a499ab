"""The pairs of a solution as pictures name them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Solution


def pair_names(where: str, solution: Solution, names: Sequence[str] | None) -> list[str]:
    """A name for each pair: its number on the map, followed by the name passed in; ``pair 1`` and so on without.

    Raises:
        ShapeError: there is not one name for each pair.
    """
    n = len(solution.length)
    if names is None:
        return [f"pair {i + 1}" for i in range(n)]
    if len(names) != n:
        raise ShapeError(f"{where}: names must have one entry for each of the {n} pairs, got {len(names)}.")
    return [f"{i + 1}: {name}" for i, name in enumerate(names)]


def chosen_pairs(where: str, solution: Solution, pairs: Sequence[int] | None) -> list[int]:
    """The positions passed in, or those of all pairs.

    Raises:
        OptionError: a position is outside the solution, or none is given.
    """
    n = len(solution.length)
    chosen = list(range(n) if pairs is None else pairs)
    if not chosen or not all(isinstance(i, int) and 0 <= i < n for i in chosen):
        raise OptionError(f"{where}: pairs must be whole numbers from 0 to {n - 1}, at least one, got {pairs!r}.")
    return chosen


def converged_mask(solution: Solution) -> Bool[np.ndarray, " b"]:
    """Which pairs converged."""
    return np.asarray(solution.converged.numpy(force=True))
