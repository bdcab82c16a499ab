"""Boundary value problems of the geodesic equation."""
