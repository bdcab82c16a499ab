"""Points, metrics, connections, exponential and logarithm of manifolds that networks span."""

from pullgeo.manifold.ambient import Ambient, Onto
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.density import ConformalMetric, KernelDensity, LandMetric, RHVAEMetric
from pullgeo.manifold.given import MetricManifold
from pullgeo.manifold.logarithm import Logarithm
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.manifold.rbf import RBFDeviation
from pullgeo.manifold.uncertain import Ensemble, MeanAndDeviation, mean_and_deviation

__all__ = [
    "Ambient",
    "ConformalMetric",
    "Ensemble",
    "KernelDensity",
    "LandMetric",
    "Logarithm",
    "Manifold",
    "MeanAndDeviation",
    "MetricManifold",
    "Onto",
    "PullbackManifold",
    "RBFDeviation",
    "RHVAEMetric",
    "mean_and_deviation",
]
