"""Ordinary differential equations: integrators, quadrature nodes, discontinuities."""
