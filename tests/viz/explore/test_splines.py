"""Splines on a lattice."""

import numpy as np
import pytest
import torch
from scipy.interpolate import NdBSpline

from pullgeo.viz.explore.packing import packed, unpacked
from pullgeo.viz.explore.splines import Spline, filled, spline_coefficients

X, Y = (-1.0, 2.0), (0.5, 1.75)


def on_lattice(function, nx: int = 13, ny: int = 11) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(*X, nx), np.linspace(*Y, ny), indexing="ij")
    return np.stack(function(x, y), -1)


def waves(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    return [np.sin(2 * x) * np.cos(y), x * y**2, np.exp(-x)]


def test_values_are_interpolated_and_cubics_reproduced(generator: torch.Generator) -> None:
    values = on_lattice(lambda x, y: [x**3 - y**2 * x, y**3 + x**2 * y**3, np.ones_like(x)])
    spline = Spline(spline_coefficients(values), X, Y)
    low, high = torch.tensor([X[0], Y[0]]), torch.tensor([X[1], Y[1]])
    xy = (low + (high - low) * torch.rand(97, 2, generator=generator)).double()
    x, y = xy.T
    expected = torch.stack([x**3 - y**2 * x, y**3 + x**2 * y**3, torch.ones_like(x)], 1)
    assert torch.allclose(spline(xy), expected, rtol=1e-11, atol=1e-11)


def test_a_place_that_is_not_a_number_has_no_value() -> None:
    spline = Spline(spline_coefficients(on_lattice(waves)), X, Y)
    place = torch.tensor([[0.1, 0.2], [torch.nan, 0.2], [torch.nan, torch.nan]], dtype=torch.float64)
    values = spline(place)
    assert torch.equal(values[0], spline(place[:1])[0])
    assert values[1:].isnan().all()


def test_jets_are_those_of_scipy(generator: torch.Generator) -> None:
    coefficients = spline_coefficients(on_lattice(waves))
    spline = Spline(coefficients, X, Y)
    knots = []
    for (low, high), n in ((X, 13), (Y, 11)):
        h = (high - low) / (n - 1)
        knots.append(low + h * np.arange(-3, n + 3))
    other = NdBSpline(tuple(knots), coefficients, 3)
    low, high = torch.tensor([X[0], Y[0]]), torch.tensor([X[1], Y[1]])
    xy = (low + (high - low) * torch.rand(53, 2, generator=generator)).double()
    jets = spline.jet(xy)
    for jet, nu in zip(jets, ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)), strict=True):
        assert np.allclose(jet.numpy(), other(xy.numpy(), nu=nu), rtol=1e-10, atol=1e-10)


def test_the_order_is_four() -> None:
    errors = []
    for n in (17, 33):
        spline = Spline(spline_coefficients(on_lattice(waves, n, n)), X, Y)
        x, y = np.meshgrid(np.linspace(*X, 101), np.linspace(*Y, 101), indexing="ij")
        found = spline(torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2))).numpy()
        errors.append(np.abs(found - np.stack(waves(x, y), -1).reshape(-1, 3)).max())
    assert errors[0] / errors[1] > 12


def test_too_small_a_lattice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 nodes"):
        spline_coefficients(np.zeros((3, 5, 1)))


def test_unknown_nodes_are_filled_smoothly_and_within_the_range() -> None:
    values = on_lattice(waves, 31, 29)
    known = np.ones((31, 29), dtype=bool)
    known[10:17, 8:15] = False
    known[:3, :2] = False
    holed = np.where(known[..., None], values, 0.0)
    whole = filled(holed, known)
    assert np.array_equal(whole[known], values[known])
    assert (whole >= values[known].min(0) - 1e-12).all()
    assert (whole <= values[known].max(0) + 1e-12).all()
    # the gap of this smooth function is bridged
    assert np.abs(whole - values)[10:17, 8:15].max() < 0.1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float16", "float32", "float64"])
def test_arrays_survive_packing(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).T.astype(dtype)
    assert np.array_equal(unpacked(packed(array)), array)
    assert unpacked(packed(array)).dtype.name == dtype


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="complex128"):
        packed(np.zeros(3, dtype=complex))
