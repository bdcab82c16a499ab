"""Every statistic on one point, on equal points, and on points that rounding errors hardly tell apart."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pullgeo import Manifold, MetricManifold, Newton, PullbackManifold, Status
from pullgeo.errors import SingularMetricError
from pullgeo.geodesic import StraightLine
from pullgeo.stats import (
    NeighbourGraph,
    fit_land,
    frechet_mean,
    frechet_median,
    geodesic_regression,
    pairwise_distances,
    tangent_pca,
)
from pullgeo.stats.estimators.kmeans import FrechetKMeans
from pullgeo.stats.estimators.neighbors import GeodesicKNeighbors
from pullgeo.stats.estimators.principal import PrincipalGeodesicAnalysis
from pullgeo.testing.charts import PoincareBall, StereographicSphere


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 20)).to(dtype)


MANIFOLDS: dict[str, Callable[[], Manifold]] = {
    "network": lambda: PullbackManifold(network()),
    "network in float32": lambda: PullbackManifold(network(torch.float32)),
    "sphere": lambda: PullbackManifold(StereographicSphere(2)),
    "half-plane": lambda: MetricManifold(PoincareBall(2).metric),
}

SPREADS = {"equal": 0.0, "ulp": 1e-16, "1e-12": 1e-12, "1e-9": 1e-9}

ULP = 2.0**-53
"""Rounding error of coordinates between 1/2 and 1."""


def clusters(spread: float, groups: int = 7, size: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Points around centres, which group each is in, and the centres; group g has between 1 and ``size`` points."""
    generator = torch.Generator().manual_seed(3)
    centre = 0.2 * torch.randn(groups, 2, dtype=torch.float64, generator=generator)
    count = torch.arange(groups) % size + 1
    group = torch.arange(groups).repeat_interleave(count)
    noise = torch.randn(len(group), 2, dtype=torch.float64, generator=generator)
    z = centre[group] + spread * noise
    if spread == SPREADS["ulp"]:
        z = torch.where(noise > 0, torch.nextafter(centre[group], torch.full_like(z, 9.0)), centre[group])
    return z, group, centre


def flat_median(u: Tensor) -> Tensor:
    """The geometric median in the plane by Weiszfeld's iteration, or the vertex that is it."""
    for i in range(len(u)):
        away = (u - u[i]).norm(dim=1)
        if float(((u - u[i])[away > 0] / away[away > 0, None]).sum(0).norm()) <= int((away == 0).sum()):
            return u[i]
    p = u.mean(0)
    for _ in range(3000):
        weight = 1 / (u - p).norm(dim=1)
        p = (weight[:, None] * u).sum(0) / weight.sum()
    return p


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", MANIFOLDS)
def test_means_of_tight_groups_are_those_of_the_plane(name: str, spread: str) -> None:
    z, group, _ = clusters(SPREADS[spread])
    w = torch.rand(len(z), dtype=torch.float64) + 0.1
    found = frechet_mean(MANIFOLDS[name](), z, w, group)
    assert set(found.status) == {Status.CONVERGED}
    assert bool((found.residual <= 1e-8).all())
    total = torch.zeros(7, dtype=z.dtype).index_add(0, group, w)
    first = z[[int((group == g).nonzero()[0]) for g in range(7)]]
    expected = first + torch.zeros_like(first).index_add(0, group, w[:, None] * (z - first[group])) / total[:, None]
    error = (found.point.detach() - expected).norm(dim=1)
    assert bool((error <= 1e-3 * SPREADS[spread] + 2e-16).all())
    assert bool(found.geodesics.converged.all())


