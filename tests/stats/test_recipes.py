"""What scikit-learn and UMAP make of a matrix of geodesic distances: the recipes of docs/statistics.rst."""

import numpy as np
import pytest
import torch
from sklearn.cluster import DBSCAN, AgglomerativeClustering
from sklearn.manifold import MDS, TSNE
from sklearn.metrics import adjusted_rand_score

from pullgeo import Newton, PullbackManifold, pairwise_distances
from pullgeo.geodesic import StraightLine
from pullgeo.stats.estimators.neighbors import GeodesicKNeighbors
from pullgeo.testing.charts import StereographicSphere

SPHERE = StereographicSphere(2)
CENTERS = torch.tensor([[0.0, 0.0], [1.2, 0.0], [-0.4, 1.1]], dtype=torch.float64)
EACH = 11


@pytest.fixture(scope="module")
def groups() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three groups of points on a sphere: distances, labels, and great circles between the points in space."""
    labels = torch.arange(3).repeat_interleave(EACH)
    noise = torch.randn(3 * EACH, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = CENTERS[labels] + 0.08 * noise
    solver = Newton(segments=8, starts=(StraightLine(),))
    D = pairwise_distances(PullbackManifold(SPHERE), z, solver=solver)
    cosine = (SPHERE(z) @ SPHERE(z).T).clamp(-1, 1)
    return D, labels.numpy(), torch.acos(cosine).fill_diagonal_(0).numpy()


def test_clusterings(groups: tuple[np.ndarray, np.ndarray, np.ndarray]):
    D, labels, circles = groups
    np.testing.assert_allclose(D, circles, atol=1e-4)
    found = DBSCAN(eps=0.5, metric="precomputed").fit_predict(D)
    assert adjusted_rand_score(labels, found) == 1
    found = AgglomerativeClustering(3, metric="precomputed", linkage="average").fit_predict(D)
    assert adjusted_rand_score(labels, found) == 1
    half = np.arange(len(D)) % 2 == 0
    neighbors = GeodesicKNeighbors("precomputed").fit(D[np.ix_(half, half)], labels[half])
    np.testing.assert_array_equal(neighbors.predict(D[np.ix_(~half, half)]), labels[~half])


def apart(x: np.ndarray, labels: np.ndarray) -> bool:
    """Whether every point of a picture is nearest to one of its own group."""
    flat = np.linalg.norm(x[:, None] - x, axis=2)
    np.fill_diagonal(flat, np.inf)
    return bool((labels[flat.argmin(1)] == labels).all())


def test_embeddings(groups: tuple[np.ndarray, np.ndarray, np.ndarray]):
    D, labels, circles = groups
    key = "metric" if "metric_mds" in MDS().get_params() else "dissimilarity"  # before scikit-learn 1.8
    x = MDS(**{key: "precomputed"}, init="random", n_init=1, random_state=0).fit_transform(D)
    flat = np.linalg.norm(x[:, None] - x, axis=2)
    # a part of a sphere this small lies nearly isometrically in the plane
    assert np.corrcoef(flat.ravel(), circles.ravel())[0, 1] > 0.99
    assert apart(x, labels)
    x = TSNE(metric="precomputed", init="random", perplexity=8, random_state=0).fit_transform(D)
    assert apart(x, labels)


@pytest.mark.filterwarnings("ignore")
def test_umap(groups: tuple[np.ndarray, np.ndarray, np.ndarray]):
    umap = pytest.importorskip("umap", exc_type=ImportError)
    D, labels, _ = groups
    x = umap.UMAP(metric="precomputed", n_neighbors=8, random_state=0).fit_transform(D)
    assert x.shape == (len(D), 2)
    assert apart(x, labels)
