"""Estimators with scikit-learn's interface."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import DBSCAN, KMeans
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from pullgeo import Newton, PullbackManifold, pairwise_distances
from pullgeo.curve import straight_line
from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.geodesic import Solution, Solver, Status, StraightLine
from pullgeo.stats import NeighbourGraph
from pullgeo.stats.estimators.kmeans import FrechetKMeans
from pullgeo.stats.estimators.neighbors import GeodesicKNeighbors
from pullgeo.stats.estimators.principal import PrincipalGeodesicAnalysis
from pullgeo.stats.estimators.transformer import GeodesicNeighborsTransformer
from pullgeo.testing.charts import StereographicSphere

QUICK = Newton(segments=4, starts=(StraightLine(),))


class Flat(PullbackManifold):
    """Euclidean space whose geodesics need no search: what is checked is the interface."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())

    def geodesic(self, z0: Tensor, z1: Tensor, solver: Solver | None = None) -> Solution:
        z0, z1 = torch.broadcast_tensors(torch.atleast_2d(z0), torch.atleast_2d(z1))
        length = (z1 - z0).norm(dim=1)
        zero = torch.zeros_like(length)
        return Solution(
            curve=straight_line(z0, z1, 2),
            length=length,
            energy=length.square(),
            status=(Status.CONVERGED,) * len(z0),
            iterations=zero.long(),
            residual=zero,
            error_estimate=zero,
            speed_ratio=zero + 1,
            minima=zero.long() + 1,
        )

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u


@pytest.mark.quick(100)
@parametrize_with_checks(
    [
        GeodesicKNeighbors(Flat()),
        FrechetKMeans(Flat(), 2, random_state=0, max_iter=3),
        PrincipalGeodesicAnalysis(Flat()),
        GeodesicNeighborsTransformer(Flat(), 3),
    ]
)
@pytest.mark.usefixtures("without_type_checks")
def test_conventions(estimator, check):
    check(estimator)


SPHERE = PullbackManifold(StereographicSphere(2))


