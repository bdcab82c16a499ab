"""Which latents a report joins by geodesics."""

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from pullgeo.errors import OptionError

# Up to here all pairs are looked at; of more latents, as many random ones.
_FEW = 500
_DRAWS = _FEW * _FEW


def choose_pairs(
    z: Float[Tensor, "n d"], labels: np.ndarray | None, count: int, generator: np.random.Generator
) -> Int64[np.ndarray, "count 2"]:
    """Draw pairs of different latents, of different classes where there are some, none twice.

    Raises:
        OptionError: not so many such pairs were met.
    """
    points, n = z.numpy(force=True), len(z)
    if n <= _FEW:
        candidates = generator.permutation(np.stack(np.triu_indices(n, 1), axis=1))
    else:
        candidates = np.sort(generator.integers(n, size=(_DRAWS, 2)), axis=1)
    first, second = candidates.T
    good = (points[first] != points[second]).any(1)
    several = labels is not None and len(np.unique(labels)) > 1
    if several and labels is not None:
        good &= labels[first] != labels[second]
    pairs = candidates[good]
    _, where = np.unique(pairs, axis=0, return_index=True)
    chosen = pairs[np.sort(where)][:count]
    if len(chosen) < count:
        raise OptionError(
            f"--pairs: expected {count} pairs of different latents{' and classes' if several else ''}, found only "
            f"{len(chosen)}. Ask for fewer pairs, or give more latents."
        )
    return chosen.astype(np.int64)


def name_pairs(pairs: Int64[np.ndarray, "count 2"], labels: np.ndarray | None) -> list[str]:
    """What to call each pair: its rows, and its classes where there are some."""
    rows = [f"latents {i} and {j}" for i, j in pairs.tolist()]
    if labels is None:
        return rows
    return [f"{labels[i]} → {labels[j]} ({row})" for (i, j), row in zip(pairs.tolist(), rows, strict=True)]
