"""Records of a batch, taken apart and put together."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullgeo.numerics.batch import Batch


@dataclass(frozen=True, eq=False)
class Inner(Batch):
    weight: Tensor


@dataclass(frozen=True, eq=False)
class Record(Batch):
    order: int
    point: Tensor
    count: Tensor
    bands: tuple[Tensor, ...]
    inner: Inner
    names: tuple[str, ...]
    note: str | None = None


def record(n: int, start: int, order: int = 4) -> Record:
    rows = torch.arange(start, start + n)
    return Record(
        order,
        rows.double().unsqueeze(1) * torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64),
        rows,
        (rows.float(), rows.float().view(n, 1, 1).expand(n, 2, 5)),
        Inner(rows.double()),
        tuple(f"row {i}" for i in rows.tolist()),
        "kept",
    )


def rows_of(r: Record) -> list[int]:
    """The numbers of the rows, after checking that all fields agree on them."""
    rows = r.count.tolist()
    assert r.point[:, 0].tolist() == rows
    assert torch.equal(r.point[:, 2], 100 * r.point[:, 0])
    assert r.bands[0].tolist() == r.bands[1][:, 1, 3].tolist() == r.inner.weight.tolist() == rows
    assert r.names == tuple(f"row {i}" for i in rows)
    assert r.note == "kept"
    assert len(r) == len(rows)
    return rows


def test_rows_by_every_kind_of_index() -> None:
    r = record(5, 3)
    assert rows_of(r) == [3, 4, 5, 6, 7]
    assert rows_of(r[torch.tensor([4, 0, 0])]) == [7, 3, 3]
    assert rows_of(r[torch.tensor([True, False, False, True, False])]) == [3, 6]
    assert rows_of(r[[1, 3]]) == [4, 6]
    assert rows_of(r[1:3]) == [4, 5]
    assert rows_of(r[3]) == [6]
    assert rows_of(r[-1]) == [7]
    assert rows_of(r[[]]) == rows_of(r[2:2]) == []
    assert rows_of(r[torch.zeros(5, dtype=torch.bool)][torch.tensor([], dtype=torch.long)]) == []
    assert rows_of(r[torch.tensor([], dtype=torch.long)]) == []


def test_putting_together() -> None:
    a, b = record(3, 0), record(3, 10, order=2)
    assert rows_of(Record.cat([a, b[:2], a[2:]])) == [0, 1, 2, 10, 11, 2]
    assert Record.cat([a]) is a
    assert rows_of(a.where(torch.tensor([True, False, True]), b)) == [0, 11, 2]
    assert rows_of(a.put(torch.tensor([2, 0]), b[:2])) == [11, 1, 10]
    assert rows_of(a.put(torch.tensor([False, True, True]), b[1:])) == [0, 11, 12]
    assert a.where(torch.tensor([False, False, False]), b).order == 4
    assert rows_of(a) == [0, 1, 2]


def test_what_a_change_of_tensors_reaches() -> None:
    changed = record(3, 1).map(lambda t: 2 * t)
    assert changed.names == ("row 1", "row 2", "row 3")
    assert rows_of(replace(changed, names=("row 2", "row 4", "row 6"))) == [2, 4, 6]
    assert changed.order == 4


def test_records_of_names_alone_and_gradients() -> None:
    @dataclass(frozen=True, eq=False)
    class Named(Batch):
        names: tuple[str, ...]
        size: Tensor

    size = torch.arange(3.0).requires_grad_()
    named = Named(("a", "b", "c"), size)
    assert len(named) == 3
    assert len(Named.cat([named[:0], named[:0]])) == 0
    both = named[[2, 1]].put(torch.tensor([1]), named[[0]])
    assert both.names == ("c", "a")
    (gradient,) = torch.autograd.grad((both.size * torch.tensor([5.0, 7.0])).sum(), size)
    assert gradient.tolist() == [7.0, 0.0, 5.0]
    assert named.where(torch.tensor([True, False, True]), named[[1, 0, 2]]).names == ("a", "a", "c")
