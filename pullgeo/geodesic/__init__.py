"""Geodesics: a boundary value problem, solvers as values, one entry `solve`, and solutions that explain themselves."""

from pullgeo.geodesic.energy.base import EnergyExpansion, EnergySlope, Space
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import Minimised, Solver
from pullgeo.geodesic.solvers import CollocationBVP, EnergyMinimizer, GaussNewton, Georce, GraphPath, Newton, Shooting
from pullgeo.geodesic.starts.base import Candidates, Given, Line, Start
from pullgeo.geodesic.starts.lattice import Corridor
from pullgeo.geodesic.status import Status

__all__ = [
    "BoundaryValue",
    "Candidates",
    "CollocationBVP",
    "Corridor",
    "EnergyExpansion",
    "EnergyMinimizer",
    "EnergySlope",
    "GaussNewton",
    "Georce",
    "Given",
    "GraphPath",
    "Line",
    "Minimised",
    "Newton",
    "Shooting",
    "Solution",
    "Solver",
    "Space",
    "Start",
    "Status",
    "solve",
]
