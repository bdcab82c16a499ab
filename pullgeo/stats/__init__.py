"""Statistics of many points on a learned manifold."""

from typing import TYPE_CHECKING

from pullgeo._lazy import lazy
from pullgeo.stats.diagnosis import Diagnosis, Finding, diagnose
from pullgeo.stats.frechet import FrechetMean, frechet_mean
from pullgeo.stats.graph_distances import GraphReport, NeighbourGraph
from pullgeo.stats.kneighbors import kneighbors_graph
from pullgeo.stats.land import LAND, fit_land
from pullgeo.stats.median import frechet_median
from pullgeo.stats.pairwise import pairwise_distances
from pullgeo.stats.points import Points, as_points
from pullgeo.stats.regression import GeodesicRegression, geodesic_regression
from pullgeo.stats.tangent import TangentPCA, tangent_pca
from pullgeo.stats.uncertainty import (
    DistanceUncertainty,
    MemberDistances,
    Verdict,
    distance_uncertainty,
    member_distances,
)

if TYPE_CHECKING:
    from pullgeo.stats.estimators import (
        FrechetKMeans,
        GeodesicKNeighbors,
        GeodesicNeighborsTransformer,
        PrincipalGeodesicAnalysis,
    )

__all__ = [
    "LAND",
    "Diagnosis",
    "DistanceUncertainty",
    "Finding",
    "FrechetKMeans",
    "FrechetMean",
    "GeodesicKNeighbors",
    "GeodesicNeighborsTransformer",
    "GeodesicRegression",
    "GraphReport",
    "MemberDistances",
    "NeighbourGraph",
    "Points",
    "PrincipalGeodesicAnalysis",
    "TangentPCA",
    "Verdict",
    "as_points",
    "diagnose",
    "distance_uncertainty",
    "fit_land",
    "frechet_mean",
    "frechet_median",
    "geodesic_regression",
    "kneighbors_graph",
    "member_distances",
    "pairwise_distances",
    "tangent_pca",
]

# Estimators need scikit-learn, which takes as long to import as torch.
_ESTIMATORS = (
    "FrechetKMeans",
    "GeodesicKNeighbors",
    "GeodesicNeighborsTransformer",
    "PrincipalGeodesicAnalysis",
)
__getattr__, __dir__ = lazy(__name__, dict.fromkeys(_ESTIMATORS, "pullgeo.stats.estimators"))
