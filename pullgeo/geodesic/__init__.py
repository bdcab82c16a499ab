"""Geodesics: a boundary value problem, solvers as values, one entry `solve`, and solutions that explain themselves."""

from pullgeo.geodesic.energy import (
    chord_energy,
    chord_lengths,
    expand_chord_energy,
    expand_segment_energy,
    segment_lengths,
    segment_sum,
)
from pullgeo.geodesic.newton import Level, Newton
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import Solver, solve
from pullgeo.geodesic.space import EnergyExpansion, Expansion, Space
from pullgeo.geodesic.start import Corridor, Given, Line, Start
from pullgeo.geodesic.status import Status

__all__ = [
    "BoundaryValue",
    "Corridor",
    "EnergyExpansion",
    "Expansion",
    "Given",
    "Level",
    "Line",
    "Newton",
    "Solution",
    "Solver",
    "Space",
    "Start",
    "Status",
    "chord_energy",
    "chord_lengths",
    "expand_chord_energy",
    "expand_segment_energy",
    "segment_lengths",
    "segment_sum",
    "solve",
]
