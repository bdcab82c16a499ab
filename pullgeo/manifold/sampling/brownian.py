"""Brownian motion by random steps."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.chart import Chart
from pullgeo.manifold.frame import Frame
from pullgeo.manifold.sampling.options import check_count, check_step_size
from pullgeo.numerics.progress import stepped


def random_walk(
    manifold: Chart, z: Float[Tensor, "b d"], steps: int, step_size: float, generator: torch.Generator
) -> Float[Tensor, "b n d"]:
    """``z ↦ z + v - ½ Γ(v, v)`` with ``v ~ N(0, h G⁻¹)``, n = steps + 1 points with the start among them.

    ``v - ½ Γ(v, v)`` is the geodesic with velocity v to second order, so the mean of a step is the drift
    ``-½ h G^ij Γ^k_ij`` that Brownian motion has in a chart, and its covariance is ``h G⁻¹``.

    Raises:
        OptionError: ``steps`` is negative or ``step_size`` not positive.

    Source: Schwarz, Herrmann, Sturm, Wardetzky, *Efficient Random Walks on Riemannian Manifolds*, Found. Comput.
    Math. 2023 (walks by retractions of second order).
    """
    check_count("random_walk", "steps", steps)
    check_step_size("random_walk", step_size)
    path = [z]
    for _ in range(steps):
        stepped()
        noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
        v = step_size**0.5 * Frame.of(manifold.metric(z), len(z)).tangents(noise)
        z = z + v - manifold.connection(z, v, v) / 2
        path.append(z)
    return torch.stack(path, 1)
