"""Neighbour graphs and shortest paths, against loops over all pairs and all paths."""

import itertools

import numpy as np
import pytest

from pullgeo.errors import NonFiniteError
from pullgeo.numerics.neighbour_graph import PathGraph, joined, nearest, neighbour_edges


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_nearest(random: np.random.Generator):
    points, others = random.normal(size=(7, 3)), random.normal(size=(11, 3))
    for count in (1, 5, 13):
        near = nearest("test", points, others, count)
        assert near.shape == (7, min(count, 11))
        for point, row in zip(points, near, strict=True):
            assert row.tolist() == sorted(range(11), key=lambda j: float(((others[j] - point) ** 2).sum()))[:count]


def test_edges_join_each_point_to_its_neighbours(random: np.random.Generator):
    points = random.normal(size=(13, 2))
    expected = set()
    for i, point in enumerate(points):
        order = sorted(range(13), key=lambda j: float(((points[j] - point) ** 2).sum()))
        expected |= {(min(i, j), max(i, j)) for j in order[1:4]}
    edges = neighbour_edges("test", points, 3)
    assert [tuple(edge) for edge in edges.tolist()] == sorted(expected)
    # no point is its own neighbour, not even among equal points
    same = neighbour_edges("test", np.zeros((5, 2)), 2)
    assert bool((same[:, 0] < same[:, 1]).all())


def test_pieces_are_joined_where_they_come_closest():
    x = np.concatenate([np.arange(4.0), 10 + np.arange(3.0), 30 + np.arange(5.0)])[:, None]
    edges = joined(x, neighbour_edges("test", x, 1))
    assert {(3, 4), (6, 7)} <= {tuple(edge) for edge in edges.tolist()}
    assert len(edges) <= 2 * len(x)


@pytest.mark.parametrize("directed", [False, True])
def test_shortest_paths(random: np.random.Generator, directed: bool):
    n = 6
    pairs = [pair for pair in itertools.permutations(range(n - 1), 2) if directed or pair[0] < pair[1]]
    edges = np.array(pairs)[random.permutation(len(pairs))[: len(pairs) * 2 // 3]]
    lengths = random.uniform(size=len(edges))
    lengths[0], lengths[1], lengths[2] = 0.0, np.inf, np.nan
    table = np.full((n, n), np.inf)
    for (i, j), length in zip(edges, lengths, strict=True):
        if np.isfinite(length):
            table[i, j] = length
            table[j, i] = table[j, i] if directed else length
    best: dict[tuple[int, int], tuple[float, list[int]]] = {}
    for count in range(2, n + 1):
        for path in itertools.permutations(range(n), count):
            length = sum(table[a, b] for a, b in itertools.pairwise(path))
            if length < best.get((path[0], path[-1]), (np.inf, []))[0]:
                best[path[0], path[-1]] = (float(length), list(path))
    graph = PathGraph(n, edges, lengths, directed)
    distances = graph.distances(np.arange(n))
    for i, j in itertools.permutations(range(n), 2):
        length, path = best.get((i, j), (np.inf, [i, j]))
        assert distances[i, j] == pytest.approx(length, rel=1e-14)
        assert graph.paths(np.array([i]), np.array([j])) == [path]
    begin, end = np.array(list(itertools.permutations(range(n), 2))).T
    rows = graph.corners(begin, end)
    for i, j, row in zip(begin, end, rows.tolist(), strict=True):
        path = best.get((i, j), (np.inf, [i, j]))[1]
        assert row == [i] * (rows.shape[1] - len(path)) + path
    # the last node has no edge: the straight way is left
    assert graph.paths(np.array([0, 1, 2]), np.array([5, 5, 5])) == [[0, 5], [1, 5], [2, 5]]


def test_points_without_neighbours():
    with pytest.raises(NonFiniteError, match=r"test: points are so far apart .* Use smaller units"):
        neighbour_edges("test", np.array([[0.0], [1e200], [-1e200]]), 1)
