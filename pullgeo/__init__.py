"""pullgeo: the Riemannian geometry of neural networks, in PyTorch.

A network is a map between manifolds. Metrics on its output are pulled back to its input; from the pulled-back metric
of a decoder come geodesics, distances, statistics and pictures of its latent space.
"""

import logging
from typing import TYPE_CHECKING

from pullgeo._lazy import lazy
from pullgeo._version import __version__

if TYPE_CHECKING:
    from pullgeo import (
        curve,
        datasets,
        errors,
        geodesic,
        jacobian,
        likelihood,
        manifold,
        metric,
        nnj,
        stats,
        testing,
        viz,
        zoo,
    )
    from pullgeo.geodesic.problem import BoundaryValue
    from pullgeo.geodesic.solution import Solution, Status
    from pullgeo.geodesic.solve import solve
    from pullgeo.geodesic.solvers.newton import Newton
    from pullgeo.jacobian.linearize import linearize
    from pullgeo.manifold.base import Manifold
    from pullgeo.manifold.metric_manifold import MetricManifold
    from pullgeo.manifold.pullback import PullbackManifold
    from pullgeo.stats.diagnosis import diagnose
    from pullgeo.stats.frechet import frechet_mean
    from pullgeo.stats.pairwise import pairwise_distances

__all__ = [
    "BoundaryValue",
    "Manifold",
    "MetricManifold",
    "Newton",
    "PullbackManifold",
    "Solution",
    "Status",
    "__version__",
    "curve",
    "datasets",
    "diagnose",
    "errors",
    "frechet_mean",
    "geodesic",
    "jacobian",
    "likelihood",
    "linearize",
    "manifold",
    "metric",
    "nnj",
    "pairwise_distances",
    "solve",
    "stats",
    "testing",
    "viz",
    "zoo",
]

_ROOMS = (
    "curve",
    "datasets",
    "errors",
    "geodesic",
    "jacobian",
    "likelihood",
    "manifold",
    "metric",
    "nnj",
    "stats",
    "testing",
    "viz",
    "zoo",
)
# Importing pullgeo must cost hardly more than importing torch: what is named here comes when it is first used.
__getattr__, __dir__ = lazy(
    __name__,
    {
        "BoundaryValue": "pullgeo.geodesic.problem",
        "Manifold": "pullgeo.manifold.base",
        "MetricManifold": "pullgeo.manifold.metric_manifold",
        "Newton": "pullgeo.geodesic.solvers.newton",
        "PullbackManifold": "pullgeo.manifold.pullback",
        "Solution": "pullgeo.geodesic.solution",
        "Status": "pullgeo.geodesic.solution",
        "diagnose": "pullgeo.stats.diagnosis",
        "frechet_mean": "pullgeo.stats.frechet",
        "linearize": "pullgeo.jacobian.linearize",
        "pairwise_distances": "pullgeo.stats.pairwise",
        "solve": "pullgeo.geodesic.solve",
        **{room: f"pullgeo.{room}" for room in _ROOMS},
    },
)

logging.getLogger("pullgeo").addHandler(logging.NullHandler())
