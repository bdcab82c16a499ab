"""What counts as a set of points."""

import numpy as np
import pytest
import torch

from pullgeo.errors import DtypeError, NonFiniteError, ShapeError
from pullgeo.stats import as_points

pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
def test_floating_point_arrays_keep_their_values(dtype):
    values = np.array([[1.5, -2.0, 3.25], [0.5, 4.0, -0.125]], dtype=dtype)
    assert as_points("f", values).tolist() == values.tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.uint64, ">i2"])
def test_whole_numbers_become_double(dtype):
    points = as_points("f", np.array([[1, 2, 3], [7, 5, 0]], dtype=dtype))
    assert points.dtype == torch.float64
    assert points.tolist() == [[1, 2, 3], [7, 5, 0]]


def test_tensors_keep_their_dtype_and_lose_their_graph():
    z = torch.randn(3, 2, requires_grad=True)
    points = as_points("f", z)
    assert points.dtype == torch.float32
    assert not points.requires_grad


def test_arrays_that_torch_cannot_view_are_copied():
    values = np.arange(6.0).reshape(3, 2)[::-1, ::-1]
    assert as_points("f", values).tolist() == values.tolist()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5), (0, 2), (3, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"^f: latents must have shape \(n, d\), got .*"):
        as_points("f", torch.zeros(shape), name="latents")


@pytest.mark.parametrize(
    "values",
    [np.array([["a"]]), np.array([[None]]), np.array([[True]]), np.array([[1j]]), torch.tensor([[1j]]), [[1.0]]],
)
def test_what_is_not_real_is_refused(values: object):
    with pytest.raises(DtypeError, match=r"^f: z must "):
        as_points("f", values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_named(bad: float):
    z = torch.zeros(5, 2)
    z[3, 1] = z[4, 0] = bad
    with pytest.raises(NonFiniteError, match=r"2 of the 5 rows of z hold NaN or infinity, the first is row 3"):
        as_points("f", z)
