"""Numerical methods that know nothing of geometry."""
