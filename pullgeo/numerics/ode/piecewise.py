"""Curves that are polynomials on pieces, given by values at Gauss's points of each."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.numerics.ode.gauss_legendre import gauss

STAGES = 6
"""Gauss points of a piece: order 12."""


def located(joints: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """On which piece each time lies, and where on it, in [0, 1]."""
    place = (torch.searchsorted(joints.contiguous(), times.contiguous(), right=True) - 1).clamp(0, joints.shape[1] - 2)
    return place, (times - joints.gather(1, place)) / joints.diff(dim=1).gather(1, place)


def picked(values: Float[Tensor, "b S *v"], place: Tensor) -> Float[Tensor, "b n *v"]:
    """Of each curve, what belongs to the pieces with these numbers."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), place]


def weights(t: Float[Tensor, "b n"]) -> list[Float[Tensor, "b n s"]]:
    """Of values at Gauss's points: for the value at t in [0, 1], and for the single and double integral up to it."""
    k = torch.arange(STAGES, dtype=t.dtype, device=t.device)
    monomials = t.unsqueeze(2) ** k
    once = monomials * t.unsqueeze(2) / (k + 1)
    twice = once * t.unsqueeze(2) / (k + 2)
    values = like(_vandermonde(), t)
    return [a @ values for a in (monomials, once, twice)]


def interpolated(values: Float[Tensor, "b S s *v"], joints: Tensor, others: Tensor) -> Float[Tensor, "b R s *v"]:
    """What is given at the Gauss points of some pieces, at those of others."""
    h = others.diff(dim=1).unsqueeze(2)
    times = (others[:, :-1, None] + h * like(gauss(STAGES).points, others)).flatten(1)
    place, local = located(joints, times)
    fine = torch.einsum("bnm,bnm...->bn...", weights(local)[0], picked(values, place))
    return fine.unflatten(1, (h.shape[1], STAGES))


@lru_cache
def _vandermonde() -> np.ndarray:
    """From values at Gauss's points to coefficients of monomials."""
    return np.linalg.inv(gauss(STAGES).points[:, None] ** np.arange(STAGES))


@lru_cache
def legendre() -> np.ndarray:
    """From values at Gauss's points to coefficients of Legendre polynomials."""
    return np.linalg.inv(np.polynomial.legendre.legvander(2 * gauss(STAGES).points - 1, STAGES - 1))


def like(value: np.ndarray, tensor: Tensor) -> Tensor:
    """An array with the precision and device of a tensor."""
    return torch.tensor(value, dtype=tensor.dtype, device=tensor.device)
