"""Where a metric jumps."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.manifold.base import Manifold

_STEPS = 64
_HALVINGS = 20
"""A smooth change is 1e-6 times as large after so many."""
_LEFT = 1e-3
"""What is left of the change in a step, relative to the metric, says that it was a jump."""


def jumps(manifold: Manifold, begin: Float[Tensor, "b d"], end: Float[Tensor, "b d"]) -> Bool[Tensor, " b"]:
    """Whether the metric jumps on the straight lines between points, as it does with ReLU decoders.

    The step of each line over which the metric changes most is halved again and again, towards the greater change. What
    a smooth metric changes goes to zero with the step; a jump stays.

    Args:
        manifold: in float64.
        begin: where lines begin.
        end: where they end.

    Cost: 85 metrics a line.
    """
    with torch.no_grad():
        t = torch.linspace(0, 1, _STEPS + 1, dtype=begin.dtype, device=begin.device)
        G = torch.stack([_metric(manifold, begin + s * (end - begin)) for s in t], 1)
        worst = _distance(G[:, 1:], G[:, :-1]).argmax(1)
        rows = torch.arange(len(begin), device=begin.device)
        low, high = t[worst], t[worst + 1]
        first, last = G[rows, worst], G[rows, worst + 1]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            between = _metric(manifold, begin + middle[:, None] * (end - begin))
            left = _distance(between, first) > _distance(last, between)
            low, high = torch.where(left, low, middle), torch.where(left, middle, high)
            left = left[:, None, None]
            first, last = torch.where(left, first, between), torch.where(left, between, last)
        size = torch.linalg.matrix_norm(first) + torch.linalg.matrix_norm(last)
        return _distance(first, last) > _LEFT * size


def _metric(manifold: Manifold, z: Tensor) -> Float[Tensor, "b d d"]:
    return manifold.metric(z).dense()


def _distance(first: Tensor, last: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(first - last)
