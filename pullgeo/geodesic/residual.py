"""How far from stationary a curve is, in a unit that no rescaling changes."""

import torch
from jaxtyping import Float
from torch import Tensor


def scale_free(
    gradient: Float[Tensor, "p m d"], stretch: Float[Tensor, " p"], energy: Float[Tensor, " p"]
) -> Float[Tensor, " p"]:
    """``‖gradient‖ / √(stretch energy)``: the gradient against the largest that chords of this energy could cause.

    Infinite where a curve has a length but moving its inner nodes changes nothing (``stretch = 0``): a gradient
    that is zero for that reason says nothing.
    """
    size = stretch * energy
    known = size > 0
    norm = gradient.flatten(1).norm(dim=1) / torch.where(known, size, 1.0).sqrt()
    return torch.where(known | ~torch.isfinite(size), norm, torch.where(energy > 0, torch.inf, 0.0))


def relative_rounding(magnitude: Float[Tensor, " p"], energy: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """``√(magnitude / energy) ε``: rounding errors of values of this square, relative to a length; never infinite."""
    numbers = torch.finfo(energy.dtype)
    # of a ratio, which overflows, no root would be left
    return numbers.eps * magnitude.clamp(min=0).sqrt() / energy.clamp(min=numbers.tiny).sqrt()
