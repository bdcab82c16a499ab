"""Random motion on a manifold, and samples of densities with respect to its volume."""

from pullgeo.manifold.sampling.brownian import random_walk
from pullgeo.manifold.sampling.langevin import LogDensity, Samples, sample

__all__ = ["LogDensity", "Samples", "random_walk", "sample"]
