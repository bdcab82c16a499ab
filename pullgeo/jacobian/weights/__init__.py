"""Jacobians with respect to weights."""
