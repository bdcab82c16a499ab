"""Curves whose nodes lie at equal distances."""

import torch
from jaxtyping import Float
from torch import Tensor


def equal_arcs(nodes: Float[Tensor, "b n d"], lengths: Float[Tensor, "b s"], segments: int) -> Float[Tensor, "b m d"]:
    """Points that cut polygons into pieces of equal length.

    A polygon without a length, or with one that is not finite, is cut at equal steps of its parameter. The end points
    stay what they are, to the last bit.

    Args:
        nodes: the polygons' corners.
        lengths: how long each of the ``s = n - 1`` segments is, in whatever metric.
        segments: number of pieces.
    """
    arc = torch.nn.functional.pad(lengths.cumsum(1), (1, 0))
    total = arc[:, -1:]
    measurable = torch.isfinite(total) & (total > 0)
    even = torch.linspace(0, 1, arc.shape[1], dtype=arc.dtype, device=arc.device)
    arc = torch.where(measurable, arc / torch.where(measurable, total, 1.0), even)
    goal = torch.linspace(0, 1, segments + 1, dtype=arc.dtype, device=arc.device).expand(len(arc), -1).contiguous()
    right = torch.searchsorted(arc, goal, right=True).clamp(1, arc.shape[1] - 1)
    before, after = arc.gather(1, right - 1), arc.gather(1, right)
    share = ((goal - before) / (after - before).clamp(min=torch.finfo(arc.dtype).tiny)).clamp(0, 1).unsqueeze(2)
    index = right.unsqueeze(2).expand(-1, -1, nodes.shape[2])
    cut = nodes.gather(1, index - 1) * (1 - share) + nodes.gather(1, index) * share
    return torch.cat([nodes[:, :1], cut[:, 1:-1], nodes[:, -1:]], 1)
