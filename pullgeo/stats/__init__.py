"""Statistics of many points on a learned manifold."""

from pullgeo.stats.graph import GraphReport, NeighbourGraph
from pullgeo.stats.pairwise import pairwise_distances
from pullgeo.stats.points import Points, as_points

__all__ = ["GraphReport", "NeighbourGraph", "Points", "as_points", "pairwise_distances"]
