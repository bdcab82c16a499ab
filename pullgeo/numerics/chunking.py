"""How much of a long batch is worked on at a time: the one place that decides it.

A batch that is cut into parts needs less memory, and on a CPU often less time, as what a part computes on its way stays
in cache. So budgets of work that is repeated are those of caches, and the others what a small machine has to spare.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Budget:
    """A bound on what is held at a time, in bytes, numbers or rows.

    Args:
        limit: the bound. A single row is taken even if it is larger.

    Example:
        >>> import torch
        >>> from pullgeo.numerics.chunking import Budget
        >>> list(Budget(100).slices(5, each=40))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
        >>> [part.tolist() for part, in Budget(2).split(torch.arange(5))]
        [[0, 1], [2, 3], [4]]
    """

    limit: int

    def rows(self, each: int = 1) -> int:
        """How many rows fit if each takes so much; at least one."""
        return max(1, self.limit // max(1, each))

    def fits(self, rows: int, each: int = 1) -> bool:
        """Whether so many rows may be held at once."""
        return rows * each <= self.limit

    def slices(self, rows: int, each: int = 1) -> Iterator[slice]:
        """Slices of ``range(rows)``, one after the other; none if there are no rows."""
        step = self.rows(each)
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def split(self, *batches: Tensor, each: int = 1) -> Iterable[tuple[Tensor, ...]]:
        """Parts of tensors with the same number of rows; a batch without rows is one part."""
        if batches[0].shape[0] * max(1, each) <= self.limit:
            return [batches]
        return zip(*[batch.split(self.rows(each)) for batch in batches], strict=True)


# bytes

CHORDS = Budget(2**21)
"""Tangents of curves in the output, for energies by chords: they stay in cache with the activations behind them."""

CACHE = Budget(2**23)
"""Tangents on a CPU: what its cache still holds between one stage and the next, and what needs no fresh pages."""

SUMS = Budget(2**24)
"""Weights that contractions over samples form for some samples at a time."""

PASSES = Budget(2**25)
"""Tangents where each part takes more work besides: a pass through a module, or second derivatives of segments."""

WORKING_SET = Budget(2**26)
"""Tangents on other devices, where small parts leave most of the device idle."""

HESSIANS = Budget(2**28)
"""Banded Hessians of curves, with what is computed from them."""

GRAM = Budget(2**30)
"""What a Gram matrix may hold besides itself; below, all stacks are moved once, and above every pair of parts."""

METRICS = Budget(2**29)
"""Metric tensors of all points of a set, to compare candidates for neighbours by."""

# numbers

DISTANCES = Budget(2**22)
"""Entries of a distance matrix."""

OUTPUTS = Budget(2**23)
"""Outputs and their tangents that figures evaluate: 64 MB in float64."""

COLLOCATION = Budget(2**24)
"""Entries of the matrices of collocation."""

# rows

FEW = Budget(64)
"""Curves whose activations are kept for a backward pass; pairs whose paths are searched in one graph."""

SOURCES = Budget(2**8)
"""Nodes from which shortest paths are sought in one task: each has a distance to all nodes."""

PICTURES = Budget(2**8)
"""Pictures that are decoded for a page."""

FIELDS = Budget(2**9)
"""Points at which a field of the map is evaluated."""

GEODESICS = Budget(2**9)
"""Pairs that are solved for in one task."""

DERIVED = Budget(2**10)
"""Points through a connection or a metric, where derivatives of the decoder are taken."""

POINTS = Budget(2**12)
"""Points, edges or segments whose activations go when their values are known."""

MANY = Budget(2**13)
"""Points of whole curves that are only measured, and short geodesics that are followed."""

EDGES = Budget(2**16)
"""Edges that are measured in one task."""


def working_set(device: torch.device) -> Budget:
    """The budget of tangents on a device."""
    return CACHE if device.type == "cpu" else WORKING_SET
