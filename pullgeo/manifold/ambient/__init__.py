"""The spaces that decoders' outputs lie in, and what `PullbackManifold` asks of them."""

from pullgeo.manifold.ambient.base import Ambient, lowered_connection
from pullgeo.manifold.ambient.composite import Product, Scaled
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.ambient.inner import InnerProduct
from pullgeo.manifold.ambient.metric_field import MetricField, MetricFn, check_riemannian
from pullgeo.manifold.ambient.positive_definite import AffineInvariant
from pullgeo.manifold.ambient.space_forms import ConformalBall, Hyperboloid
from pullgeo.manifold.decoders.projection import ProjectOnto

__all__ = [
    "AffineInvariant",
    "Ambient",
    "ConformalBall",
    "Flat",
    "Hyperboloid",
    "InnerProduct",
    "MetricField",
    "MetricFn",
    "Product",
    "ProjectOnto",
    "Scaled",
    "ambient_of",
    "check_riemannian",
    "lowered_connection",
]
