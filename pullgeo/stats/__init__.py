"""Statistics of many points on a learned manifold."""

from typing import TYPE_CHECKING

from pullgeo._lazy import lazy
from pullgeo.stats.diagnosis import Diagnosis, Finding, diagnose
from pullgeo.stats.frechet import FrechetMean, frechet_mean
from pullgeo.stats.graph_distances import GraphReport, NeighbourGraph
from pullgeo.stats.land import LAND, fit_land
from pullgeo.stats.median import frechet_median
from pullgeo.stats.pairwise import pairwise_distances
from pullgeo.stats.points import Points, as_points
from pullgeo.stats.regression import GeodesicRegression, geodesic_regression
from pullgeo.stats.tangent import TangentPCA, tangent_pca

if TYPE_CHECKING:
    from pullgeo.stats.estimators import FrechetKMeans, GeodesicKNeighbors, PrincipalGeodesicAnalysis

__all__ = [
    "LAND",
    "Diagnosis",
    "Finding",
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
    "diagnose",
    "fit_land",
    "frechet_mean",
    "frechet_median",
    "geodesic_regression",
    "pairwise_distances",
    "tangent_pca",
]

# Estimators need scikit-learn, which takes as long to import as torch.
_ESTIMATORS = ("FrechetKMeans", "GeodesicKNeighbors", "PrincipalGeodesicAnalysis")
__getattr__, __dir__ = lazy(__name__, dict.fromkeys(_ESTIMATORS, "pullgeo.stats.estimators"))
