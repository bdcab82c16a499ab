"""Points, metrics, connections, exponential and logarithm of manifolds that networks span."""

from pullgeo.manifold.ambient import Ambient, Onto
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.given import MetricManifold
from pullgeo.manifold.pullback import PullbackManifold

__all__ = ["Ambient", "Manifold", "MetricManifold", "Onto", "PullbackManifold"]
