"""pullgeo: the Riemannian geometry of neural networks, in PyTorch.

A network is a map between manifolds. Metrics on its output are pulled back to its input; from the pulled-back metric
of a decoder come geodesics, distances, statistics and pictures of its latent space.
"""

import logging

from pullgeo import datasets, likelihood, nnj, stats, viz, zoo
from pullgeo._version import __version__
from pullgeo.geodesic import BoundaryValue, Newton, Solution, Status, solve
from pullgeo.jacobian import linearize
from pullgeo.manifold import Manifold, MetricManifold, PullbackManifold
from pullgeo.stats import frechet_mean, pairwise_distances

__all__ = [
    "BoundaryValue",
    "Manifold",
    "MetricManifold",
    "Newton",
    "PullbackManifold",
    "Solution",
    "Status",
    "__version__",
    "datasets",
    "frechet_mean",
    "likelihood",
    "linearize",
    "nnj",
    "pairwise_distances",
    "solve",
    "stats",
    "viz",
    "zoo",
]

logging.getLogger("pullgeo").addHandler(logging.NullHandler())
