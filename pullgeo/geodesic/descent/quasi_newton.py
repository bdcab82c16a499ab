"""A few steps towards geodesics by gradients alone, for curves that are not followed to the end."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.geodesic.energy.base import DiscreteEnergy, EnergyGradient
from pullgeo.geodesic.energy.gradient import slope

RIDGE = 1e-6
"""Added to a metric's diagonal, relative to its mean: what the ends do not see is no way to infinity."""

SHORTER = 0.25
"""Factor of the next step's length after one that has raised the energy."""


def approach(
    space: DiscreteEnergy,
    nodes: Float[Tensor, "p n d"],
    at: EnergyGradient,
    metric: Float[Tensor, "p d d"],
    steps: int,
) -> Float[Tensor, "p n d"]:
    """Curves nearer to minimisers of the energy, by the limited-memory BFGS method.

    Steps are measured by ``2T K ⊗ G``, with the second difference K and one metric for each curve, such as the mean of
    those at its ends, in the unit in which it gives the curve the energy that it has. Second derivatives of the energy
    are learnt from its gradients, for which a few steps suffice, while a full Newton step takes d times as much. A step
    that raises the energy is not taken, and followed by a shorter one.

    Args:
        space: where the curves live.
        nodes: the curves, of an even number of segments.
        at: the energy to first order there.
        metric: symmetric; of one that is not positive definite or not finite the identity takes the place.
        steps: how many.

    Cost: for each step a forward and a backward pass for each inner node, and ``p (d³ + steps T d)`` operations.

    Source: Nocedal, Wright, *Numerical Optimization*, algorithm 7.4.
    """
    measure = _Unit.of(nodes, at.energy, metric)
    memory: list[_Pair] = []
    length = torch.ones_like(at.energy)
    for _ in range(steps):
        trial = nodes.clone()
        trial[:, 1:-1] -= length[:, None, None] * _direction(measure, memory, at.gradient)
        new = slope(space, trial)
        good = new.energy < at.energy
        length = torch.where(good, 1.0, SHORTER * length)
        memory.append(_Pair.between(nodes, trial, at, new, good))
        nodes, at = torch.where(good[:, None, None], trial, nodes), new.where(good, at)
    return nodes


@dataclass(frozen=True, eq=False)
class _Unit:
    """``(2T K ⊗ G)⁻¹``."""

    across: Float[Tensor, "m m"]
    inverse: Float[Tensor, "p d d"]

    @staticmethod
    def of(nodes: Float[Tensor, "p n d"], energy: Float[Tensor, " p"], metric: Float[Tensor, "p d d"]) -> "_Unit":
        segments, d = nodes.shape[1] - 1, nodes.shape[2]
        identity = torch.eye(d, dtype=nodes.dtype, device=nodes.device)
        size = metric.diagonal(dim1=1, dim2=2).mean(1)
        metric = metric + (RIDGE * size)[:, None, None] * identity
        factor, failed = torch.linalg.cholesky_ex(torch.nan_to_num(metric, posinf=0.0, neginf=0.0))
        lost = (failed != 0) | ~torch.isfinite(metric).flatten(1).all(1)
        metric, factor = (torch.where(lost[:, None, None], identity, a) for a in (metric, factor))
        chords = nodes.diff(dim=1)
        expected = segments * ((chords @ metric) * chords).sum((1, 2))
        unit = energy / expected
        # a curve without a length has nowhere to go
        unit = torch.where(torch.isfinite(unit) & (unit > 0), unit, 1.0)
        number = torch.arange(1, segments, dtype=nodes.dtype, device=nodes.device)
        low, high = torch.minimum(number[:, None], number), torch.maximum(number[:, None], number)
        across = low * (segments - high) / (2 * segments**2)
        return _Unit(across, torch.cholesky_inverse(factor) / unit[:, None, None])

    def __call__(self, v: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
        return self.across @ v @ self.inverse


@dataclass(frozen=True, eq=False)
class _Pair:
    """How a step changed nodes and gradients, both zero where it was not taken or tells of no curvature."""

    step: Float[Tensor, "p m d"]
    change: Float[Tensor, "p m d"]
    weight: Float[Tensor, " p"]

    @staticmethod
    def between(
        nodes: Tensor, trial: Tensor, at: EnergyGradient, new: EnergyGradient, good: Bool[Tensor, " p"]
    ) -> "_Pair":
        step, change = (trial - nodes)[:, 1:-1], new.gradient - at.gradient
        product = _dot(step, change)
        use = good & torch.isfinite(product) & (product > torch.finfo(product.dtype).eps * at.energy)
        step, change = (torch.where(use[:, None, None], a, 0.0) for a in (step, change))
        return _Pair(step, change, torch.where(use, 1 / product, 0.0))


def _direction(unit: _Unit, memory: list[_Pair], gradient: Float[Tensor, "p m d"]) -> Float[Tensor, "p m d"]:
    """The inverse of the learnt Hessian times the gradient."""
    v, shares = gradient, []
    scale = torch.ones_like(gradient[:, 0, 0])
    for pair in reversed(memory):
        shares.append(pair.weight * _dot(pair.step, v))
        v = v - shares[-1][:, None, None] * pair.change
    for pair in memory:
        known = 1 / (pair.weight * _dot(pair.change, unit(pair.change)))
        scale = torch.where(pair.weight > 0, known, scale)
    v = scale[:, None, None] * unit(v)
    for pair, share in zip(memory, reversed(shares), strict=True):
        v = v + (share - pair.weight * _dot(pair.change, v))[:, None, None] * pair.step
    return v


def _dot(a: Float[Tensor, "p m d"], b: Float[Tensor, "p m d"]) -> Float[Tensor, " p"]:
    return (a * b).sum((1, 2))
