"""Geodesics and parallel transport from initial values, for any connection."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.runge_kutta import MAX_STEPS, RTOL, integrate

Connection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(z, u, w) -> Γ(u, w)`` at points ``(b, d)``."""


def shoot(
    connection: Connection,
    z: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *carried: Float[Tensor, "b d"],
    duration: float = 1.0,
    rtol: float = RTOL,
    max_steps: int = MAX_STEPS,
) -> tuple[Float[Tensor, "b d"], ...]:
    """Follow geodesics for some time: ``z̈ = -Γ(ż, ż)``, carrying vectors along in parallel, ``ẇ = -Γ(ż, w)``.

    Returns:
        End points, velocities there, and the carried vectors there; NaN for a geodesic that cannot be continued for
        so long, because it leaves the chart or the metric degenerates.
    """

    def field(state: Tensor) -> Tensor:
        point, speed, tangents = state[:, 0], state[:, 1], state[:, 1:]
        return torch.cat([speed.unsqueeze(1), -turns(connection, point, speed, tangents)], 1)

    def size(state: Tensor) -> Tensor:
        own = state.abs().amax(2)
        # a point's error counts against the distance covered in unit time, wherever the origin is
        return torch.cat([own[:, 1:2], own[:, 1:]], 1)

    return integrate(
        field, torch.stack([z, velocity, *carried], 1), size, duration=duration, rtol=rtol, max_steps=max_steps
    ).unbind(1)


def turns(
    connection: Connection, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], tangents: Float[Tensor, "b k d"]
) -> Float[Tensor, "b k d"]:
    """``Γ(u, w)`` for several w at each point, in one call."""
    b, k, d = tangents.shape
    if k == 1:
        w = tangents.squeeze(1)
        # the same tensor twice: a connection may save half of its work
        return connection(z, u, u if torch.equal(u, w) else w).unsqueeze(1)
    points, velocities = (a.unsqueeze(1).expand(b, k, d).reshape(-1, d) for a in (z, u))
    return connection(points, velocities, tangents.reshape(-1, d)).reshape(b, k, d)
