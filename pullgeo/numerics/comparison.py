"""Comparisons of energies and lengths, some of which may be NaN or infinite: these are worse than every finite one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def ranked(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The values with ``inf`` for NaN and infinities of either sign, so that ``min`` and ``sort`` put these last.

    torch and numpy take NaN for the least of all numbers, or compare it as false with everything.
    """
    return values.nan_to_num(torch.inf, torch.inf, torch.inf)


def less(a: Float[Tensor, "*#n"], b: Float[Tensor, "*#n"]) -> Bool[Tensor, "..."]:
    """Whether a is finite, and either less than b or b is not finite."""
    return ranked(a) < ranked(b)
