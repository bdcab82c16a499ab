"""How neighbouring geodesics run apart."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.manifold.exponential import Connection, christoffel_batch
from pullgeo.numerics.ode.dop853 import integrate

CurvatureOperator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(z, u, v, w) -> R(u, v)w`` at points ``(b, d)``."""


@dataclass(frozen=True, eq=False)
class JacobiField:
    """Jacobi fields along b geodesics at n times.

    Args:
        times: in [0, 1].
        points: of the geodesics.
        values: ``J``, tangents at the points.
        derivatives: ``∇J/dt``, the covariant derivatives along the geodesics.
    """

    times: Float[Tensor, " n"]
    points: Float[Tensor, "b n d"]
    values: Float[Tensor, "b n d"]
    derivatives: Float[Tensor, "b n d"]

    def to(self, dtype: torch.dtype) -> "JacobiField":
        """The same fields in another dtype."""
        return JacobiField(*(t.to(dtype) for t in (self.times, self.points, self.values, self.derivatives)))


def jacobi_field(
    connection: Connection,
    curvature: CurvatureOperator,
    x: Float[Tensor, "b d"],
    u: Float[Tensor, "b d"],
    value: Float[Tensor, "b d"],
    derivative: Float[Tensor, "b d"],
    times: Float[Tensor, " n"],
) -> JacobiField:
    """Solve ``∇²J/dt² + R(J, γ̇)γ̇ = 0`` along ``γ(t) = exp_x(t u)``.

    In the chart ``J̇ = K - Γ(γ̇, J)`` and ``K̇ = -R(J, γ̇)γ̇ - Γ(γ̇, K)``.

    Raises:
        OptionError: the times are not increasing numbers in [0, 1].
    """
    steps = torch.diff(times, prepend=times.new_zeros(1))
    if not bool((steps >= 0).all()) or bool((times > 1).any()):
        raise OptionError(f"jacobi_field: times must increase within [0, 1], got {times.tolist()}.")

    def field(state: Tensor) -> Tensor:
        z, velocity, J, K = state.unbind(1)
        turn = christoffel_batch(connection, z, velocity, state[:, 1:])
        fall = curvature(z, J, velocity, velocity)
        straight = torch.stack([velocity, torch.zeros_like(J), K, -fall], 1)
        return straight - torch.cat([torch.zeros_like(turn[:, :1]), turn], 1)

    def size(state: Tensor) -> Tensor:
        own = state.abs().amax(2)
        # J and K feed each other: one may vanish for a moment
        pair = own[:, 2:].amax(1, keepdim=True)
        return torch.cat([own[:, 1:2], own[:, 1:2], pair, pair], 1)

    state = torch.stack([x, u, value, derivative], 1)
    path = []
    for step in steps.tolist():
        state = integrate(field, state, size, duration=step)
        path.append(state)
    along = torch.stack(path, 2) if path else state.unsqueeze(2)[:, :, :0]
    return JacobiField(times, along[:, 0], along[:, 2], along[:, 3])
