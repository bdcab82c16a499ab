"""The geodesic equation with a fixed step, for curves that must not wait for each other."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Connection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(z, u, w) -> Γ(u, w)`` at points ``(n, d)``."""


def flow(
    connection: Connection, z: Float[Tensor, "b d"], velocity: Float[Tensor, "b d"], segments: int, substeps: int
) -> Float[Tensor, "b n d"]:
    """Follow ``z̈ = -Γ(ż, ż)`` for unit time by the classical Runge-Kutta method of order 4.

    Returns:
        The points at the times ``0, 1/T, ..., 1``; NaN from where a geodesic cannot be continued.

    Cost: ``4 T substeps`` connections.
    """
    h = 1 / (segments * substeps)
    point, speed, nodes = z, velocity, [z]
    for _ in range(segments):
        for _ in range(substeps):
            a1 = -connection(point, speed, speed)
            v2 = speed + h / 2 * a1
            a2 = -connection(point + h / 2 * speed, v2, v2)
            v3 = speed + h / 2 * a2
            a3 = -connection(point + h / 2 * v2, v3, v3)
            v4 = speed + h * a3
            a4 = -connection(point + h * v3, v4, v4)
            point = point + h / 6 * (speed + 2 * v2 + 2 * v3 + v4)
            speed = speed + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
        nodes.append(point)
    return torch.stack(nodes, 1)
