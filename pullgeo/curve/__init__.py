"""Curves in the latent space."""

from pullgeo.curve.discrete import DiscreteCurve, straight_line

__all__ = ["DiscreteCurve", "straight_line"]
