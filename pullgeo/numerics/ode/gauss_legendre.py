"""Gauss's points and the integrals that collocation takes there."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, eq=False)
class Gauss:
    """A quadrature of order ``2 s`` on [0, 1].

    Attributes:
        points: the zeros of the Legendre polynomial, ``(s,)``.
        inner: integrals of the Lagrange polynomials to each point, ``(s, s)``.
        outer: those to 1, the weights, ``(s,)``.
    """

    points: np.ndarray
    inner: np.ndarray
    outer: np.ndarray


@lru_cache
def gauss(stages: int) -> Gauss:
    """Gauss's points in [0, 1], and the integrals of their Lagrange polynomials.

    Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration*, section II.1.3.
    """
    points = (np.polynomial.legendre.leggauss(stages)[0] + 1) / 2
    powers = np.arange(1, stages + 1)
    vandermonde = np.linalg.inv(points[:, None] ** (powers - 1))
    return Gauss(points, (points[:, None] ** powers / powers) @ vandermonde, (1 / powers) @ vandermonde)
