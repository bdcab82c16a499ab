"""Geodesics: a boundary value problem, solvers as values, one function `solve`, and solutions that explain themselves."""

from pullgeo._torch.grad_mode import check_grad_mode, check_same_weights, check_transforms, leaves
from pullgeo.geodesic.comparison import less, ranked
from pullgeo.geodesic.energy.ambient_segment import expand_mapped_energy, mapped_energy, mapped_lengths
from pullgeo.geodesic.energy.base import (
    EnergyGradient,
    Expansion,
    GuardedSpace,
    QuadraticModel,
    SingleSpace,
    Space,
)
from pullgeo.geodesic.energy.chord import chord_energy, chord_lengths, chord_slope, expand_chord_energy
from pullgeo.geodesic.energy.gradient import slope_by_autograd
from pullgeo.geodesic.energy.left_endpoint import LeftEndpoint
from pullgeo.geodesic.energy.segment import expand_segment_energy, linearised, segment_lengths, segment_sum
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.singular import singular_at
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import SearchResult, Solver
from pullgeo.geodesic.solvers import CollocationBVP, EnergyMinimizer, GaussNewton, Georce, GraphPath, Newton, Shooting
from pullgeo.geodesic.starts.base import Candidates, InitialCurve, Start, StraightLine
from pullgeo.geodesic.starts.lattice import LatticeSearch
from pullgeo.geodesic.status import Status
from pullgeo.geodesic.waves import Waves
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.bisect_batch import where_defined

__all__ = [
    "BlockBanded",
    "BoundaryValue",
    "Candidates",
    "CollocationBVP",
    "EnergyGradient",
    "EnergyMinimizer",
    "Expansion",
    "GaussNewton",
    "Georce",
    "GraphPath",
    "GuardedSpace",
    "InitialCurve",
    "LatticeSearch",
    "LeftEndpoint",
    "Newton",
    "QuadraticModel",
    "SearchResult",
    "Shooting",
    "SingleSpace",
    "Solution",
    "Solver",
    "Space",
    "Start",
    "Status",
    "StraightLine",
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
