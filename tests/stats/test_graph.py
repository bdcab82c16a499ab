"""Distances along neighbourhood graphs."""

import logging

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, pairwise_distances
from pullgeo.errors import OptionError, ShapeError
from pullgeo.metric import Dense
from pullgeo.stats import NeighbourGraph
from pullgeo.stats.graph_distances import edge_lengths
from pullgeo.testing.charts import StereographicSphere

SPHERE = StereographicSphere(2)
MANIFOLD = PullbackManifold(SPHERE)


def sphere_points(generator: torch.Generator, n: int) -> torch.Tensor:
    return 0.7 * torch.randn(n, 2, dtype=torch.float64, generator=generator)


def great_circles(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    p, q = (SPHERE(v) for v in (x, y))
    return 2 * torch.asin((torch.cdist(p, q) / 2).clamp(max=1)).numpy()


def test_it_comes_close_to_great_circles_from_above(generator: torch.Generator):
    z = sphere_points(generator, 251)
    D, report = pairwise_distances(
        MANIFOLD, z, method=NeighbourGraph(neighbours=40, check_pairs=31), return_status=True
    )
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(D.diagonal(), 0)
    i, j = np.triu_indices(len(z), 1)
    ratio = D[i, j] / great_circles(z, z)[i, j]
    assert ratio.min() > 1 - 1e-4
    assert np.median(ratio) < 1.02
    # the report's sample tells the same as all pairs
    assert report.pairs.shape == (31, 2)
    np.testing.assert_allclose(report.exact, great_circles(z, z)[tuple(report.pairs.T)], rtol=1e-5)
    np.testing.assert_array_equal(report.graph, D[tuple(report.pairs.T)])
    assert 0 < report.median_error < 3 * np.median(ratio - 1)
    assert "31 geodesics" in str(report)


def test_more_neighbours_supporting_points_and_geodesic_edges_come_closer(generator: torch.Generator):
    z = sphere_points(generator, 61)
    i, j = np.triu_indices(61, 1)

    def error(**options: object) -> float:
        D = pairwise_distances(MANIFOLD, z, method=NeighbourGraph(check_pairs=0, **options))
        return float(np.mean(D[i, j] / great_circles(z, z)[i, j] - 1))

    assert error(neighbours=20) < error(neighbours=5) / 2
    assert error(neighbours=20, edges="geodesic") < error(neighbours=20)


def test_supporting_points_let_paths_bend(generator: torch.Generator):
    z = sphere_points(generator, 7) * 3
    i, j = np.triu_indices(7, 1)
    support = sphere_points(generator, 600).numpy() * 3
    errors = [
        np.mean(pairwise_distances(MANIFOLD, z, method=graph)[i, j] / great_circles(z, z)[i, j] - 1)
        for graph in (NeighbourGraph(), NeighbourGraph(support=support))
    ]
    assert errors[1] < errors[0] / 3


def test_refined_paths_come_close_in_many_dimensions(generator: torch.Generator):
    sphere = StereographicSphere(7)
    z = 0.5 * torch.randn(41, 7, dtype=torch.float64, generator=generator)
    p = sphere(z)
    exact = 2 * torch.asin((torch.cdist(p, p) / 2).clamp(max=1)).numpy()
    i, j = np.triu_indices(41, 1)
    graphs = [NeighbourGraph(10, check_pairs=0, refine=steps) for steps in (0, 3, 8)]
    found = [pairwise_distances(PullbackManifold(sphere), z, method=graph) for graph in graphs]
    for D in found:
        np.testing.assert_array_equal(D, D.T)
        np.testing.assert_array_equal(D.diagonal(), 0)
    errors = [D[i, j] / exact[i, j] - 1 for D in found]
    assert min(error.min() for error in errors) > -1e-3
    # no distance grows, and they come near to those of geodesics
    assert bool((found[1] <= found[0]).all())
    assert np.median(errors[0]) > 0.05
    assert np.median(errors[1]) < 0.01
    assert np.median(errors[2]) < 2e-4


def test_paths_are_refined_from_one_set_to_another_and_where_the_decoder_ends(generator: torch.Generator):
    z, y = sphere_points(generator, 43) / 2, sphere_points(generator, 37) / 2
    y[5] = z[3]
    D = pairwise_distances(MANIFOLD, z, y, method=NeighbourGraph(refine=6))
    assert D[3, 5] == 0
    np.testing.assert_allclose(D, great_circles(z, y), rtol=1e-3, atol=1e-12)

    def decoder(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, (1.5 - x).log()], 1)

    line = np.array([[0.0], [1.0], [2.0], [0.0]])
    plain, refined = (
        pairwise_distances(PullbackManifold(decoder), line, method=NeighbourGraph(check_pairs=0, refine=steps))
        for steps in (0, 2)
    )
    np.testing.assert_allclose(refined, plain, rtol=1e-3)
    assert pairwise_distances(MANIFOLD, z[:1].repeat(3, 1), method=NeighbourGraph(refine=1)).tolist() == 3 * [[0.0] * 3]


