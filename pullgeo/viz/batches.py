"""Evaluating a manifold at many points without holding everything at once."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pullgeo.errors import NonFiniteError
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold

# Numbers held at once: 64 MB in float64.
_BUDGET = 2**23


def at_home(manifold: Manifold, z: Tensor) -> Tensor:
    """The points in the precision and on the device of the manifold's weights, if it has any."""
    tensors = (t for t in (*manifold.parameters(), *manifold.buffers()) if t.is_floating_point())
    first = next(tensors, None)
    return z if first is None else z.to(first)


def evaluate(manifold: Manifold, function: Callable[[Tensor], Tensor], z: Float[Tensor, "n d"]) -> Tensor:
    """``function(z)`` in batches that suit the size of the manifold's output, without a graph."""
    d = z.shape[1]
    with torch.no_grad():
        size = manifold.decode(z[:1]).numel() if isinstance(manifold, PullbackManifold) else d * d
        rows = max(1, _BUDGET // (size * (d + 1)))
        return torch.cat([function(batch) for batch in z.split(rows)])


def log_volumes(manifold: Manifold, z: Float[Tensor, "n d"], where: str) -> Float64[np.ndarray, " n"]:
    """``log √det G`` at n points, NaN where the metric is singular.

    Raises:
        NonFiniteError: the metric is not finite at a point; ``where`` says which points these are.
    """
    try:
        values = evaluate(manifold, manifold.log_volume, z)
    except NonFiniteError as error:
        raise NonFiniteError(f"{where}: {error}") from error
    return torch.where(torch.isfinite(values), values, torch.nan).double().numpy(force=True)
