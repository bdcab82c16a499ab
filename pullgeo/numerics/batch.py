"""Records of a batch: dataclasses whose tensors have one row for each member."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")


@dataclass(frozen=True, eq=False)
class Batch:
    """A base for frozen dataclasses that describe the members of a batch, row by row.

    Tensors, further batches, and tuples of either are taken apart and put together by rows; any other value belongs to
    the batch as a whole, and stays what it is in the first record that an operation is given.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from pullgeo.numerics.batch import Batch
        >>> @dataclass(frozen=True, eq=False)
        ... class Balls(Batch):
        ...     center: torch.Tensor
        ...     radius: torch.Tensor
        >>> balls = Balls(torch.zeros(3, 2), torch.arange(3.0))
        >>> balls[torch.tensor([2, 0])].radius
        tensor([2., 0.])
        >>> Balls.cat([balls, balls]).center.shape
        torch.Size([6, 2])
    """

    def __len__(self) -> int:
        return next(n for f in fields(self) if (n := _rows(getattr(self, f.name))) is not None)

    def __getitem__(self: B, index: Any) -> B:
        """The members at some places: a boolean or integer tensor, a list of places, or a slice."""
        return self.map(lambda a: a[index])

    def map(self: B, change: Callable[[Tensor], Tensor]) -> B:
        """The record with every tensor changed in the same way."""
        return _combine(change, self)

    def where(self: B, chosen: Tensor, other: B) -> B:
        """This record for the members that are chosen, ``(n,)`` of bool, the other one for the rest."""
        return _combine(lambda a, b: torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b), self, other)

    def put(self: B, index: Tensor, other: B) -> B:
        """The record with the members of another one at some places, integers ``(q,)`` or ``(n,)`` of bool."""
        return _combine(lambda a, b: a.index_put((index,), b), self, other)

    @classmethod
    def cat(cls: type[B], parts: Sequence[B]) -> B:
        """The members of all parts, one after the other."""
        return parts[0] if len(parts) == 1 else _combine(lambda *each: torch.cat(each), *parts)


def _rows(value: Any) -> int | None:
    """The number of rows of a field; ``None`` for what belongs to the batch as a whole."""
    if isinstance(value, tuple):
        return next((n for v in value if (n := _rows(v)) is not None), None)
    return len(value) if isinstance(value, Tensor | Batch) else None


def _combine(combine: Callable[..., Tensor], *parts: B) -> B:
    names = [f.name for f in fields(parts[0])]
    return replace(parts[0], **{name: _combined(combine, *(getattr(part, name) for part in parts)) for name in names})


def _combined(combine: Callable[..., Tensor], *values: Any) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return combine(*values)
    if isinstance(first, Batch):
        return _combine(combine, *values)
    if isinstance(first, tuple):
        return tuple(_combined(combine, *each) for each in zip(*values, strict=True))
    return first
