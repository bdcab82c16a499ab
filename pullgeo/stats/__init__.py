"""Statistics of many points on a learned manifold."""

from pullgeo.stats.estimators import FrechetKMeans, GeodesicKNeighbors, PrincipalGeodesicAnalysis
from pullgeo.stats.frechet import FrechetMean, frechet_mean
from pullgeo.stats.graph_distances import GraphReport, NeighbourGraph
from pullgeo.stats.land import LAND, fit_land
from pullgeo.stats.median import frechet_median
from pullgeo.stats.pairwise import pairwise_distances
from pullgeo.stats.points import Points, as_points
from pullgeo.stats.regression import GeodesicRegression, geodesic_regression
from pullgeo.stats.tangent import TangentPCA, tangent_pca

__all__ = [
    "LAND",
    "FrechetKMeans",
    "FrechetMean",
    "GeodesicKNeighbors",
    "GeodesicRegression",
    "GraphReport",
    "NeighbourGraph",
    "Points",
    "PrincipalGeodesicAnalysis",
    "TangentPCA",
    "as_points",
    "fit_land",
    "frechet_mean",
    "frechet_median",
    "geodesic_regression",
    "pairwise_distances",
    "tangent_pca",
]
