"""Evaluating a manifold at many points without holding everything at once."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pullgeo._torch.state import modules_within
from pullgeo.errors import NonFiniteError
from pullgeo.geodesic.energy.base import SinglePrecisionEnergy
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.numerics.chunking import OUTPUTS
from pullgeo.numerics.progress import counted


def evaluated(manifold: Manifold) -> Manifold:
    """The manifold in the precision in which figures evaluate it: float32 if its decoder is, float64 otherwise.

    A decoder may be a module, or a function whose contents are not known. What is known to work with float32 is
    taken as it is; anything else is evaluated as solvers do, which convert modules and functions alike.
    """
    single = manifold.in_single() if isinstance(manifold, SinglePrecisionEnergy) else None
    return single if isinstance(single, Manifold) else manifold.in_double()


def at_home(manifold: Manifold, z: Tensor) -> Tensor:
    """The points in the precision of a manifold that is `evaluated`, and on the device of its weights, if any."""
    single = isinstance(manifold, SinglePrecisionEnergy) and manifold.in_single() is not None
    weights = (t for module in modules_within(manifold) for t in (*module.parameters(), *module.buffers()))
    first = next(weights, z)
    return z.to(device=first.device, dtype=torch.float32 if single else torch.float64)


def evaluate(manifold: Manifold, function: Callable[[Tensor], Tensor], z: Float[Tensor, "n d"]) -> Tensor:
    """``function(z)`` in batches that suit the size of the manifold's output, without a graph."""
    d = z.shape[1]
    with torch.no_grad():
        # a decoder may write into the latents that it is given
        size = manifold.decode(z[:1].clone()).numel() if isinstance(manifold, PullbackManifold) else d * d
        return torch.cat([function(batch.clone()) for (batch,) in counted(OUTPUTS.split(z, each=size * (d + 1)))])


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
