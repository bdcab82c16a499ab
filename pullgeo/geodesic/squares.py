"""Squared lengths, which an invalid (indefinite) metric makes negative."""

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 1e-10
"""Negative squares up to this part of the largest one are zeros that rounding has touched."""


def squares(pieces: Float[Tensor, "p *s"]) -> Float[Tensor, "p *s"]:
    """The squared lengths of segments; NaN where one is negative, so that nothing computed from it passes for a length."""
    if pieces.numel() == 0:
        return pieces
    size = pieces.detach().abs().flatten(1).amax(1).view(-1, *[1] * (pieces.ndim - 1))
    return torch.where(pieces.detach() < -ROUNDING * size, torch.nan, pieces)


def lengths(pieces: Float[Tensor, "p *s"]) -> Float[Tensor, "p *s"]:
    """The lengths of segments; NaN where a square is negative."""
    return squares(pieces).clamp(min=0).sqrt()
