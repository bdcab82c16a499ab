"""Functions that refuse some points."""

import torch
from torch import Tensor

from pullgeo.errors import SingularMetricError
from pullgeo.numerics.bisect_batch import where_defined


def refuse(z: Tensor) -> Tensor:
    if bool((z < 0).any()) or not len(z):
        raise SingularMetricError("negative, or nothing")
    return z.sqrt()


def test_points_that_the_error_names_take_one_more_call() -> None:
    calls = []

    def named(z: Tensor) -> Tensor:
        calls.append(len(z))
        bad = (z < 0).any(1)
        if bool(bad.any()):
            raise SingularMetricError("negative", bad)
        return z.sqrt()

    z = torch.arange(-7.0, 24.0).unsqueeze(1)
    expected = z.sqrt()  # NaN of the first seven
    torch.testing.assert_close(where_defined(named, (1,), z), expected, equal_nan=True)
    assert calls == [31, 24]


def test_what_is_refused_is_nan_and_nothing_stays_nothing() -> None:
    z = torch.tensor([[4.0], [-1.0], [9.0], [torch.inf], [1.0]])
    found = where_defined(refuse, (1,), z)
    torch.testing.assert_close(found, torch.tensor([[2.0], [torch.nan], [3.0], [torch.nan], [1.0]]), equal_nan=True)
    assert where_defined(refuse, (1,), z[:0]).shape == (0, 1)
