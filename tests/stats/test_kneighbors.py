"""Sparse matrices of nearest neighbours."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.cluster import DBSCAN
from torch import Tensor, nn

from pullgeo import PullbackManifold
from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.stats import kneighbors_graph
from pullgeo.testing.charts import StereographicSphere

SPHERE = StereographicSphere(2)


def great_circles(z: Tensor) -> np.ndarray:
    p = SPHERE(z)
    return 2 * torch.asin((torch.cdist(p, p) / 2).clamp(max=1)).numpy()


def nearest(D: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    D = D.copy()
    np.fill_diagonal(D, np.inf)
    order = np.argsort(D, 1)[:, :k]
    return order, np.take_along_axis(D, order, 1)


def rows(graph: csr_array) -> tuple[np.ndarray, np.ndarray]:
    k = int(graph.indptr[1])
    np.testing.assert_array_equal(np.diff(graph.indptr), k)
    return graph.indices.reshape(-1, k), graph.data.reshape(-1, k)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sphere = StereographicSphere(2)

    def decode(self, z: Tensor) -> Tensor:
        return self.sphere(z)


@pytest.mark.parametrize("decoder", [SPHERE, Model().decode, lambda z: SPHERE(z)], ids=["module", "bound", "function"])
def test_neighbours_on_the_sphere(decoder: Callable[[Tensor], Tensor], generator: torch.Generator):
    z = 0.7 * torch.randn(251, 2, dtype=torch.float64, generator=generator)
    graph, report = kneighbors_graph(PullbackManifold(decoder), z, 7, check_pairs=31, return_report=True)
    assert graph.shape == (251, 251)
    found, length = rows(graph)
    order, distance = nearest(great_circles(z), 7)
    # neighbours at nearly equal distances may change places
    assert np.mean(found == order) > 0.98
    np.testing.assert_allclose(
        length, distance, rtol=3e-2
    )  # great circles between points far out are no straight lines
    assert np.median(length / distance - 1) < 1e-3
    assert (length / distance).min() > 1 - 1e-4
    np.testing.assert_array_equal(length, np.sort(length, 1))
    # the report compares with geodesics, which are great circles here
    i, j = report.pairs.T
    np.testing.assert_allclose(report.exact, great_circles(z)[i, j], rtol=1e-5)
    np.testing.assert_array_equal(report.graph, graph[i, j])


def test_geodesic_edges_are_exact(generator: torch.Generator):
    z = 0.7 * torch.randn(53, 2, dtype=torch.float64, generator=generator)
    found, length = rows(kneighbors_graph(PullbackManifold(SPHERE), z, 5, edges="geodesic", check_pairs=0))
    order, distance = nearest(great_circles(z), 5)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(length, distance, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("candidates", [13, 90])
def test_the_metric_chooses(candidates: int, dtype: torch.dtype, generator: torch.Generator):
    """The latent space is stretched by 1 to 10: with all points as candidates, every neighbour is right."""
    z = torch.randn(91, 3, generator=generator)
    stretch = nn.Linear(3, 5, bias=False).to(dtype)
    stretch.weight.data = torch.randn(5, 3, generator=generator).to(dtype) * torch.tensor([10.0, 3.0, 1.0]).to(dtype)
    y = z.double() @ stretch.weight.detach().double().T
    order, distance = nearest(torch.cdist(y, y).numpy(), 6)
    with torch.no_grad():
        graph = kneighbors_graph(PullbackManifold(stretch), z, 6, candidates=candidates)
    found, length = rows(graph)
    agree = float(np.mean([len(set(a) & set(b)) / 6 for a, b in zip(found, order, strict=True)]))
    if candidates == 90:
        assert agree == 1.0
        np.testing.assert_allclose(length, distance, rtol=1e-6)
    else:
        assert 0.3 < agree < 1.0
        assert (length >= distance * (1 - 1e-6)).all()


def test_equal_points_are_neighbours_at_distance_zero():
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).repeat(5, 1)
    found, length = rows(kneighbors_graph(PullbackManifold(nn.Identity()), z, 4))
    for i, others in enumerate(found):
        assert sorted(others) == [j for j in range(10) if j % 2 == i % 2 and j != i]
    np.testing.assert_array_equal(length, 0)


def test_around_a_hole(generator: torch.Generator):
    """No edge crosses where the decoder is not finite; a point that has no neighbours left is named."""
    manifold = PullbackManifold(lambda z: z * (z.square().sum(1, keepdim=True) - 1).sqrt())
    angle = torch.linspace(0, 6.2, 40, dtype=torch.float64)
    z = torch.stack([angle.cos(), angle.sin()], 1) * 1.1
    found, length = rows(kneighbors_graph(manifold, z, 2, check_pairs=0))
    assert np.isfinite(length).all()
    assert all(min(abs(i - j), 40 - abs(i - j)) <= 2 for i, row in enumerate(found) for j in row)
    with pytest.raises(NonFiniteError, match=r"at 1 of 41 latents, the first at index 40"):
        kneighbors_graph(manifold, torch.cat([z, z.new_zeros(1, 2)]), 2, check_pairs=0)
    opposite = torch.tensor([[-1.1, 0.0], [1.1, 0.0], [0.0, -1.1]], dtype=torch.float64)
    with pytest.raises(NonFiniteError, match=r"point 0 has 0 neighbours.*expected 1; 2 other points"):
        kneighbors_graph(manifold, opposite, 1, check_pairs=0)


@pytest.mark.parametrize("candidates", [None, 29])
def test_neighbours_among_other_points(candidates: int | None, generator: torch.Generator):
    z, y = (0.7 * torch.randn(n, 2, dtype=torch.float64, generator=generator) for n in (17, 43))
    y[5] = z[3]
    graph, report = kneighbors_graph(
        PullbackManifold(SPHERE), z, 4, y=y, candidates=candidates, edges="geodesic", check_pairs=11, return_report=True
    )
    assert graph.shape == (17, 43)
    found, length = rows(graph)
    p, q = SPHERE(z), SPHERE(y)
    D = 2 * torch.asin((torch.cdist(p, q) / 2).clamp(max=1)).numpy()
    order = np.argsort(D, 1)[:, :4]
    assert np.mean(found == order) > 0.95
    np.testing.assert_allclose(length, np.take_along_axis(D, order, 1), rtol=1e-4, atol=1e-12)
    assert (found[3, 0], length[3, 0]) == (5, 0)
    i, j = report.pairs.T
    np.testing.assert_allclose(report.exact, D[i, j], rtol=1e-5)
    with pytest.raises(ShapeError, match=r"same number of columns, got \(17, 2\) and \(43, 3\)"):
        kneighbors_graph(PullbackManifold(SPHERE), z, 4, y=torch.zeros(43, 3))


def test_scikit_learn_takes_it(generator: torch.Generator):
    centres = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0]]).repeat_interleave(20, 0)
    z = centres + 0.1 * torch.randn(60, 2, generator=generator)
    graph = kneighbors_graph(PullbackManifold(nn.Identity()), z, 6)
    labels = DBSCAN(eps=0.5, metric="precomputed", min_samples=3).fit_predict(graph.maximum(graph.T))
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 20))
    ones = kneighbors_graph(PullbackManifold(nn.Identity()), z, 6, mode="connectivity")
    np.testing.assert_array_equal(ones.toarray(), graph.toarray() > 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors must be a whole number, between 1 and 4"),
        ({"n_neighbors": 5}, "n_neighbors must be a whole number, between 1 and 4"),
        ({"candidates": 1}, "candidates must be a whole number, between 2 and 4"),
        ({"check_pairs": -1}, "check_pairs must be"),
        ({"mode": "length"}, "mode must be 'distance' or 'connectivity', got 'length'"),
        ({"edges": "curve"}, "edges must be 'chord' or 'geodesic', got 'curve'"),
        ({"generator": 3}, "generator must be a torch.Generator"),
    ],
)
def test_misuse(options: dict[str, object], message: str, without_type_checks: None):
    with pytest.raises(OptionError, match=message):
        kneighbors_graph(PullbackManifold(SPHERE), torch.randn(5, 2), **{"n_neighbors": 2, **options})


def test_points_too_far_apart():
    with pytest.raises(NonFiniteError, match="no neighbours"):
        kneighbors_graph(PullbackManifold(nn.Identity()), np.array([[0.0, 0.0], [1e200, 0.0], [-1e200, 1.0]]), 1)
