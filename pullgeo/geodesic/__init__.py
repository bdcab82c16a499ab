"""Geodesics: a boundary value problem, solvers as values, one entry `solve`, and solutions that explain themselves."""

from pullgeo.geodesic.energy import chord_energy, expand_chord_energy, expand_segment_energy, segment_sum
from pullgeo.geodesic.newton import Level, Newton
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import Solver, solve
from pullgeo.geodesic.space import EnergyExpansion, Expansion, Space
from pullgeo.geodesic.status import Status

__all__ = [
    "BoundaryValue",
    "EnergyExpansion",
    "Expansion",
    "Level",
    "Newton",
    "Solution",
    "Solver",
    "Space",
    "Status",
    "chord_energy",
    "expand_chord_energy",
    "expand_segment_energy",
    "segment_sum",
    "solve",
]