def clusters(n: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(0)
    centres = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    labels = np.arange(n) % 3
    return centres[labels] + 0.1 * random.randn(n, 2), labels


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_neighbours_are_those_of_the_distance_matrix(weights: str):
    X, y = clusters(23)
    y = np.where(np.arange(23) % 5 == 0, (y + 1) % 3, y)  # some labels are wrong
    train, test = slice(0, 17), slice(14, 23)
    names = np.array(["a", "b", "c"])[y]
    ours = GeodesicKNeighbors(SPHERE, 3, weights=weights, solver=QUICK).fit(X[train], names[train])
    D = pairwise_distances(SPHERE, X, solver=QUICK)
    theirs = KNeighborsClassifier(3, weights=weights, metric="precomputed").fit(D[train, train], names[train])
    np.testing.assert_allclose(ours.predict_proba(X[test]), theirs.predict_proba(D[test, train]), atol=1e-9)
    np.testing.assert_array_equal(ours.predict(X[test]), theirs.predict(D[test, train]))
    near, which = ours.kneighbors(X[test])
    expected_near, expected_which = theirs.kneighbors(D[test, train])
    np.testing.assert_allclose(near, expected_near, atol=1e-9)
    np.testing.assert_array_equal(which, expected_which)
    given = GeodesicKNeighbors("precomputed", 3, weights=weights).fit(X[train], names[train])
    np.testing.assert_array_equal(given.predict(D[test, train]), ours.predict(X[test]))
    graph = GeodesicKNeighbors(SPHERE, 3, weights=weights, method=NeighbourGraph(check_pairs=0)).fit(X[train], y[train])
    assert graph.predict(X[test]).shape == (9,)


def test_geodesics_that_are_not_found_are_no_neighbours():
    X, y = clusters(8)
    never = Newton(max_steps=1, tol=1e-15)
    with pytest.raises(NonFiniteError, match="fewer than 2 geodesics"):
        GeodesicKNeighbors(SPHERE, 2, solver=never).fit(X, y).predict(X + 1)
    with pytest.raises(NonFiniteError, match="drop the rows"):
        FrechetKMeans(SPHERE, 2, solver=never, random_state=0).fit(X)


def test_clusters_are_found_and_centres_are_means():
    X, y = clusters(11)
    kmeans = FrechetKMeans(SPHERE, 3, solver=QUICK, random_state=1, n_init=2).fit(X)
    same = kmeans.labels_[:, None] == kmeans.labels_
    np.testing.assert_array_equal(same, y[:, None] == y)
    D = kmeans.transform(X)
    assert D.shape == (11, 3)
    np.testing.assert_allclose(np.square(D.min(1)).sum(), kmeans.inertia_)
    np.testing.assert_array_equal(kmeans.predict(X), kmeans.labels_)
    chart = StereographicSphere(2)
    for k, centre in enumerate(torch.from_numpy(kmeans.cluster_centers_)):
        members = torch.from_numpy(X[kmeans.labels_ == k])
        assert chart.logmap(centre.expand_as(members), members).mean(0).norm() < 1e-4
    assert clone(kmeans).manifold is not None


def test_flat_clusters_are_those_of_scikit_learn():
    X = np.random.RandomState(0).rand(40, 2)
    ours = FrechetKMeans(Flat(), 3, random_state=0, max_iter=100).fit(X)
    theirs = KMeans(3, init=ours.cluster_centers_, n_init=1).fit(X)
    np.testing.assert_allclose(theirs.cluster_centers_, ours.cluster_centers_)
    assert theirs.inertia_ == pytest.approx(ours.inertia_)


def test_principal_geodesics_there_and_back():
    X = clusters(5)[0][:, ::-1] / 4
    pga = PrincipalGeodesicAnalysis(SPHERE, solver=QUICK)
    Z = pga.fit_transform(X)
    np.testing.assert_allclose(pga.inverse_transform(Z), X, atol=1e-7)
    np.testing.assert_allclose(np.square(Z).mean(0), pga.explained_variance_, atol=1e-9)
    assert pga.explained_variance_ratio_.sum() == pytest.approx(1)
    assert pga.get_feature_names_out().tolist() == ["principalgeodesicanalysis0", "principalgeodesicanalysis1"]
    with pytest.raises(ShapeError, match="expected 2 columns"):
        pga.inverse_transform(Z[:, :1])


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_the_graph_is_that_of_scikit_learn(mode: str):
    X, _ = clusters(40)
    new = X[:7] + 0.01
    ours = GeodesicNeighborsTransformer(Flat(), 5, mode=mode)
    theirs = KNeighborsTransformer(n_neighbors=5 + (mode == "connectivity"), mode=mode)
    graphs = [ours.fit_transform(X), theirs.fit_transform(X), ours.transform(new), theirs.transform(new)]
    np.testing.assert_allclose(graphs[0].toarray(), graphs[1].toarray(), atol=1e-12)
    np.testing.assert_allclose(graphs[2].toarray(), graphs[3].toarray(), atol=1e-12)
    assert [graph.nnz for graph in graphs] == [240, 240, 42, 42]
    assert graphs[0].indices.reshape(40, 6)[:, 0].tolist() == list(range(40))


def test_pipelines_and_searches():
    X, labels = clusters(60)
    found = make_pipeline(
        GeodesicNeighborsTransformer(Flat(), 12), DBSCAN(eps=0.5, metric="precomputed", min_samples=3)
    )
    np.testing.assert_array_equal(found.fit_predict(X), labels)
    encoder = FunctionTransformer(lambda X: X[:, ::-1])
    classify = make_pipeline(encoder, GeodesicKNeighbors(SPHERE, solver=QUICK))
    search = GridSearchCV(classify, {"geodesickneighbors__n_neighbors": [1, 3]}, cv=3).fit(X[:30], labels[:30])
    assert search.best_score_ == 1
    assert clone(search.best_estimator_).get_params()["geodesickneighbors__manifold"] is not None
    pga = PrincipalGeodesicAnalysis(SPHERE, 1, solver=QUICK)
    assert list(pga.fit(X[:5]).get_feature_names_out()) == ["principalgeodesicanalysis0"]


@pytest.mark.usefixtures("without_type_checks")
def test_errors():
    X, y = clusters(6)
    for estimator in (
        GeodesicKNeighbors("flat"),
        FrechetKMeans(None, 2),
        PrincipalGeodesicAnalysis(torch.nn.Identity()),
    ):
        with pytest.raises(OptionError, match="manifold must be"):
            estimator.fit(X, y)
    with pytest.raises(OptionError, match="n_clusters, with n_samples"):
        FrechetKMeans(SPHERE, 7).fit(X)
    with pytest.raises(OptionError, match="n_components"):
        PrincipalGeodesicAnalysis(SPHERE, 3).fit(X)
    with pytest.raises(OptionError, match="'uniform' or 'distance'"):
        GeodesicKNeighbors(SPHERE, weights="none").fit(X, y)
    with pytest.raises(OptionError, match="n_neighbors is 9"):
        GeodesicKNeighbors(SPHERE, 9).fit(X, y).predict(X)
    with pytest.raises(OptionError, match=r"distances \(m, 6\)"):
        GeodesicKNeighbors("precomputed", 1).fit(X, y).predict(X)
