"""Latents by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError
from pullgeo.viz.style import MAX_CLASSES

Labels = Tensor | np.ndarray | Sequence[Any]
"""One class for each point: whole numbers, strings or truth values."""


@dataclass(frozen=True, eq=False)
class Classes:
    """Which class each of n points belongs to.

    Attributes:
        names: the name of each class, in order.
        index: for each point the position of its class in ``names``.
    """

    names: tuple[str, ...]
    index: np.ndarray

    def of(self, point: int) -> str:
        """The name of a point's class."""
        return self.names[int(self.index[point])]


def classes_of(where: str, labels: Labels, n: int) -> Classes:
    """Sort points into classes.

    Raises:
        ShapeError: there is not one label for each of the n points.
        OptionError: there are more classes than can be told apart in a picture.

    Example:
        >>> classes = classes_of("example", ["b", "a", "b"], 3)
        >>> classes.names, classes.of(2)
        (('a', 'b'), 'b')
    """
    values = labels.numpy(force=True) if isinstance(labels, Tensor) else np.asarray(labels)
    if values.shape != (n,):
        raise ShapeError(
            f"{where}: labels must have shape ({n},), one for each row of z, got {values.shape}. "
            "Each label is a class; take the argmax of one-hot rows."
        )
    found, index = np.unique(values, return_inverse=True)
    if len(found) > MAX_CLASSES:
        raise OptionError(
            f"{where}: labels have {len(found)} different values, of which {MAX_CLASSES} can be told apart. "
            "Labels are classes; cut a continuous quantity into bins first."
        )
    return Classes(tuple(str(v) for v in found.tolist()), index)


def visible(text: object) -> str:
    """Text as plotly shows it, which reads some tags in it as markup."""
    return escape(str(text), quote=False)