def test_from_one_set_to_another_and_equal_points(generator: torch.Generator):
    z, y = sphere_points(generator, 43) / 2, sphere_points(generator, 37) / 2
    y[5], y[7] = z[3], y[6]
    D = pairwise_distances(MANIFOLD, z, y, method="graph")
    assert D.shape == (43, 37)
    assert D[3, 5] == 0
    np.testing.assert_array_equal(D[:, 6], D[:, 7])
    np.testing.assert_allclose(D, great_circles(z, y), rtol=0.1, atol=1e-12)
    assert pairwise_distances(MANIFOLD, z[:1].repeat(3, 1), method="graph").tolist() == 3 * [[0.0] * 3]


def test_pieces_are_joined_where_they_come_closest():
    x = np.concatenate([np.arange(4.0), 10 + np.arange(3.0), 30 + np.arange(5.0)])[:, None]
    D = pairwise_distances(
        PullbackManifold(torch.nn.Linear(1, 3, dtype=torch.float64)), x, method=NeighbourGraph(neighbours=1)
    )
    np.testing.assert_allclose(D / D[0, -1] * 34, np.abs(x - x.T), atol=1e-9)


def test_what_the_decoder_does_not_reach_is_nan():
    def decoder(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, (1.5 - z).log()], 1)

    D = pairwise_distances(
        PullbackManifold(decoder), np.array([[0.0], [1.0], [2.0]]), method=NeighbourGraph(check_pairs=0)
    )
    np.testing.assert_array_equal(np.isnan(D), [[False, False, True], [False, False, True], [True, True, False]])


def test_a_bad_graph_is_logged(generator: torch.Generator, caplog: pytest.LogCaptureFixture):
    z = sphere_points(generator, 41)
    with caplog.at_level(logging.INFO, "pullgeo"):
        pairwise_distances(MANIFOLD, z, method=NeighbourGraph(neighbours=2), solver=Newton(segments=2))
        pairwise_distances(MANIFOLD, z, method=NeighbourGraph(neighbours=40))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "more neighbours" in caplog.records[0].getMessage()


@pytest.mark.usefixtures("without_type_checks")
def test_errors():
    with pytest.raises(OptionError, match="method must be"):
        pairwise_distances(MANIFOLD, torch.zeros(3, 2), method="fast")
    with pytest.raises(OptionError, match="neighbours must be a whole number, at least 1"):
        NeighbourGraph(neighbours=0)
    with pytest.raises(OptionError, match="refine must be a whole number, at least 0"):
        NeighbourGraph(refine=-1)
    with pytest.raises(OptionError, match="'chord' or 'geodesic'"):
        NeighbourGraph(edges="straight")
    with pytest.raises(ShapeError, match="support must have 2 columns"):
        pairwise_distances(MANIFOLD, torch.eye(2), method=NeighbourGraph(support=torch.zeros(3, 3)))


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_edges_that_single_precision_cannot_tell_are_measured_in_double(offset: float):
    """A float32 decoder whose outputs are far larger than their differences; the plane's edges have known lengths."""
    torch.manual_seed(0)
    plane = torch.nn.Linear(2, 5)
    with torch.no_grad():
        plane.bias.fill_(offset)
    z = torch.randn(23, 2) * torch.tensor([1.0, 1e-3])
    D = pairwise_distances(PullbackManifold(plane), z, method=NeighbourGraph(neighbours=22, check_pairs=0))
    images = z.double() @ plane.weight.double().T
    np.testing.assert_allclose(D, torch.cdist(images, images).detach().numpy(), rtol=2e-4, atol=1e-12)


def test_bent_edges_are_measured_as_long_as_they_are():
    a = torch.tensor([[0.1, 0.2], [-0.4, 0.3], [2.0, -1.5]], dtype=torch.float64)
    b = a + torch.tensor([[0.01, 0.02], [0.5, -0.3], [-1.0, 0.9]], dtype=torch.float64)
    t = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None]
    exact = [SPHERE(x + t * (y - x)).diff(dim=0).norm(dim=1).sum() for x, y in zip(a, b, strict=True)]
    # by differences of images, each of which is decoded once, and by segments where there are no flat images
    curved = PullbackManifold(SPHERE, lambda y: torch.eye(y.shape[1]).to(y).expand(len(y), -1, -1))
    assert curved.flat_map(a) is None
    for manifold, tolerance in ((MANIFOLD, 1e-4), (curved, 1e-2)):
        np.testing.assert_allclose(edge_lengths(manifold, a, b, "chord"), torch.stack(exact).numpy(), rtol=tolerance)


def test_flat_images_lie_apart_by_the_lengths_of_chords(generator: torch.Generator):
    factor = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    for ambient in (None, Dense(factor @ factor.mT + torch.eye(3))):
        manifold = PullbackManifold(SPHERE, ambient)
        z = sphere_points(generator, 5)
        images = manifold.flat_map(z[:1])
        assert images is not None
        chords = manifold.chord_lengths(z[None, :, None]).flatten()
        torch.testing.assert_close(images(z).diff(dim=0).norm(dim=1), chords, rtol=1e-12, atol=0)
