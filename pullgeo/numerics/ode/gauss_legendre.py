"""Gauss's points, the integrals that collocation takes there, and Legendre polynomials."""

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
        legendre: from values at the points to coefficients of Legendre polynomials, ``(s, s)``.
    """

    points: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    legendre: np.ndarray


@lru_cache
def gauss(stages: int) -> Gauss:
    """Gauss's points in [0, 1], and the integrals of their Lagrange polynomials.

    Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration*, section II.1.3.
    """
    x, w = np.polynomial.legendre.leggauss(stages)
    k = np.arange(stages)
    # discrete orthogonality; monomials would lose half of the digits
    legendre = (2 * k[:, None] + 1) / 2 * w * np.polynomial.legendre.legvander(x, stages - 1).T
    P = np.polynomial.legendre.legvander(x, stages)
    integrals = np.concatenate([(1 + x[:, None]) / 2, (P[:, 2:] - P[:, :-2]) / (2 * (2 * k[1:] + 1))], 1)
    return Gauss((x + 1) / 2, integrals @ legendre, w / 2, legendre)
