"""Graphs of points that are joined to their nearest neighbours, and shortest paths through them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

from pullgeo.errors import NonFiniteError

Edges = Int[np.ndarray, "_ 2"]
"""Rows of two nodes."""

LEAST = float(np.finfo(np.float64).tiny)
"""Length of edges that have none: a sparse matrix takes a zero for no edge."""


def nearest(
    where: str, points: Float[np.ndarray, "n d"], others: Float[np.ndarray, "m d"], count: int
) -> Int[np.ndarray, "n k"]:
    """For each point the other points that are nearest to it, the nearest first; a point of both sets is its own.

    Args:
        where: who asks, for the message.
        points: from which.
        others: among which.
        count: how many; all of them if there are fewer.

    Raises:
        NonFiniteError: points are so far apart that the squares of their distances overflow.

    Cost: O((n + m) log m) in few dimensions; up to O(n m) in many.

    Example:
        >>> import numpy as np
        >>> from pullgeo.numerics.neighbour_graph import nearest
        >>> nearest("example", np.array([[0.4], [5.0]]), np.arange(4.0)[:, None], 2)
        array([[0, 1],
               [3, 2]])
    """
    found = KDTree(others).query(points, [*range(1, min(count, len(others)) + 1)])[1]
    if bool((found == len(others)).any()):
        raise NonFiniteError(
            f"{where}: points are so far apart that the squares of their distances overflow, so that they have no "
            "neighbours. Use smaller units."
        )
    return found


def neighbour_edges(where: str, points: Float[np.ndarray, "n d"], count: int) -> Edges:
    """Each point joined to its nearest neighbours: every edge once, the smaller number first.

    Args:
        where: who asks, for the message.
        points: the nodes.
        count: how many neighbours each point is joined to; others may be joined to it besides.

    Raises:
        NonFiniteError: points are so far apart that the squares of their distances overflow.
    """
    near = nearest(where, points, points, count + 1)
    return _each_once(np.stack([np.repeat(np.arange(len(points)), near.shape[1]), near.ravel()], 1))


def joined(points: Float[np.ndarray, "n d"], edges: Edges) -> Edges:
    """The edges, with those that join separate pieces of the graph where they come closest.

    Args:
        points: the nodes.
        edges: each once, the smaller number first.
    """
    n = len(points)
    while True:
        count, piece = connected_components(csr_array((np.ones(len(edges)), edges.T), shape=(n, n)), directed=False)
        if count == 1:
            return edges
        edges = _each_once(np.concatenate([edges, _bridges(points, piece, count)]))


@dataclass(frozen=True, eq=False)
class PathGraph:
    """A graph with edges of given lengths.

    Args:
        nodes: how many there are.
        edges: their ends; no edge twice.
        lengths: of the edges; one that is not finite is no edge.
        directed: edges lead from their first node to their second only.

    Example:
        >>> import numpy as np
        >>> from pullgeo.numerics.neighbour_graph import PathGraph
        >>> graph = PathGraph(4, np.array([[0, 1], [1, 2], [0, 2]]), np.array([1.0, 1.0, 5.0]))
        >>> graph.distances(np.array([0, 2]))
        array([[ 0.,  1.,  2., inf],
               [ 2.,  1.,  0., inf]])
        >>> graph.paths(np.array([0, 0]), np.array([2, 3]))
        [[0, 1, 2], [0, 3]]
    """

    nodes: int
    edges: Edges
    lengths: Float64[np.ndarray, " e"]
    directed: bool = False

    @cached_property
    def matrix(self) -> csr_array:
        """The lengths of the edges."""
        finite = np.isfinite(self.lengths)
        entries = (self.lengths[finite].clip(min=LEAST), self.edges[finite].T)
        return csr_array(entries, shape=(self.nodes, self.nodes))

    def distances(self, sources: Int[np.ndarray, " s"]) -> Float64[np.ndarray, "s n"]:
        """Lengths of the shortest paths from some nodes to all; infinite where no path leads.

        Cost: O(s (n + e) log n), Dijkstra's algorithm.
        """
        return dijkstra(self.matrix, directed=self.directed, indices=sources)

    def paths(self, sources: Int[np.ndarray, " s"], targets: Int[np.ndarray, " s"]) -> list[list[int]]:
        """The nodes on a shortest path from each source to its target, or these two alone where no path leads.

        Cost: as for `corners`.
        """
        rows = self.corners(sources, targets)
        # a way that is shorter than others waits where it begins
        first = (rows[:, 1:] != rows[:, :1]).argmax(1)
        return [row[start:].tolist() for row, start in zip(rows, first, strict=True)]

    def corners(self, sources: Int[np.ndarray, " s"], targets: Int[np.ndarray, " s"]) -> Int[np.ndarray, "s k"]:
        """The same in rows of equal length, which begin with as many copies of the source as it takes.

        Cost: as for `distances`, for each source once however often it is named, and O(s k).
        """
        once, row = np.unique(sources, return_inverse=True)
        _, before = dijkstra(self.matrix, directed=self.directed, indices=once, return_predecessors=True)
        columns = [targets]
        while len(columns) < 2 or bool((columns[-1] != sources).any()):
            step = before[row, columns[-1]]
            columns.append(np.where(step < 0, sources, step))
        return np.stack(columns[::-1], 1)


def _each_once(edges: Edges) -> Edges:
    edges = np.sort(edges, 1)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)


def _bridges(points: np.ndarray, piece: np.ndarray, count: int) -> Edges:
    """The shortest straight line from each piece to another one."""
    found = []
    for which in range(count):
        inside, outside = np.flatnonzero(piece == which), np.flatnonzero(piece != which)
        distance, near = KDTree(points[outside]).query(points[inside])
        i = int(distance.argmin())
        found.append((inside[i], outside[near[i]]))
    return np.array(found)
