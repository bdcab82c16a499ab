"""Points, metrics, connections, exponential and logarithm of manifolds that networks span."""

import pullgeo._torch.geoopt_quietly  # noqa: F401 - before any room imports it
from pullgeo._lazy import renamed
from pullgeo.manifold.ambient import Ambient, ProjectOnto
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.data_metrics import ConformalMetric, KernelDensity, LandMetric, RHVAEMetric
from pullgeo.manifold.decoders.ensemble import Ensemble, MeanAndDeviation, mean_and_deviation
from pullgeo.manifold.decoders.rbf import RBFDeviation
from pullgeo.manifold.divergence import kl_energy, kl_length
from pullgeo.manifold.finsler import FinslerLength, FinslerSpace, finsler_length
from pullgeo.manifold.logarithm import Logarithm
from pullgeo.manifold.metric_manifold import MetricManifold
from pullgeo.manifold.node_error import mixture_error
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.manifold.weighted_sum import weighted_sum

__all__ = [
    "Ambient",
    "ConformalMetric",
    "Ensemble",
    "FinslerLength",
    "FinslerSpace",
    "KernelDensity",
    "LandMetric",
    "Logarithm",
    "Manifold",
    "MeanAndDeviation",
    "MetricManifold",
    "ProjectOnto",
    "PullbackManifold",
    "RBFDeviation",
    "RHVAEMetric",
    "finsler_length",
    "kl_energy",
    "kl_length",
    "mean_and_deviation",
    "mixture_error",
    "weighted_sum",
]

__getattr__ = renamed(
    __name__,
    {
        "Onto": "ProjectOnto",
    },
)
