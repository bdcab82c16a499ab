"""Curves in the latent space."""

from pullgeo.curve.base import Curve, Measure, Ruler
from pullgeo.curve.cubic import CubicSpline
from pullgeo.curve.discrete import DiscreteCurve, straight_line

__all__ = ["CubicSpline", "Curve", "DiscreteCurve", "Measure", "Ruler", "straight_line"]
