"""Statistics of many points on a learned manifold."""

from pullgeo.stats.frechet import FrechetMean, frechet_mean
from pullgeo.stats.graph import GraphReport, NeighbourGraph
from pullgeo.stats.median import frechet_median
from pullgeo.stats.pairwise import pairwise_distances
from pullgeo.stats.points import Points, as_points

__all__ = [
    "FrechetMean",
    "GraphReport",
    "NeighbourGraph",
    "Points",
    "as_points",
    "frechet_mean",
    "frechet_median",
    "pairwise_distances",
]
