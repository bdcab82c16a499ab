"""Shortest paths through the points of a graph."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.descent.assess import assess
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult
from pullgeo.geodesic.starts.base import Candidates

PIECES = 4
"""Chords by which the length of an edge is measured."""

CHUNK = 4096
"""Edges that are measured at a time."""

BLOCK = 64
"""Pairs whose paths are searched at a time: each holds a distance to every point."""


@dataclass(frozen=True, eq=False)
class GraphPath:
    """Shortest paths on the k-nearest-neighbour graph of given points, whose edges are as long as the manifold says.

    Where the straight line crosses ground far from all data, a path through the data is the better start. It is both a
    start, ``Newton(starts=(LatticeSearch(), GraphPath(latents)))``, and a solver, `GraphPath(latents)`. Its lengths are
    bounds of distances from above, up to discretisation: global ones, which no local minimum deceives. Its status is
    UPPER_BOUND, unless the path is a geodesic to a residual of 1e-8, as the straight line between near points may be.

    Args:
        points: latents ``(n, d)``: those of the data, or a grid (`GraphPath.grid`).
        neighbours: k; nearest in the chart.
        segments: T, even: the number of segments of the curves that the solver returns.

    Raises:
        ShapeError: the points are not ``(n, d)``.
        OptionError: another field is out of its range.

    Cost: ``4 n k`` chords, and for each pair Dijkstra's O(k n log n).

    Source: Chen, Klushyn, Ferroni, Bayer, van der Smagt, *Fast Approximate Geodesics for Deep Generative Models*, 2019.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> grid = GraphPath.grid(torch.tensor([-1.0, -1.0]), torch.tensor([2.0, 2.0]), 10)
        >>> PullbackManifold(decoder).geodesic(torch.zeros(3, 2), torch.ones(3, 2), grid)
        Solution(3 pairs: 3 UPPER_BOUND)
    """

    points: Float[Tensor, "n d"]
    neighbours: int = 10
    segments: int = 32

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or len(self.points) < 1:
            raise ShapeError(f"GraphPath: points must have shape (n, d), got {tuple(self.points.shape)}.")
        if not 1 <= self.neighbours <= len(self.points):
            raise OptionError(
                f"GraphPath: neighbours must lie between 1 and the number of points, got {self.neighbours}."
            )
        if self.segments < 2 or self.segments % 2:
            raise OptionError(f"GraphPath: segments must be even and at least 2, got {self.segments}.")

    @staticmethod
    def grid(low: Float[Tensor, " d"], high: Float[Tensor, " d"], steps: int, segments: int = 32) -> "GraphPath":
        """The graph of a regular grid in a box, each point joined to all around it, across corners too.

        Args:
            low: one corner of the box.
            high: the opposite corner.
            steps: points along every side.
            segments: T, even.

        Raises:
            OptionError: fewer than two points along a side, or more than a million in all.
        """
        d = len(low)
        if steps < 2 or steps**d > 10**6:
            raise OptionError(
                f"GraphPath.grid: expected 2 or more points a side and a million in all, got {steps}^{d}."
            )
        axes = [torch.linspace(float(a), float(b), steps, dtype=low.dtype) for a, b in zip(low, high, strict=True)]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, d)
        return GraphPath(points.to(low.device), min(3**d, len(points)), segments)

    def candidates(
        self, space: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"], segments: int
    ) -> Candidates:
        """The shortest path of each pair, at uniform speed.

        Raises:
            ShapeError: the points are of another dimension than the pairs.
        """
        points = self.points.detach().to(z0)
        if points.shape[1] != z0.shape[1]:
            raise ShapeError(
                f"GraphPath: points {tuple(points.shape)} are of another dimension than the pairs {tuple(z0.shape)}."
            )
        inside = _edges(points, points, self.neighbours + 1)
        weights = _edge_lengths(space, points[inside[0]], points[inside[1]])
        even = [
            polygon.at_equal_arcs(polygon.nodes.diff(dim=1).norm(dim=2), PIECES * segments).nodes
            for a, b in zip(z0.split(BLOCK), z1.split(BLOCK), strict=True)
            for polygon in self._polygons(space, points, inside, weights, a, b)
        ]
        # without pairs there is nothing to join
        curve = DiscreteCurve(torch.cat([z0.new_zeros(0, PIECES * segments + 1, z0.shape[1]), *even]))
        return Candidates.at_uniform_speed(space, curve, segments)

    def minimise(
        self, space: DiscreteEnergy, rough: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """The shortest path of each pair, never said to be a geodesic unless it is one.

        Raises:
            ShapeError: the points are of another dimension than the pairs.
        """
        nodes = self.candidates(rough, z0, z1, self.segments).nodes
        steps = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
        found = assess(space, nodes, 1e-8, steps)
        return found.ending(~found.converged & ~found.ended(Status.NON_FINITE), Status.UPPER_BOUND)

    def _polygons(
        self, space: DiscreteEnergy, points: Tensor, inside: Tensor, weights: Tensor, z0: Tensor, z1: Tensor
    ) -> list[DiscreteCurve]:
        """Shortest paths from ``z0[i]`` over points to ``z1[i]``; no other pair's end points are passed through."""
        n, p = len(points), len(z0)
        pair = torch.arange(p, device=z0.device)
        out, into = _edges(z0, points, self.neighbours), _edges(z1, points, self.neighbours)
        begin = torch.cat([inside[0], n + out[0], into[1], n + pair])
        end = torch.cat([inside[1], out[1], n + p + into[0], n + p + pair])
        length = torch.cat(
            [
                weights,
                _edge_lengths(space, z0[out[0]], points[out[1]]),
                _edge_lengths(space, z1[into[0]], points[into[1]]),
                _edge_lengths(space, z0, z1, 2 * self.segments),
            ]
        )
        # a way that is not finite is no way; one of no length is one all the same, which a sparse matrix would forget
        open_ = torch.isfinite(length)
        entries = (
            length[open_].clamp(min=1e-300).cpu().numpy(),
            (begin[open_].cpu().numpy(), end[open_].cpu().numpy()),
        )
        size = n + 2 * p
        sources = n + np.arange(p)
        _, before = dijkstra(csr_array(entries, shape=(size, size)), indices=sources, return_predecessors=True)
        place = torch.cat([points, z0, z1])
        return [DiscreteCurve(place[_traced(before[i], n + i, n + p + i)].unsqueeze(0)) for i in range(p)]


