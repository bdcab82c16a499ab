"""Curves that are polynomials on pieces, given by values at Gauss's points of each."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.numerics.ode.gauss_legendre import gauss

STAGES = 6
"""Gauss points of a piece of a boundary value problem: order 12."""


def located(joints: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """On which piece each time lies, and where on it, in [0, 1]."""
    place = (torch.searchsorted(joints.contiguous(), times.contiguous(), right=True) - 1).clamp(0, joints.shape[1] - 2)
    duration = joints.diff(dim=1).gather(1, place).clamp(min=torch.finfo(joints.dtype).tiny)
    return place, (times - joints.gather(1, place)) / duration


def picked(values: Float[Tensor, "b S *v"], place: Tensor) -> Float[Tensor, "b n *v"]:
    """Of each curve, what belongs to the pieces with these numbers."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), place]


def weights(t: Float[Tensor, "b n"], stages: int) -> list[Float[Tensor, "b n s"]]:
    """Of values at Gauss's points: for the value at t in [0, 1], and for the single and double integral up to it."""
    x = 2 * t - 1
    P = [torch.ones_like(x), x]
    for k in range(1, stages + 1):
        P.append(((2 * k + 1) * x * P[k] - k * P[k - 1]) / (k + 1))
    once = [t] + [(P[k + 1] - P[k - 1]) / (2 * (2 * k + 1)) for k in range(1, stages + 1)]
    twice = [t * t / 2] + [(once[k + 1] - once[k - 1]) / (2 * (2 * k + 1)) for k in range(1, stages)]
    values = like(gauss(stages).legendre, t)
    return [torch.stack(a[:stages], 2) @ values for a in (P, once, twice)]


def interpolated(values: Float[Tensor, "b S s *v"], joints: Tensor, others: Tensor) -> Float[Tensor, "b R s *v"]:
    """What is given at the Gauss points of some pieces, at those of others."""
    h = others.diff(dim=1).unsqueeze(2)
    own = values.shape[2]
    points = like(gauss(own).points, others)
    times = (others[:, :-1, None] + h * points).flatten(1)
    place, local = located(joints, times)
    fine = torch.einsum("bnm,bnm...->bn...", weights(local, own)[0], picked(values, place))
    return fine.unflatten(1, (h.shape[1], len(points)))


def resampled(values: Float[Tensor, "b S s *v"], stages: int) -> Float[Tensor, "b S r *v"]:
    """What is given at the Gauss points of pieces, at so many others of the same pieces."""
    if values.shape[2] == stages:
        return values
    return torch.einsum("rm,bSm...->bSr...", like(_resampling(values.shape[2], stages), values), values)


@lru_cache
def _resampling(own: int, stages: int) -> np.ndarray:
    vander: np.ndarray = np.polynomial.legendre.legvander(2 * gauss(stages).points - 1, own - 1)
    return vander @ gauss(own).legendre


def like(value: np.ndarray, tensor: Tensor) -> Tensor:
    """An array with the precision and device of a tensor."""
    return torch.as_tensor(value, dtype=tensor.dtype, device=tensor.device)
