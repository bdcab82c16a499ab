"""From what users pass to the space that it means."""

import functools
from dataclasses import replace
from typing import Any

import geoopt
from geoopt.manifolds.lorentz import Lorentz
from geoopt.manifolds.stereographic import Stereographic
from geoopt.manifolds.symmetric_positive_definite import SPDMetric

from pullgeo.errors import OptionError
from pullgeo.likelihood.distribution import TorchDistribution
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.composite import Product, Scaled
from pullgeo.manifold.ambient.fisher_rao import OfLikelihood
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.ambient.inner import InnerProduct
from pullgeo.manifold.ambient.metric_field import MetricField
from pullgeo.manifold.ambient.positive_definite import AffineInvariant
from pullgeo.manifold.ambient.space_forms import ConformalBall, Hyperboloid
from pullgeo.metric.base import Metric


@functools.singledispatch
def ambient_of(given: Any) -> Ambient:
    """The ambient space of a pullback: see `pullgeo.PullbackManifold` for what may be given.

    Raises:
        OptionError: it is nothing that measures outputs.
    """
    if isinstance(given, type):
        raise OptionError(
            f"PullbackManifold: ambient is the class {given.__name__}, expected one of its instances. Make one: "
            f"ambient={given.__name__}(...)."
        )
    if callable(getattr(given, "fisher", None)):
        embedding = getattr(given, "embedding", None)
        return MetricField(given.fisher) if embedding is None else Flat(embedding=embedding)
    if callable(given):
        return MetricField(given)
    raise OptionError(
        "PullbackManifold: ambient must be None, a constant Metric, a function from outputs to metrics, a geoopt "
        f"manifold or a likelihood; got {type(given).__name__}."
    )


@ambient_of.register
def _(given: None) -> Ambient:
    return Flat()


@ambient_of.register
def _(given: Ambient) -> Ambient:
    return given


@ambient_of.register
def _(given: Metric) -> Ambient:
    return Flat(given)


@ambient_of.register
def _(given: geoopt.Manifold) -> Ambient:
    if any(p.is_complex() for p in given.parameters()) or isinstance(given, _COMPLEX):
        raise OptionError(
            f"PullbackManifold: points of {type(given).__name__} are complex, and decoders' outputs are real. Write "
            "its metric as a function of real and imaginary parts, and pass that."
        )
    return InnerProduct(given, constraint=given)


@ambient_of.register
def _(given: geoopt.Euclidean) -> Ambient:
    return Flat()


@ambient_of.register(geoopt.Sphere)
@ambient_of.register(geoopt.EuclideanStiefel)
def _(given: geoopt.Manifold) -> Ambient:
    return Flat(constraint=given)


@ambient_of.register
def _(given: Stereographic) -> Ambient:
    return ConformalBall(given, constraint=given)


@ambient_of.register
def _(given: Lorentz) -> Ambient:
    return Hyperboloid(given, constraint=given)


@ambient_of.register
def _(given: geoopt.SymmetricPositiveDefinite) -> Ambient:
    if given.default_metric != SPDMetric.AIM:
        raise OptionError(
            f"PullbackManifold: SymmetricPositiveDefinite offers no inner product for {given.default_metric.value}, "
            'only for "AIM". The log-Euclidean metric is the Euclidean one of a decoder that ends with the matrix '
            "logarithm."
        )
    return AffineInvariant(constraint=given)


@ambient_of.register
def _(given: geoopt.Scaled) -> Ambient:
    base = ambient_of(given.base)
    return Scaled(replace(base, constraint=None), given, constraint=base.constraint)


@ambient_of.register
def _(given: geoopt.ProductManifold) -> Ambient:
    parts = [ambient_of(part) for part in given.manifolds]
    if all(isinstance(part, Flat) for part in parts):
        return Flat(constraint=given)
    return Product(
        tuple(replace(part, constraint=None) for part in parts), tuple(map(tuple, given.shapes)), constraint=given
    )


@ambient_of.register
def _(given: TorchDistribution) -> Ambient:
    embedding = given.embedding
    return OfLikelihood(given) if embedding is None else Flat(embedding=embedding)


_COMPLEX = (geoopt.UpperHalf, geoopt.BoundedDomain)
