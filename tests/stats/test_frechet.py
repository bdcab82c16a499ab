"""Means and medians against closed forms."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import MetricManifold, Newton, PullbackManifold, Status
from pullgeo.errors import DtypeError, NonFiniteError, OptionError, ShapeError
from pullgeo.stats import FrechetMean, frechet_mean, frechet_median
from pullgeo.stats.centers.star import Star, expand, measured
from pullgeo.testing.charts import PoincareBall, StereographicSphere

FINE = Newton(segments=128)
COARSE = Newton(segments=4)


def some(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = 0.4 * torch.randn(n, d, dtype=torch.float64, generator=generator) + 0.3
    return z, torch.rand(n, dtype=torch.float64, generator=generator) + 0.1


def mean_tangent(chart: StereographicSphere, p: Tensor, z: Tensor, w: Tensor, power: int) -> Tensor:
    """The norm of ``Σ w log_p(z) d^(power - 2)``, relative to the size of its terms, in closed form."""
    v = chart.logmap(p.expand_as(z), z)
    G = chart.metric(p)
    length = torch.einsum("ni,ij,nj->n", v, G, v).sqrt()
    w = w * length ** (power - 2)
    m = (w[:, None] * v).sum(0)
    return (m @ G @ m).sqrt() / (w * length).sum()


@pytest.mark.parametrize("d", [2, 5])
def test_the_mean_on_a_sphere_is_stationary(d: int):
    chart = StereographicSphere(d)
    z, w = some(7, d)
    found = frechet_mean(PullbackManifold(chart), z, w, solver=FINE, tol=1e-12)
    assert found.status == (Status.CONVERGED,)
    assert mean_tangent(chart, found.point[0], z, w, 2) < 1e-9
    d2 = chart.distance(found.point.expand_as(z), z).square()
    torch.testing.assert_close(found.variance[0], (w * d2).sum() / w.sum(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.geodesics.length.square(), d2, rtol=1e-8, atol=0)
    assert int(found.iterations) < 15


@pytest.mark.parametrize("d", [2, 5, 20])
def test_defaults_are_enough_for_a_stationary_mean(d: int):
    chart = StereographicSphere(d)
    z, w = some(11, d, seed=1)
    z = z if d < 20 else (z - 0.2) / 2  # about as far apart as in few dimensions
    found = frechet_mean(PullbackManifold(chart), z, w)
    assert found.status == (Status.CONVERGED,)
    assert mean_tangent(chart, found.point[0], z, w, 2) < 1e-9
    assert found.geodesics.curve.segments == 96


def test_where_finer_curves_fail_the_mean_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["pullgeo.stats.centers.approach"], "FINAL_STEPS", 0)
    manifold = PullbackManifold(StereographicSphere(2))
    z, _ = some(5, 2)
    default, coarse = (frechet_mean(manifold, z, solver=solver) for solver in (None, Newton()))
    assert default.status == coarse.status == (Status.CONVERGED,)
    assert default.geodesics.curve.segments == 32
    assert torch.equal(default.point, coarse.point)


def test_finer_curves_serve_the_groups_that_they_serve(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["pullgeo.stats.centers.approach"], "FINAL_STEPS", 1)  # too few for points far apart
    manifold = PullbackManifold(StereographicSphere(2))
    z, w = some(8, 2)
    groups = torch.tensor([5, 3, 5, 3, 5, 3, 5, 3])
    z = torch.where((groups == 3).unsqueeze(1), 3 * z, z / 10).requires_grad_()

    def gradient(found: FrechetMean, g: int) -> Tensor:
        return torch.autograd.grad(found.point[g].sum() + found.variance[g], z, retain_graph=True)[0]

    found = frechet_mean(manifold, z, w, groups, tol=1e-10)
    fine = frechet_mean(manifold, z, w, groups)
    coarse = frechet_mean(manifold, z, w, groups, solver=Newton(), tol=1e-10)
    assert bool(found.converged.all())
    assert float(found.residual.max()) <= 1e-10
    assert not torch.equal(fine.point, coarse.point)
    for g, expected in enumerate((coarse, fine)):
        member = found.group == g
        torch.testing.assert_close(found.point[g], expected.point[g], rtol=0, atol=1e-14)
        torch.testing.assert_close(found.variance[g], expected.variance[g], rtol=1e-12, atol=0)
        lengths = found.geodesics.length[member], expected.geodesics.length[member]
        torch.testing.assert_close(*lengths, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradient(found, g), gradient(expected, g))


def test_where_one_group_fails_the_others_still_end_with_finer_curves():
    def broken(x: Tensor) -> Tensor:
        return torch.cat([x.sin(), (x[:, :1] - 0.2).log()], 1)

    z = torch.tensor([[0.3, 0.1], [0.1, 0.4], [2.0, 1.0], [1.4, 1.2], [1.0, 0.8]], dtype=torch.float64)
    manifold = PullbackManifold(broken)
    found = frechet_mean(manifold, z, groups=[0, 0, 1, 1, 1])
    assert found.status == (Status.NON_FINITE, Status.CONVERGED)
    alone = frechet_mean(manifold, z[2:])
    assert alone.geodesics.curve.segments == 96
    torch.testing.assert_close(found.point[1], alone.point[0], rtol=0, atol=1e-10)


def test_the_median_on_a_sphere_is_stationary():
    chart = StereographicSphere(2)
    z = torch.tensor([[0.9, 0.1], [-0.7, 0.2], [0.1, 0.8], [0.2, -0.9], [0.7, 0.8]], dtype=torch.float64)
    w = torch.tensor([1.0, 1.1, 0.9, 1.2, 0.8], dtype=torch.float64)
    found = frechet_median(PullbackManifold(chart), z, w, solver=FINE, tol=1e-11)
    assert found.status == (Status.CONVERGED,)
    assert mean_tangent(chart, found.point[0], z, w, 1) < 1e-9


def test_groups_are_what_they_are_alone():
    manifold = MetricManifold(PoincareBall(2).metric)
    z, w = some(11, 2)
    groups = np.array([7, -2, 7, 5, 5, -2, 7, 5, 7, -2, 7])
    together = frechet_mean(manifold, z.numpy() / 2, w.numpy(), groups, solver=COARSE, tol=1e-11)
    assert together.label.tolist() == [-2, 5, 7]
    assert bool(together.converged.all())
    for g, label in enumerate([-2, 5, 7]):
        member = torch.from_numpy(groups == label)
        alone = frechet_mean(manifold, z[member] / 2, w[member], solver=COARSE, tol=1e-11)
        torch.testing.assert_close(together.point[g], alone.point[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(together.variance[g], alone.variance[0])
        torch.testing.assert_close(together.geodesics.length[member], alone.geodesics.length)


def test_flat_means_and_medians():
    torch.manual_seed(0)
    plane = torch.nn.Linear(2, 3, dtype=torch.float64)
    manifold = PullbackManifold(plane)
    z, w = some(7, 2)
    w[2] = 0
    expected = (w[:, None] * z).sum(0) / w.sum()
    torch.testing.assert_close(frechet_mean(manifold, z, w).point[0], expected)
    z = torch.tensor([[0.9, 0.1], [-0.7, 0.2], [0.1, 0.8], [0.2, -0.9], [0.7, 0.8]], dtype=torch.float64)
    w = torch.tensor([1.0, 1.1, 0.0, 1.2, 0.8], dtype=torch.float64)
    found = frechet_median(manifold, z, w, tol=1e-10)
    assert found.status == (Status.CONVERGED,)
    gap = plane(z) - plane(found.point)
    assert ((w[:, None] * gap / gap.norm(dim=1, keepdim=True)).sum(0) @ plane.weight).norm() < 1e-8


def test_a_median_may_be_one_of_the_points():
    manifold = PullbackManifold(StereographicSphere(2))
    z = torch.tensor([[0.0, 0.0], [0.8, 0.1], [-0.5, 0.9], [-0.6, -0.8]], dtype=torch.float64)
    z.requires_grad_()
    found = frechet_median(manifold, z, solver=COARSE)
    assert torch.equal(found.point[0], z[0])
    assert found.status == (Status.CONVERGED,)
    assert found.geodesics.length[0] == 0
    (gradient,) = torch.autograd.grad(found.point.sum(), z)
    assert torch.equal(gradient, torch.tensor([[1.0, 1.0]] + 3 * [[0.0, 0.0]], dtype=torch.float64))


def test_one_point_and_equal_points():
    manifold = PullbackManifold(StereographicSphere(2))
    z = torch.tensor([[0.3, 0.4]] * 3 + [[1.0, 0.1]], dtype=torch.float64)
    found = frechet_mean(manifold, z, groups=[0, 0, 0, 1])
    torch.testing.assert_close(found.point, z[[0, 3]])
    torch.testing.assert_close(found.variance, torch.zeros(2, dtype=torch.float64))
    assert bool(found.converged.all())


@pytest.mark.heavy
def test_derivatives_with_respect_to_points_and_weights():
    manifold = PullbackManifold(StereographicSphere(2))
    z, w = some(3, 2)

    def mean(z: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        found = frechet_mean(manifold, z, w, solver=COARSE, tol=1e-12)
        return found.point, found.variance

    assert torch.autograd.gradcheck(mean, (z.requires_grad_(), w.requires_grad_()))


def test_derivatives_with_respect_to_the_decoder():
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 5, dtype=torch.float64)
    manifold = PullbackManifold(torch.nn.Sequential(layer, torch.nn.Tanh(), torch.nn.Linear(5, 3, dtype=torch.float64)))
    z, _ = some(5, 2)

    def value() -> Tensor:
        found = frechet_mean(manifold, z, solver=COARSE, tol=1e-12)
        return found.point[0, 0] + 2 * found.point[0, 1] + found.variance[0]

    (gradient,) = torch.autograd.grad(value(), layer.weight)
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            layer.weight[3, 1] += sign * step
            values.append(value())
            layer.weight[3, 1] -= sign * step
    torch.testing.assert_close(gradient[3, 1], (values[0] - values[1]) / (2 * step), rtol=1e-6, atol=1e-9)


def test_a_failure_is_said():
    manifold = PullbackManifold(StereographicSphere(2))
    z, _ = some(5, 2)
    found = frechet_mean(manifold, z, solver=COARSE, tol=1e-12, max_steps=1)
    assert found.status == (Status.MAX_STEPS,)
    assert not bool(found.converged.any())
    assert float(found.residual) > 1e-12

    def broken(x: Tensor) -> Tensor:
        return torch.cat([x, (x[:, :1] - 0.2).log()], 1)

    z = torch.tensor([[0.3, 0.1], [0.1, 0.4], [2.0, 1.0]], dtype=torch.float64)
    found = frechet_mean(PullbackManifold(broken), z, groups=[0, 0, 1], solver=COARSE)
    assert found.status == (Status.NON_FINITE, Status.CONVERGED)


@pytest.mark.usefixtures("without_type_checks")
class TestErrors:
    manifold = PullbackManifold(StereographicSphere(2))

    def test_weights(self):
        z = torch.zeros(3, 2)
        with pytest.raises(ShapeError, match="one for each point"):
            frechet_mean(self.manifold, z, torch.ones(2))
        for weights in (["a", "b", "c"], [1, None, 1], {}, 1j * torch.ones(3)):
            with pytest.raises(DtypeError, match="weights must be real numbers"):
                frechet_mean(self.manifold, z, weights)
        with pytest.raises(OptionError, match="must not be negative"):
            frechet_mean(self.manifold, z, torch.tensor([1.0, -1.0, 1.0]))
        with pytest.raises(OptionError, match="all zero in a group"):
            frechet_mean(self.manifold, z, torch.tensor([1.0, 0.0, 1.0]), [0, 1, 0])
        with pytest.raises(NonFiniteError, match="weights"):
            frechet_median(self.manifold, z, torch.tensor([1.0, torch.nan, 1.0]))

    def test_groups_and_start(self):
        z = torch.zeros(3, 2)
        with pytest.raises(ShapeError, match="3 whole numbers"):
            frechet_mean(self.manifold, z, groups=[0, 1])
        for groups in (["a", "b", "a"], np.array(list("aba")), [0, None, 1], [[0], [1, 2], 3], [0.0, 1.0, 0.0], {}):
            with pytest.raises(OptionError, match=r"3 whole numbers.*np\.unique"):
                frechet_mean(self.manifold, z, groups=groups)
        with pytest.raises(ShapeError, match=r"start must have shape \(1, 2\)"):
            frechet_mean(self.manifold, z, start=z)
        with pytest.raises(OptionError, match="0 < tol < 1"):
            frechet_mean(self.manifold, z, tol=0)


def test_simplified_steps_see_the_gradients_that_an_expansion_sees():
    space = PullbackManifold(StereographicSphere(2))
    z, _ = some(5, 2)
    p = torch.tensor([[0.1, 0.2], [0.5, -0.1]], dtype=torch.float64)
    group = torch.tensor([0, 1, 1, 0, 1])
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[1:-1, None]
    bent = p[group].unsqueeze(1) * (1 - t) + z.unsqueeze(1) * t + 0.1 * (t * (1 - t))
    star = Star.of(p, bent, z, group)
    other = expand(space, star.through(p + 0.01, bent))
    found, expected = measured(space, star, other), expand(space, star)
    torch.testing.assert_close(found.slope, expected.slope)
    torch.testing.assert_close(found.at.gradient, expected.at.gradient)
    torch.testing.assert_close(found.at.energy, expected.at.energy)
    torch.testing.assert_close(found.at.residual, expected.at.residual, rtol=0.1, atol=0)
    assert torch.equal(found.own, other.own)
