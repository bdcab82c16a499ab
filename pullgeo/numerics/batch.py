"""Records of a batch: dataclasses whose tensors have one row for each member."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

B = TypeVar("B", bound="Batch")
G = TypeVar("G", bound="Grouped")


@dataclass(frozen=True, eq=False)
class Batch:
    """A base for frozen dataclasses that describe the members of a batch, row by row.

    Tensors, further batches, and tuples of either are taken apart and put together by rows, and so is a tuple of other
    values, which has one for each row. Anything else belongs to the batch as a whole, and stays what it is in the first
    record that an operation is given.

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
        for name in _names(self):
            rows = _rows(getattr(self, name))
            if rows is not None:
                return rows
        raise TypeError(f"{type(self).__name__} has no rows to count: none of its fields is a tensor.")

    def __getitem__(self: B, index: Any) -> B:
        """The members at some places: a boolean or integer tensor, a list of places, a slice, or one place."""
        chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
        if _is_all(chosen, self):
            return self
        return _combine(lambda a: a[chosen], self)

    def changed(self: B, **values: Any) -> B:
        """The record with other values of some fields, as ``dataclasses.replace`` makes it, which takes longer."""
        return type(self)(**{**vars(self), **values})

    def map(self: B, change: Callable[[Tensor], Tensor]) -> B:
        """The record with every tensor changed in the same way, which leaves the rows where they are."""
        return type(self)(**{name: _changed(change, getattr(self, name)) for name in _names(self)})

    def where(self: B, chosen: Tensor, other: B) -> B:
        """This record for the members that are chosen, ``(n,)`` of bool, the other one for the rest."""
        if len(chosen) == 1 and chosen.device.type == "cpu":
            return self if bool(chosen) else other
        return _combine(lambda a, b: torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b), self, other)

    def put(self: B, index: Tensor, other: B) -> B:
        """The record with the members of another one at some places, integers ``(q,)`` or ``(n,)`` of bool."""
        if _is_all(index, self):
            return other
        return _combine(lambda a, b: a.index_put((index,), b), self, other)

    @classmethod
    def cat(cls: type[B], parts: Sequence[B]) -> B:
        """The members of all parts, one after the other."""
        return parts[0] if len(parts) == 1 else _combine(lambda *each: torch.cat(each), *parts)


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped(Batch):
    """A base for records of groups of different sizes, whose members have a record of their own.

    Rows are groups. Whatever is done to them is done to their members, which keep their order.

    Args:
        members: a row for each member of any group.
        group: the number of each member's group.

    Example:
        >>> import torch
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, eq=False)
        ... class Apples(Batch):
        ...     weight: torch.Tensor
        >>> @dataclass(frozen=True, eq=False, kw_only=True)
        ... class Baskets(Grouped):
        ...     price: torch.Tensor
        >>> apples = Apples(torch.tensor([5, 6, 7, 8]))
        >>> baskets = Baskets(members=apples, group=torch.tensor([0, 1, 1, 0]), price=torch.tensor([3, 4]))
        >>> baskets[torch.tensor([False, True])].members.weight
        tensor([6, 7])
        >>> baskets[torch.tensor([1, 0])].group
        tensor([1, 0, 0, 1])
    """

    members: Batch
    group: Tensor

    def __len__(self) -> int:
        return next(n for name in self._names() if (n := _rows(getattr(self, name))) is not None)

    def __getitem__(self: G, index: Any) -> G:
        """Some groups, each once, counted from 0 again."""
        chosen = slice(index, index + 1 or None) if isinstance(index, int) else index
        places = torch.arange(len(self), device=self.group.device)[chosen]
        number = torch.full((len(self),), -1, device=self.group.device)
        number[places] = torch.arange(len(places), device=number.device)
        number = number[self.group]
        kept = number >= 0
        rows = _combine(lambda a: a[places], self, names=self._names())
        return replace(rows, members=self.members[kept], group=number[kept])

    def where(self: G, chosen: Tensor, other: G) -> G:
        """This record for the groups that are chosen, the other one, of groups as large, for the rest."""
        rows = _combine(
            lambda a, b: torch.where(chosen.view(-1, *[1] * (a.ndim - 1)), a, b), self, other, names=self._names()
        )
        return replace(rows, members=self.members.where(chosen[self.group], other.members))

    def put(self: G, index: Tensor, other: G) -> G:
        """The record with other groups, of any size, at some places."""
        places = torch.arange(len(self), device=self.group.device)
        rest = torch.ones_like(places, dtype=torch.bool)
        rest[index] = False
        return self.cat([self[rest], other])[torch.cat([places[rest], places[index]]).argsort()]

    @classmethod
    def cat(cls: type[G], parts: Sequence[G]) -> G:
        """The groups of all parts, one after the other, and their members."""
        if len(parts) == 1:
            return parts[0]
        first = torch.tensor([0, *(len(part) for part in parts[:-1])]).cumsum(0).tolist()
        group = torch.cat([part.group + start for part, start in zip(parts, first, strict=True)])
        rows = _combine(lambda *each: torch.cat(each), *parts, names=parts[0]._names())
        return replace(rows, members=type(parts[0].members).cat([part.members for part in parts]), group=group)

    def _names(self) -> list[str]:
        return [f.name for f in fields(self) if f.name not in ("members", "group")]


