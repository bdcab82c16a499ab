"""Geodesics: a boundary value problem, solvers as values, the function `solve`, solutions that explain themselves."""

from pullgeo._lazy import renamed
from pullgeo.geodesic.energy.base import DiscreteEnergy, EnergyGradient, ManifoldEnergy, QuadraticModel
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import SearchResult, Solver
from pullgeo.geodesic.solvers import (
    CollocationBVP,
    EnergyMinimizer,
    GaussNewton,
    Georce,
    GraphPath,
    Newton,
    Race,
    Shooting,
)
from pullgeo.geodesic.starts.base import Candidates, InitialCurve, Start, StraightLine
from pullgeo.geodesic.starts.lattice import LatticeSearch
from pullgeo.geodesic.starts.waves import Waves

__all__ = [
    "BoundaryValue",
    "Candidates",
    "CollocationBVP",
    "DiscreteEnergy",
    "EnergyGradient",
    "EnergyMinimizer",
    "GaussNewton",
    "Georce",
    "GraphPath",
    "InitialCurve",
    "LatticeSearch",
    "ManifoldEnergy",
    "Newton",
    "QuadraticModel",
    "Race",
    "SearchResult",
    "Shooting",
    "Solution",
    "Solver",
    "Start",
    "Status",
    "StraightLine",
    "Waves",
    "solve",
]

__getattr__ = renamed(
    __name__,
    {
        "Corridor": "LatticeSearch",
        "EnergyExpansion": "QuadraticModel",
        "EnergySlope": "EnergyGradient",
        "Given": "InitialCurve",
        "Line": "StraightLine",
        "Minimised": "SearchResult",
        "Space": "ManifoldEnergy",
    },
)
