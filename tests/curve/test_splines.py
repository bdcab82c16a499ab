"""Cubic splines, and what all curves can do: length, energy, speed, fit, sampling, conversion."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline as Reference
from torch import Tensor

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.curve import CubicSpline, DiscreteCurve, straight_line
from pullgeo.errors import DtypeError, OptionError, ShapeError
from pullgeo.testing.charts import HalfPlane

B, D = 3, 2


def nodes(n: int) -> Tensor:
    return torch.randn(B, n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


def arcs(segments: int) -> DiscreteCurve:
    """Circular arcs of 1, 1.5 and 2 radians around the origin, run through ever faster."""
    t = torch.linspace(0, 1, segments + 1, dtype=torch.float64).square()
    angle = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)[:, None] * t
    return DiscreteCurve(torch.stack([angle.cos(), angle.sin()], 2))


def squared(z: Tensor) -> Tensor:
    """Complex squares: doubles angles on the unit circle."""
    return torch.stack([z[:, 0] ** 2 - z[:, 1] ** 2, 2 * z[:, 0] * z[:, 1]], 1)


def test_both_kinds_are_the_same_curve() -> None:
    discrete, t = DiscreteCurve(nodes(6)), torch.linspace(0, 1, 13, dtype=torch.float64)
    spline = CubicSpline.of(discrete)
    reference = Reference(np.linspace(0, 1, 6), nodes(6).numpy(), axis=1)
    for curve in (discrete, spline, spline.discrete()):
        torch.testing.assert_close(curve(t), torch.from_numpy(reference(t.numpy())))
        torch.testing.assert_close(curve.acceleration(t), torch.from_numpy(reference(t.numpy(), 2)))
        assert torch.equal(curve.begin, nodes(6)[:, 0])
        assert torch.equal(curve.end, nodes(6)[:, -1])
        assert curve.params.shape == (B, 4, D)
    assert spline.discrete(12).segments == 12
    assert len(spline) == B
    torch.testing.assert_close(spline[1].nodes, nodes(6)[1:2])


def test_parameters_are_what_an_optimiser_moves() -> None:
    params = torch.zeros(B, 3, D, dtype=torch.float64, requires_grad=True)
    begin, end = nodes(2).unbind(1)
    spline = CubicSpline(begin, end, params)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(spline(t), straight_line(begin, end, 4).nodes)
    assert torch.autograd.gradcheck(lambda p: CubicSpline(begin, end, p).energy(squared, segments=4), params)


def test_every_curve_may_have_times_of_its_own() -> None:
    curve = DiscreteCurve(nodes(5))
    t = torch.rand(B, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for ask in (curve, curve.velocity, curve.acceleration):
        one_by_one = torch.cat([ask(t[i])[i : i + 1] for i in range(B)])
        torch.testing.assert_close(ask(t), one_by_one)


def test_length_and_energy_of_arcs() -> None:
    curve, angle = arcs(64), torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(curve.euclidean_length(), angle, rtol=1e-7, atol=0)
    torch.testing.assert_close(curve.energy(), angle.square() * 4 / 3, rtol=1e-7, atol=0)  # ∫ (2t)² dt
    torch.testing.assert_close(curve.length(squared), 2 * angle, rtol=1e-6, atol=0)
    torch.testing.assert_close(curve.length(PullbackManifold(squared)), 2 * angle, rtol=1e-6, atol=0)
    up = straight_line(torch.tensor([[0.3, 1.0]]).double(), torch.tensor([[0.3, 2.0]]).double(), 4)
    expected = torch.tensor([2.0], dtype=torch.float64).log()
    torch.testing.assert_close(up.length(MetricManifold(HalfPlane().metric)), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(
        up.constant_speed(MetricManifold(HalfPlane().metric), 8).energy(MetricManifold(HalfPlane().metric)),
        expected.square(),
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize("kind", [DiscreteCurve, CubicSpline])
def test_constant_speed(kind: type) -> None:
    curve = arcs(64) if kind is DiscreteCurve else CubicSpline.of(arcs(64))
    even = curve.constant_speed(segments=16)
    assert isinstance(even, kind)
    assert even.segments == 16
    speed = even.velocity(torch.linspace(0, 1, 9, dtype=torch.float64)).norm(dim=2)
    angle = torch.tensor([[1.0], [1.5], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(speed, angle.expand(3, 9), rtol=1e-3, atol=0)
    torch.testing.assert_close(even.nodes.norm(dim=2), torch.ones(3, 17).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(even.energy(), even.length().square(), rtol=1e-6, atol=0)


def test_least_squares_fit() -> None:
    t = torch.linspace(0, 1, 29, dtype=torch.float64).pow(1.3)
    target = DiscreteCurve(nodes(5))
    line = straight_line(target.begin, target.end, 4)
    torch.testing.assert_close(line.fit(t, target(t)).nodes, target.nodes)
    elsewhere = CubicSpline.line(target.begin + 1, target.end, 4)
    torch.testing.assert_close(elsewhere.fit(t, target(t), free_ends=True).nodes, target.nodes)
    # with points off the curve the misfit is perpendicular to whatever a node can do
    x = target(t) + 0.1 * nodes(29)
    found = line.fit(t, x)
    unit = DiscreteCurve(torch.eye(5, dtype=torch.float64)[None])(t)[0]
    torch.testing.assert_close(unit[:, 1:-1].mT @ (found(t) - x), torch.zeros(B, 3, D).double(), rtol=0, atol=1e-12)
    # two points leave three inner nodes some freedom
    few = line.fit(t[[9, 17]], x[:, [9, 17]])
    torch.testing.assert_close(few(t[[9, 17]]), x[:, [9, 17]])
    assert torch.equal(few.begin, target.begin)


def test_points_for_plots() -> None:
    curve = DiscreteCurve(nodes(4).requires_grad_())
    points = curve.sample(7)
    assert isinstance(points, np.ndarray)
    np.testing.assert_allclose(points[:, [0, -1]], nodes(4)[:, [0, -1]].numpy())
    line = curve.polyline(7)
    assert line.shape == (B * 8, D)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(line).all(1)), [7, 15, 23])
    np.testing.assert_array_equal(line[8:15], points[1])


@pytest.mark.usefixtures("without_type_checks")
def test_errors() -> None:
    with pytest.raises(ShapeError, match="params"):
        CubicSpline(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 5, 1))
    with pytest.raises(ShapeError, match=r"points \(3, 'm', 2\)"):
        DiscreteCurve(nodes(4)).fit(torch.zeros(5), torch.zeros(3, 4, 2))
    with pytest.raises(OptionError, match="even"):
        DiscreteCurve(nodes(4)).length(segments=3)
    with pytest.raises(OptionError, match="count"):
        DiscreteCurve(nodes(4)).sample(1)
    with pytest.raises(OptionError, match="segments"):
        DiscreteCurve(nodes(4)).constant_speed(segments=0)


@pytest.mark.usefixtures("without_type_checks")
def test_times_may_be_arrays_and_points_must_be_pairs_of_numbers() -> None:
    curve, t = DiscreteCurve(nodes(5)), np.linspace(0, 1, 7)
    torch.testing.assert_close(curve(t), curve(torch.from_numpy(t)))
    assert curve(torch.tensor([0.5, torch.nan])).isnan().any(2).tolist() == [[False, True]] * B
    with pytest.raises(DtypeError):
        DiscreteCurve(nodes(5).long())
    with pytest.raises(ShapeError, match="pairs of points"):
        straight_line(torch.zeros(2), torch.ones(2))
    wide = CubicSpline.line(torch.zeros(1, D), torch.ones(B, D), segments=4)
    assert wide.nodes.shape == (B, 5, D)