def _names(record: Batch) -> tuple[str, ...]:
    """The names of the fields."""
    cls: Any = type(record)
    return _names_of(cls)


@lru_cache(maxsize=1024)
def _names_of(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def _is_all(index: Any, record: Batch) -> bool:
    """Whether an index takes the one member there is, which needs no copies; on other devices that is not looked up."""
    if isinstance(index, list):
        return index == [0] and type(index[0]) is int and len(record) == 1
    if not isinstance(index, Tensor) or index.shape != (1,) or index.device.type != "cpu" or len(record) != 1:
        return False
    return index.dtype != torch.bool or bool(index)


def _rows(value: Any) -> int | None:
    """The number of rows of a field; ``None`` for what belongs to the batch as a whole."""
    if isinstance(value, Tensor):
        return value.shape[0]
    if isinstance(value, tuple):
        return _rows(value[0]) if _of_tensors(value) else len(value)
    return len(value) if isinstance(value, Batch) else None


def _of_tensors(value: tuple[Any, ...]) -> bool:
    return len(value) > 0 and isinstance(value[0], Tensor | Batch)


def _changed(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Batch):
        return value.map(change)
    return tuple(_changed(change, v) for v in value) if isinstance(value, tuple) else value


def _device(record: Batch) -> torch.device | None:
    values = (getattr(record, f.name) for f in fields(record))
    return next(
        (_device(v) if isinstance(v, Batch) else v.device for v in values if isinstance(v, Tensor | Batch)), None
    )


def _combine(combine: Callable[..., Tensor], *parts: B, names: Sequence[str] | None = None) -> B:
    cls = type(parts[0])
    changed = _names(parts[0]) if names is None else names

    def combined(*values: Any) -> Any:
        first = values[0]
        if isinstance(first, Tensor):
            return combine(*values)
        if isinstance(first, Batch):
            return _combine(combine, *values)
        if not isinstance(first, tuple) or not any(values):
            return first
        if _of_tensors(first):
            return tuple(combined(*each) for each in zip(*values, strict=True))
        # what happens to the rows happens to their numbers
        numbers = torch.arange(sum(map(len, values)), device=_device(parts[0])).split([len(value) for value in values])
        entries = [entry for value in values for entry in value]
        return tuple(entries[i] for i in combine(*numbers).tolist())

    values = {name: getattr(parts[0], name) for name in _names(parts[0])} if names is not None else {}
    for name in changed:
        first = getattr(parts[0], name)
        if isinstance(first, Tensor):
            values[name] = combine(*[getattr(part, name) for part in parts])
        else:
            values[name] = combined(*[getattr(part, name) for part in parts])
    return cls(**values)
