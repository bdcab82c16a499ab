"""Type aliases shared by all rooms.

Letters in shapes: ``b`` batch, ``k`` tangents, ``d`` latent, ``D`` ambient, ``t`` node.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from torch import Tensor, nn

Wrt = Literal["input", "weight"]
"""With respect to what a Jacobian is taken."""

Parameters = str | Iterable[str] | Callable[[str, nn.Parameter], bool]
"""Which parameters of a network are its weights; see `ParameterLayout.of`."""

Decoder = nn.Module | Callable[[Tensor], Tensor]
"""Anything that maps a batch of latents ``(b, *in)`` to a batch of outputs ``(b, *out)``, sample by sample."""