def _edges(a: Tensor, b: Tensor, count: int) -> Int[Tensor, "2 e"]:
    """From each point of one set to the nearest of another; not to itself."""
    count = min(count, len(b))
    near = KDTree(b.cpu().numpy()).query(a.cpu().numpy(), k=[*range(1, count + 1)])[1]
    begin = torch.arange(len(a)).repeat_interleave(count)
    end = torch.as_tensor(near).reshape(-1).to(begin)
    edges = torch.stack([begin, end]).to(a.device)
    if a is not b:
        return edges
    # both ways, each once: nearness is not mutual
    edges = edges[:, begin.to(a.device) != edges[1]]
    return torch.cat([edges, edges.flip(0)], 1).unique(dim=1)


def _edge_lengths(space: DiscreteEnergy, a: Tensor, b: Tensor, pieces: int = PIECES) -> Float[Tensor, " e"]:
    """Lengths of straight edges."""
    lengths = [
        space.chord_lengths(straight_line(x, y, pieces).nodes.unsqueeze(2)).flatten(1).sum(1)
        for x, y in zip(a.split(CHUNK), b.split(CHUNK), strict=True)
    ]
    return torch.cat(lengths)


def _traced(before: NDArray[np.int32], source: int, target: int) -> list[int]:
    path = [target]
    while path[-1] != source and before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    # where no finite way leads the straight one is left
    return path[::-1] if path[-1] == source else [source, target]
