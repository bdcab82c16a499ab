"""Geodesics: a boundary value problem, solvers as values, one entry `solve`, and solutions that explain themselves."""

from pullgeo.geodesic.block_banded import BlockBanded
from pullgeo.geodesic.chords import chord_energy, chord_lengths, chord_slope, expand_chord_energy
from pullgeo.geodesic.comparison import less, ranked
from pullgeo.geodesic.corridor import Corridor
from pullgeo.geodesic.defined import where_defined
from pullgeo.geodesic.grad_mode import check_grad_mode, check_same_weights, check_transforms
from pullgeo.geodesic.implicit import leaves
from pullgeo.geodesic.left_endpoint import LeftEndpoint
from pullgeo.geodesic.mapped import expand_mapped_energy, mapped_energy, mapped_lengths
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.segments import expand_segment_energy, linearised, segment_lengths, segment_sum
from pullgeo.geodesic.singular import singular_at
from pullgeo.geodesic.slope import slope_by_autograd
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import Minimised, Solver
from pullgeo.geodesic.solvers import CollocationBVP, EnergyMinimizer, GaussNewton, Georce, GraphPath, Newton, Shooting
from pullgeo.geodesic.space import (
    EnergyExpansion,
    EnergySlope,
    Expansion,
    GuardedSpace,
    SingleSpace,
    Space,
)
from pullgeo.geodesic.start import Candidates, Given, Line, Start
from pullgeo.geodesic.status import Status
from pullgeo.geodesic.waves import Waves

__all__ = [
    "BlockBanded",
    "BoundaryValue",
    "Candidates",
    "CollocationBVP",
    "Corridor",
    "EnergyExpansion",
    "EnergyMinimizer",
    "EnergySlope",
    "Expansion",
    "GaussNewton",
    "Georce",
    "Given",
    "GraphPath",
    "GuardedSpace",
    "LeftEndpoint",
    "Line",
    "Minimised",
    "Newton",
    "Shooting",
    "SingleSpace",
    "Solution",
    "Solver",
    "Space",
    "Start",
    "Status",
    "Waves",
    "check_grad_mode",
    "check_same_weights",
    "check_transforms",
    "chord_energy",
    "chord_lengths",
    "chord_slope",
    "expand_chord_energy",
    "expand_mapped_energy",
    "expand_segment_energy",
    "leaves",
    "less",
    "linearised",
    "mapped_energy",
    "mapped_lengths",
    "ranked",
    "segment_lengths",
    "segment_sum",
    "singular_at",
    "slope_by_autograd",
    "solve",
    "where_defined",
]
