"""How evenly a discrete curve runs."""

import torch
from jaxtyping import Float
from torch import Tensor


def speed_ratio(squared_lengths: Float[Tensor, "p s"]) -> Float[Tensor, " p"]:
    """Largest over median length of the segments."""
    lengths = squared_lengths.detach().clamp(min=0).sqrt()
    return lengths.amax(1) / lengths.median(1).values.clamp(min=torch.finfo(lengths.dtype).tiny)
