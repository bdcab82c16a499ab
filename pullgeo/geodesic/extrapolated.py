"""Lengths of discrete geodesics as functions of their energies, with derivatives where the energy vanishes too."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def root(energy: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """``√E``, and 0 for energies that rounding errors have made negative."""
    return energy.clamp(min=0).sqrt()


def extrapolated(
    energy: Float[Tensor, " p"], coarse_energy: Float[Tensor, " p"], share: Float[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """``√E + share (√E - √E_c)``: the length of a curve from its energies at two resolutions.

    A distance d has no derivative where it vanishes; its gradient there is 0, the one in the middle. Its square is
    smooth all the same, and so is every other even function of d. Their second derivatives need ``h'(d) / d`` as d
    tends to 0, for a function h of d. At ``d = 0`` this is the derivative of the incoming cotangent ``h'(d)`` with
    respect to d, times that of the energy: where a graph of derivatives is built, the backward pass takes it from the
    graph of the cotangent.

    Args:
        energy: ``E``.
        coarse_energy: ``E_c``, which is seen with every second node.
        share: of their difference that is added; it is not differentiated.
    """
    length: Tensor = _Extrapolated.apply(energy, coarse_energy, share)
    return length


class _Extrapolated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, energy: Tensor, coarse_energy: Tensor, share: Tensor) -> Tensor:
        fine, coarse = root(energy), root(coarse_energy)
        length = fine + torch.where(energy > 0, share * (fine - coarse), 0.0)
        ctx.save_for_backward(energy, coarse_energy, share, length)
        return length

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, Tensor, None]:
        energy, coarse_energy, share, length = ctx.saved_tensors
        positive = energy > 0
        fine = (1 + share) * weight * _inverse_root(energy) / 2
        coarse = torch.where(positive, -share * weight * _inverse_root(coarse_energy) / 2, 0.0)
        if torch.is_grad_enabled() and weight.requires_grad and not bool(positive.all()):
            # the incoming cotangent vanishes with the length where an even function follows: l'Hôpital's rule
            (change,) = torch.autograd.grad(
                weight.sum(), length, create_graph=True, retain_graph=True, allow_unused=True
            )
            if change is not None:
                fine = torch.where(positive, fine, change / 2)
        return fine, coarse, None


def _inverse_root(energy: Tensor) -> Tensor:
    """``E^-½``, and 0 where there is none."""
    positive = energy > 0
    return torch.where(positive, torch.where(positive, energy, 1.0).rsqrt(), 0.0)
