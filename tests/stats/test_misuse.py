"""What users of statistics get wrong: each ends in a named error, or in the right result."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pullgeo import PullbackManifold, pairwise_distances
from pullgeo.errors import DtypeError, ModuleError, NonFiniteError, OptionError, PullgeoError
from pullgeo.stats import LAND, NeighbourGraph, fit_land, frechet_mean, frechet_median, geodesic_regression, tangent_pca
from pullgeo.stats.estimators.kmeans import FrechetKMeans
from pullgeo.stats.estimators.neighbors import GeodesicKNeighbors
from pullgeo.stats.estimators.principal import PrincipalGeodesicAnalysis

pytestmark = pytest.mark.usefixtures("without_type_checks")

LINEAR = nn.Linear(2, 3).double()
PLANE = PullbackManifold(LINEAR)
Z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
T = np.arange(5.0)
Y = np.array([0, 0, 1, 1, 1])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("manifold", [LINEAR, None, PullbackManifold, lambda z: z])
def test_what_is_no_manifold(manifold: object) -> None:
    calls: list[Callable[[], object]] = [
        lambda: pairwise_distances(manifold, Z),
        lambda: pairwise_distances(manifold, Z, method="graph"),
        lambda: frechet_mean(manifold, Z),
        lambda: frechet_median(manifold, Z),
        lambda: tangent_pca(manifold, Z),
        lambda: geodesic_regression(manifold, T, Z),
        lambda: fit_land(manifold, Z, generator=seeded()),
        lambda: LAND.of(manifold, Z[0], torch.eye(2), generator=seeded()),
        lambda: GeodesicKNeighbors(manifold).fit(Z, Y),
        lambda: FrechetKMeans(manifold, 1).fit(Z),
        lambda: PrincipalGeodesicAnalysis(manifold).fit(Z),
    ]
    for call in calls:
        with pytest.raises(OptionError, match=r"PullbackManifold\(decoder\)"):
            call()


@pytest.mark.parametrize("value", ["a", None, 2.5, -1, float("nan"), True, [1]])
def test_options_that_are_no_numbers_in_range(value: object) -> None:
    calls: list[Callable[[], object]] = [
        lambda: frechet_mean(PLANE, Z, tol=value),
        lambda: frechet_mean(PLANE, Z, max_steps=value),
        lambda: frechet_median(PLANE, Z, max_steps=value),
        lambda: geodesic_regression(PLANE, T, Z, tol=value),
        lambda: geodesic_regression(PLANE, T, Z, max_steps=value),
        lambda: fit_land(PLANE, Z, generator=seeded(), tol=value),
        lambda: fit_land(PLANE, Z, generator=seeded(), max_steps=value),
        lambda: fit_land(PLANE, Z, generator=seeded(), samples=value),
        lambda: pairwise_distances(PLANE, Z, batch_size=value),
        lambda: NeighbourGraph(neighbours=value),
        lambda: NeighbourGraph(check_pairs=value),
        lambda: GeodesicKNeighbors(PLANE, value).fit(Z, Y),
        lambda: FrechetKMeans(PLANE, value).fit(Z),
        lambda: FrechetKMeans(PLANE, 1, n_init=value).fit(Z),
        lambda: FrechetKMeans(PLANE, 1, max_iter=value).fit(Z),
    ]
    if value is not None:  # all of them
        calls.append(lambda: tangent_pca(PLANE, Z, components=value))
        calls.append(lambda: PrincipalGeodesicAnalysis(PLANE, value).fit(Z))
    for call in calls:
        with pytest.raises(OptionError, match="must be a"):
            call()


def test_numbers_of_numpy_are_numbers() -> None:
    assert pairwise_distances(PLANE, Z, batch_size=np.int64(3)).shape == (5, 5)
    assert tangent_pca(PLANE, Z, components=np.int64(1)).directions.shape == (1, 2)
    assert frechet_mean(PLANE, Z, tol=np.float32(1e-6)).converged.all()


def test_points_without_values() -> None:
    for z in (Z.to("meta"), Z.to_sparse()):
        for call in (pairwise_distances, frechet_mean, tangent_pca):
            with pytest.raises(DtypeError, match="to_dense"):
                call(PLANE, z)


def test_vectors_that_are_no_numbers() -> None:
    pca, line = tangent_pca(PLANE, Z), geodesic_regression(PLANE, T, Z)
    for bad in ("a", ["a"], [None], {}):
        calls: list[Callable[[], object]] = [
            lambda bad=bad: geodesic_regression(PLANE, bad, Z),
            lambda bad=bad: line.predict(bad),
            lambda bad=bad: pca.points(bad),
            lambda bad=bad: pca.principal_geodesic(0, bad),
            lambda bad=bad: tangent_pca(PLANE, Z, base=bad),
        ]
        for call in calls:
            with pytest.raises(DtypeError, match="must be real numbers"):
                call()
    with pytest.raises(OptionError, match="component must be a whole number"):
        pca.principal_geodesic("a", T)


def test_sources_of_randomness() -> None:
    for generator in (None, 3):
        with pytest.raises(OptionError, match="manual_seed"):
            fit_land(PLANE, Z, generator=generator)
        with pytest.raises(OptionError, match="manual_seed"):
            LAND.of(PLANE, Z[0], torch.eye(2), generator=generator)
    with pytest.raises(OptionError, match="manual_seed"):
        NeighbourGraph(generator=3)


def test_covariances_are_symmetric() -> None:
    C = torch.tensor([[1.0, 0.9], [0.0, 1.0]], dtype=torch.float64)
    for bad in (C, C * torch.nan):
        with pytest.raises(OptionError, match="not symmetric"):
            LAND.of(PLANE, Z[0], bad, generator=seeded())
    arrays = LAND.of(PLANE, Z[0].numpy(), np.eye(2), generator=seeded(), samples=50)
    tensors = LAND.of(PLANE, Z[0], torch.eye(2, dtype=torch.float64), generator=seeded(), samples=50)
    assert arrays.log_normalizer == tensors.log_normalizer


def test_graphs_of_points_that_are_none() -> None:
    with pytest.raises(ModuleError, match="d = 3"):
        pairwise_distances(PLANE, torch.zeros(5, 3, dtype=torch.float64), method="graph")
    with pytest.raises(NonFiniteError, match="overflow"):
        pairwise_distances(PLANE, 1e300 * Z, method="graph")


def test_estimators_take_tensors_that_require_gradients() -> None:
    z = Z.clone().requires_grad_()
    assert GeodesicKNeighbors(PLANE, 1).fit(z, torch.tensor(Y)).predict(z).tolist() == Y.tolist()
    assert FrechetKMeans(PLANE, 2, random_state=0).fit(z).predict(z).shape == (5,)
    pga = PrincipalGeodesicAnalysis(PLANE).fit(z)
    assert np.allclose(pga.inverse_transform(torch.from_numpy(pga.transform(z)).requires_grad_()), Z)


def test_estimators_before_they_are_fitted() -> None:
    for estimator in (FrechetKMeans(PLANE), PrincipalGeodesicAnalysis(PLANE)):
        with pytest.raises(ValueError, match="not fitted"):
            estimator.transform(Z)
    known = GeodesicKNeighbors("precomputed", 1).fit(np.zeros((5, 5)), Y)
    with pytest.raises(PullgeoError, match="below 0"):
        known.predict(-np.ones((2, 5)))
