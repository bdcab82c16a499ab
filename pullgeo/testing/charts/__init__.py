"""Closed-form geometries as torch modules: what a learned manifold must reproduce.

Maps (``(b, d) -> (b, D)``, to be pulled back): `StereographicSphere`, `AngularSphere`, `LinearChart`, `SwissRoll`,
`Paraboloid`, `Torus`, `Ellipsoid`, `BernoulliFisherRao`, `PoissonFisherRao`, `CategoricalFisherRao`.

Metric functions (``(b, d) -> (b, d, d)``): `PoincareBall`, `HalfPlane`, `GaussianFisherRao`.
"""

from pullgeo.testing.charts.flat import LinearChart, SwissRoll
from pullgeo.testing.charts.hyperbolic import HalfPlane, PoincareBall
from pullgeo.testing.charts.information import (
    BernoulliFisherRao,
    CategoricalFisherRao,
    GaussianFisherRao,
    PoissonFisherRao,
)
from pullgeo.testing.charts.space_forms import SpaceForm
from pullgeo.testing.charts.spheres import AngularSphere, StereographicSphere
from pullgeo.testing.charts.surfaces import Ellipsoid, Paraboloid, Torus

__all__ = [
    "AngularSphere",
    "BernoulliFisherRao",
    "CategoricalFisherRao",
    "Ellipsoid",
    "GaussianFisherRao",
    "HalfPlane",
    "LinearChart",
    "Paraboloid",
    "PoincareBall",
    "PoissonFisherRao",
    "SpaceForm",
    "StereographicSphere",
    "SwissRoll",
    "Torus",
]
