"""Discrete energies of curves, with gradients and quadratic models."""