@pytest.mark.quick(5)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", MANIFOLDS)
def test_medians_of_tight_groups(name: str, spread: str) -> None:
    manifold = MANIFOLDS[name]()
    z, group, centre = clusters(SPREADS[spread])
    found = frechet_median(manifold, z, groups=group)
    assert set(found.status) == {Status.CONVERGED}
    assert bool((found.residual <= 1e-8).all())
    for g in range(7):
        u = z[group == g] - centre[g]
        away = (found.point[g].detach() - centre[g]).norm()
        assert float(away) <= float(u.norm(dim=1).max()) + 2e-16
        if spread in ("1e-9", "1e-12"):
            size = SPREADS[spread]
            root = torch.linalg.cholesky(manifold.in_double().metric(centre[g : g + 1]).dense().detach()[0])
            total = (u @ root).div(size)
            expected = (total - flat_median(total)).norm(dim=1).sum()
            reached = (total - (found.point[g].detach() - centre[g]) @ root / size).norm(dim=1).sum()
            assert float(reached) <= float(expected) * (1 + 1e-6) + 100 * ULP / size


@pytest.mark.parametrize("spread", [1e-9, 1e-12, 1e-14])
@pytest.mark.parametrize("name", MANIFOLDS)
def test_medians_are_exact_in_units_of_the_cluster(name: str, spread: float) -> None:
    """Three directions at equal angles, of very different lengths: the median is where they meet, by symmetry."""
    manifold = MANIFOLDS[name]()
    vertex = torch.tensor([[0.3, -0.2], [-0.1, 0.4]], dtype=torch.float64)
    root = torch.linalg.cholesky(manifold.in_double().metric(vertex).dense().detach())
    angle = 2 * torch.pi * torch.arange(3, dtype=torch.float64) / 3 + 0.4
    directions = torch.stack([angle.cos(), angle.sin()], 1) * torch.tensor([[1.0], [0.4], [2.0]], dtype=torch.float64)
    # v with vᵀ G v = 1: w = Rᵀ v
    away = torch.linalg.solve_triangular(root.mT, directions.mT.expand(2, 2, 3), upper=True).mT
    z = (vertex.unsqueeze(1) + spread * away).flatten(0, 1)
    found = frechet_median(manifold, z, groups=torch.arange(2).repeat_interleave(3))
    assert set(found.status) == {Status.CONVERGED}
    error = (found.point.detach() - vertex).norm(dim=1) / spread
    assert bool((error <= 20 * spread + 20 * ULP / spread).all())


@pytest.mark.parametrize("statistic", [frechet_mean, frechet_median])
def test_variances_of_tight_groups_and_their_derivatives(statistic: Callable) -> None:
    manifold = PullbackManifold(network())
    for spread in (1e-6, 1e-9, 1e-12, 1e-14):
        z = torch.tensor([[0.3, -0.2]], dtype=torch.float64) + spread * torch.tensor(
            [[0.0, 0.0], [1.0, 0.3], [-0.4, 0.8], [-0.9, -0.7], [0.3, -1.1]], dtype=torch.float64
        )
        z.requires_grad_()
        found = statistic(manifold, z)
        (gradient,) = torch.autograd.grad(found.variance.sum(), z)
        u = (z - found.point).detach()
        G = manifold.metric(found.point.detach()).dense().detach()[0]
        expected = torch.einsum("ni,ij,nj->n", u, G, u).mean()
        small = 20 * spread + 2e-5 * min(1.0, 1e-12 / spread)
        torch.testing.assert_close(found.variance.detach()[0], expected, rtol=small, atol=0)
        if statistic is frechet_mean:  # where the mean is stationary
            torch.testing.assert_close(gradient, 2 * u @ G / 5, rtol=0, atol=(20 * spread + 1e-15 / spread) * spread)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("statistic", [frechet_mean, frechet_median])
def test_one_point_is_its_own_centre(statistic: Callable, dtype: torch.dtype) -> None:
    z = torch.randn(101, 2, generator=torch.Generator().manual_seed(7), dtype=dtype)
    found = statistic(PullbackManifold(network()), z, groups=torch.arange(101))
    assert set(found.status) == {Status.CONVERGED}
    assert set(found.geodesics.status) == {Status.COINCIDENT}
    assert torch.equal(found.point, z)
    assert not bool(found.variance.any())


