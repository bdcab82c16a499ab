"""Shortest paths through the points of a graph."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.descent.assess import assess
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult
from pullgeo.geodesic.starts.base import Candidates
from pullgeo.numerics.chunking import FEW, POINTS
from pullgeo.numerics.neighbour_graph import Edges, PathGraph, nearest, neighbour_edges

PIECES = 4
"""Chords by which the length of an edge is measured."""


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
        graph = _Graph.of(space, points, self.neighbours)
        even = [
            polygon.at_equal_arcs(polygon.nodes.diff(dim=1).norm(dim=2), PIECES * segments).nodes
            for a, b in FEW.split(z0, z1)
            for polygon in graph.polygons(space, a, b, self.neighbours, 2 * self.segments)
        ]
        # without pairs there is nothing to join
        curve = DiscreteCurve(torch.cat([z0.new_zeros(0, PIECES * segments + 1, z0.shape[1]), *even]))
        return Candidates.at_uniform_speed(space, curve, segments)

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """The shortest path of each pair, never said to be a geodesic unless it is one.

        Raises:
            ShapeError: the points are of another dimension than the pairs.
        """
        nodes = self.candidates(single, z0, z1, self.segments).nodes
        steps = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
        found = assess(space, nodes, 1e-8, steps)
        return found.ending(~found.converged & ~found.ended(Status.NON_FINITE), Status.UPPER_BOUND)


@dataclass(frozen=True, eq=False)
class _Graph:
    """The given points, joined both ways, with the lengths of these edges."""

    points: Float[Tensor, "n d"]
    edges: Edges
    lengths: Float[Tensor, " e"]

    @staticmethod
    def of(space: DiscreteEnergy, points: Tensor, neighbours: int) -> "_Graph":
        once = neighbour_edges("GraphPath", points.cpu().numpy(), neighbours)
        edges = np.concatenate([once, once[:, ::-1]])
        # both ways: a discrete energy need not be the same from either end
        return _Graph(points, edges, _edge_lengths(space, points[edges[:, 0]], points[edges[:, 1]]))

    def polygons(
        self, space: DiscreteEnergy, z0: Tensor, z1: Tensor, neighbours: int, pieces: int
    ) -> list[DiscreteCurve]:
        """Shortest paths from ``z0[i]`` over points to ``z1[i]``; no other pair's end points are passed through."""
        n, p = len(self.points), len(z0)
        begin, end = n + np.arange(p), n + p + np.arange(p)
        leaving, arriving = (_links(z, self.points, neighbours) for z in (z0, z1))
        edges = [
            self.edges,
            np.stack([begin[leaving[:, 0]], leaving[:, 1]], 1),
            np.stack([arriving[:, 1], end[arriving[:, 0]]], 1),
            np.stack([begin, end], 1),
        ]
        lengths = [
            self.lengths,
            _edge_lengths(space, z0[leaving[:, 0]], self.points[leaving[:, 1]]),
            _edge_lengths(space, z1[arriving[:, 0]], self.points[arriving[:, 1]]),
            _edge_lengths(space, z0, z1, pieces),
        ]
        graph = PathGraph(n + 2 * p, np.concatenate(edges), torch.cat(lengths).cpu().numpy(), directed=True)
        place = torch.cat([self.points, z0, z1])
        return [DiscreteCurve(place[path].unsqueeze(0)) for path in graph.paths(begin, end)]


def _links(z: Tensor, points: Tensor, count: int) -> Edges:
    """From each end point to the nearest points."""
    near = nearest("GraphPath", z.cpu().numpy(), points.cpu().numpy(), count)
    return np.stack([np.repeat(np.arange(len(z)), near.shape[1]), near.ravel()], 1)


def _edge_lengths(space: DiscreteEnergy, a: Tensor, b: Tensor, pieces: int = PIECES) -> Float[Tensor, " e"]:
    """Lengths of straight edges."""
    lengths = [
        space.chord_lengths(straight_line(x, y, pieces).nodes.unsqueeze(2)).flatten(1).sum(1)
        for x, y in POINTS.split(a, b)
    ]
    return torch.cat(lengths)
