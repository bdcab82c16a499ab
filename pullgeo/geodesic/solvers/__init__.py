"""Solvers of boundary value problems, one a file."""

from pullgeo.geodesic.solvers.collocation import CollocationBVP
from pullgeo.geodesic.solvers.energy_minimizer import EnergyMinimizer
from pullgeo.geodesic.solvers.gauss_newton import GaussNewton
from pullgeo.geodesic.solvers.georce import Georce
from pullgeo.geodesic.solvers.graph_path import GraphPath
from pullgeo.geodesic.solvers.newton import Newton, Race
from pullgeo.geodesic.solvers.shooting import Shooting

__all__ = [
    "CollocationBVP",
    "EnergyMinimizer",
    "GaussNewton",
    "Georce",
    "GraphPath",
    "Newton",
    "Race",
    "Shooting",
]
