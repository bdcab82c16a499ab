"""Estimators with scikit-learn's interface."""

from pullgeo.stats.estimators.kmeans import FrechetKMeans
from pullgeo.stats.estimators.neighbors import GeodesicKNeighbors
from pullgeo.stats.estimators.principal import PrincipalGeodesicAnalysis
from pullgeo.stats.estimators.transformer import GeodesicNeighborsTransformer

__all__ = ["FrechetKMeans", "GeodesicKNeighbors", "GeodesicNeighborsTransformer", "PrincipalGeodesicAnalysis"]