@pytest.mark.parametrize("statistic", [frechet_mean, frechet_median])
def test_points_without_weight_say_nothing(statistic: Callable) -> None:
    def broken(z: Tensor) -> Tensor:
        return torch.cat([z, z[:, :1].log()], 1)  # NaN to the left of 0

    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.5, 0.3], [-1.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    w = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    quick = Newton(segments=8, starts=(StraightLine(),), max_steps=20)
    found = statistic(PullbackManifold(broken), z, w, start=z[:1], solver=quick)
    assert found.status == (Status.CONVERGED,)
    torch.testing.assert_close(found.point, z[:1])
    assert float(found.variance) == 0


@pytest.mark.heavy
def test_a_median_leaves_a_point_that_cannot_hold_it() -> None:
    z = torch.tensor([[0.0, 0.0], [0.0, 1e-16], [0.3, 0.0], [0.4, 0.1], [0.4, -0.1], [0.5, 0.0]], dtype=torch.float64)
    manifold = PullbackManifold(StereographicSphere(2))
    there, elsewhere = (frechet_median(manifold, z, start=start) for start in (z[:1], z[2:3] + 0.02))
    assert there.status == elsewhere.status == (Status.CONVERGED,)
    torch.testing.assert_close(there.point, elsewhere.point, rtol=0, atol=1e-7)
    assert float((there.point - z[0]).norm()) > 0.2


def test_constant_decoders_have_any_point_for_a_centre() -> None:
    z = torch.randn(5, 2, dtype=torch.float64)
    for value, statistic in product((1.0, 0.0), (frechet_mean, frechet_median)):
        constant = PullbackManifold(lambda z, value=value: torch.full((len(z), 3), value, dtype=z.dtype))
        found = statistic(constant, z)
        assert set(found.geodesics.status) <= {Status.DEGENERATE, Status.COINCIDENT}
        assert found.status == (Status.CONVERGED,)
        assert bool(torch.isfinite(found.point).all())
        assert float(found.variance) == 0


@pytest.mark.parametrize("spread", SPREADS)
def test_estimators_of_tight_clusters(spread: str) -> None:
    z, group, _ = clusters(SPREADS[spread], groups=3, size=4)
    X, y = z.numpy(), group.numpy()
    sphere = PullbackManifold(StereographicSphere(2))
    kmeans = FrechetKMeans(sphere, 3, random_state=0).fit(X)
    same = kmeans.labels_[:, None] == kmeans.labels_
    np.testing.assert_array_equal(same, y[:, None] == y)
    assert kmeans.inertia_ <= 1e-15
    for weights in ("uniform", "distance"):
        neighbours = GeodesicKNeighbors(sphere, 1, weights=weights).fit(X, y)
        np.testing.assert_array_equal(neighbours.predict(X), y)
    exact, status = pairwise_distances(sphere, X, return_status=True)
    assert all(end.converged for end in status.ravel())
    assert bool((exact[y[:, None] == y] <= 1e-8).all())
    graph, report = pairwise_distances(sphere, X, method=NeighbourGraph(2, check_pairs=20), return_status=True)
    apart = y[:, None] != y
    assert bool((graph[apart] >= (1 - 1e-6) * exact[apart]).all())
    assert np.isfinite(report.median_error) or not bool(apart.any())


def test_estimators_of_equal_points() -> None:
    z = torch.tensor([[0.3, -0.2]], dtype=torch.float64).expand(5, 2).clone()
    manifold = PullbackManifold(network())
    found = tangent_pca(manifold, z)
    assert not bool(found.variances.any())
    assert found.ratios.tolist() == [0.0, 0.0]
    fitted = PrincipalGeodesicAnalysis(manifold).fit(z.numpy())
    assert not bool(fitted.explained_variance_ratio_.any())
    for clusters in (2, 3):
        kmeans = FrechetKMeans(manifold, clusters, random_state=0).fit(z.numpy())
        assert kmeans.inertia_ == 0
        assert kmeans.n_iter_ == 1
        np.testing.assert_array_equal(kmeans.labels_, kmeans.predict(z.numpy()))
    with pytest.raises(SingularMetricError, match="not positive definite"):
        fit_land(manifold, z, generator=torch.Generator().manual_seed(0), samples=20)
    fit = geodesic_regression(manifold, torch.arange(5.0), z)
    assert fit.status is Status.CONVERGED
    assert not bool(fit.velocity.any())
    torch.testing.assert_close(fit.begin, z[0])
