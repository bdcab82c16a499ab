"""Records of a batch, taken apart and put together."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pullgeo.numerics.batch import Batch, Grouped


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


@dataclass(frozen=True, eq=False)
class Apples(Batch):
    weight: Tensor
    name: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Baskets(Grouped):
    price: Tensor
    owner: tuple[str, ...]


def baskets() -> Baskets:
    apples = Apples(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), ("a", "b", "c", "d", "e"))
    group = torch.tensor([2, 0, 2, 1, 0])
    return Baskets(members=apples, group=group, price=torch.tensor([7.0, 8.0, 9.0]), owner=("x", "y", "z"))


def contents(record: Baskets) -> dict[str, tuple[float, str]]:
    """What is in the baskets, by the owner's name: order-free."""
    names: dict[str, str] = dict.fromkeys(record.owner, "")
    for name, group in zip(record.members.name, record.group.tolist(), strict=True):
        names[record.owner[group]] += name
    return {owner: (float(price), names[owner]) for owner, price in zip(record.owner, record.price, strict=True)}


def test_groups_take_their_members_along() -> None:
    whole = {"x": (7.0, "be"), "y": (8.0, "d"), "z": (9.0, "ac")}
    record = baskets()
    assert len(record) == 3
    assert contents(record) == whole
    mask = torch.tensor([True, False, True])
    for index in (mask, torch.tensor([0, 2]), [0, 2], slice(0, 3, 2)):
        some = record[index]
        assert contents(some) == {k: whole[k] for k in "xz"}
        assert some.members.weight.tolist() == [1.0, 2.0, 3.0, 5.0]
    assert contents(record[1]) == {"y": whole["y"]}
    turned = record[torch.tensor([2, 0, 1])]
    assert turned.owner == ("z", "x", "y")
    assert contents(turned) == whole
    both = Baskets.cat([record[mask], record[~mask]])
    assert both.owner == ("x", "z", "y")
    assert contents(both) == whole
    assert contents(record[torch.zeros(3, dtype=torch.bool)]) == {}


def test_groups_exchanged() -> None:
    record = baskets()
    other = Baskets(
        members=Apples(torch.zeros(5), ("A", "B", "C", "D", "E")),
        group=record.group,
        price=torch.zeros(3),
        owner=("X", "Y", "Z"),
    )
    mixed = record.where(torch.tensor([True, False, True]), other)
    assert contents(mixed) == {"x": (7.0, "be"), "Y": (0.0, "D"), "z": (9.0, "ac")}
    # the new group may be of another size
    put = record.put(torch.tensor([1]), other[[2]])
    assert put.owner == ("x", "Z", "z")
    assert contents(put) == {"x": (7.0, "be"), "Z": (0.0, "AC"), "z": (9.0, "ac")}
