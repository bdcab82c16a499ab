"""Parts of batches, against counting."""

import pytest
import torch

from pullgeo.numerics.chunking import Budget, working_set


@pytest.mark.parametrize(("limit", "each", "rows"), [(100, 40, 2), (100, 101, 1), (7, 1, 7), (7, 0, 7), (0, 3, 1)])
def test_rows_fit_the_budget(limit: int, each: int, rows: int):
    budget = Budget(limit)
    assert budget.rows(each) == rows
    parts = list(budget.slices(11, each))
    assert [i for part in parts for i in range(11)[part]] == list(range(11))
    assert all(len(range(11)[part]) == rows for part in parts[:-1])
    assert budget.fits(rows, each) == (rows * each <= limit)


def test_tensors_are_cut_alike():
    x, y = torch.arange(7), torch.arange(14).reshape(7, 2)
    parts = list(Budget(30).split(x, y, each=10))
    assert [len(part) for part, _ in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([part for part, _ in parts]), x)
    torch.testing.assert_close(torch.cat([part for _, part in parts]), y)


def test_an_empty_batch_has_one_part_and_no_slice():
    assert [len(part) for (part,) in Budget(3).split(torch.zeros(0, 2))] == [0]
    assert list(Budget(3).slices(0)) == []


def test_caches_count_on_a_cpu_alone():
    assert working_set(torch.device("cpu")).limit < working_set(torch.device("cuda")).limit
