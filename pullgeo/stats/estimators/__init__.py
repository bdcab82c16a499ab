"""Estimators with scikit-learn's interface."""

from pullgeo.stats.estimators.kmeans import FrechetKMeans
from pullgeo.stats.estimators.neighbors import GeodesicKNeighbors
from pullgeo.stats.estimators.principal import PrincipalGeodesicAnalysis

__all__ = ["FrechetKMeans", "GeodesicKNeighbors", "PrincipalGeodesicAnalysis"]
