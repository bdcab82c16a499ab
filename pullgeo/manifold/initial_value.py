"""Geodesics and parallel transport from initial values, for any connection."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torchdiffeq import odeint

from pullgeo.errors import NonFiniteError

Connection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(z, u, w) -> Γ(u, w)`` at points ``(b, d)``."""


def shoot(
    connection: Connection,
    z: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *carried: Float[Tensor, "b d"],
    rtol: float = 1e-9,
    atol: float = 1e-11,
) -> tuple[Float[Tensor, "b d"], ...]:
    """Follow geodesics for unit time: ``z̈ = -Γ(ż, ż)``, carrying vectors along in parallel, ``ẇ = -Γ(ż, w)``.

    All initial values are integrated in one batch by the Dormand-Prince method of order 5; a step is accepted when the
    worst of them is within the tolerances, so a pair's accuracy does not depend on its company. Differentiable by
    backpropagation through the steps.

    Returns:
        End points, velocities there, and the carried vectors there.

    Raises:
        NonFiniteError: a geodesic cannot be continued for unit time: it leaves the chart, or the metric degenerates.
    """
    states = [z, velocity, *carried]
    if z.numel() == 0:
        return tuple(states)
    # lengths in the chart set the scale of the absolute tolerance
    scale = float(torch.cat(states).detach().abs().max().clamp(min=torch.finfo(z.dtype).tiny))

    def rhs(t: Tensor, state: Tensor) -> Tensor:
        point, speed, *rest = state.unbind(0)
        if not bool(torch.isfinite(state).all()):
            raise NonFiniteError(
                "expmap: a geodesic left the region where the metric is finite before unit time. Shoot with a shorter "
                "tangent vector, or check the decoder far away from the data."
            )
        slopes = [speed, -connection(point, speed, speed)]
        slopes.extend(-connection(point, speed, w) for w in rest)
        return torch.stack(slopes)

    times = torch.tensor([0.0, 1.0], dtype=z.dtype, device=z.device)
    try:
        path = odeint(
            rhs,
            torch.stack(states),
            times,
            method="dopri5",
            rtol=rtol,
            atol=atol * scale,
            options={"norm": lambda error: error.abs().max()},
        )
    except AssertionError as error:  # torchdiffeq asserts that its step size has not underflown
        raise NonFiniteError(
            f"expmap: the geodesic equation became too stiff to integrate ({error}). The metric degenerates along the "
            "way: shoot with a shorter tangent vector, or regularise the metric."
        ) from error
    return path[-1].unbind(0)


def polish(
    connection: Connection,
    z: Float[Tensor, "b d"],
    target: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *,
    tol: float = 1e-10,
    max_steps: int = 8,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
    """Newton's method on the initial velocity, until the geodesic meets its target.

    The derivative of the end point comes from d geodesics nearby, shot in the same batch; a velocity that a boundary
    value solver found is close enough for one or two steps.

    Returns:
        The velocities and the remaining miss ``‖exp_z(v) - target‖``, relative to ``‖target - z‖``.

    Cost: each step shoots ``(d + 1) b`` geodesics in one batch.
    """
    b, d = z.shape
    size = velocity.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
    reach = (target - z).norm(dim=-1).clamp(min=torch.finfo(z.dtype).tiny)
    best, best_miss = velocity, torch.full_like(reach, torch.inf)
    for _ in range(max_steps):
        steps = 1e-6 * size.unsqueeze(0) * torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1)
        bundle = torch.cat([velocity.unsqueeze(0), velocity + steps])
        ends = shoot(connection, z.repeat(d + 1, 1), bundle.reshape(-1, d))[0].unflatten(0, (d + 1, b))
        miss = (ends[0] - target).norm(dim=-1) / reach
        better = miss < best_miss
        best = torch.where(better.unsqueeze(-1), velocity, best)
        best_miss = torch.where(better, miss, best_miss)
        if bool((~better | (best_miss < tol)).all()):
            break
        derivative = ((ends[1:] - ends[0]) / (1e-6 * size)).permute(1, 2, 0)
        correction, info = torch.linalg.solve_ex(derivative, (target - ends[0]).unsqueeze(-1))
        usable = (info == 0) & better
        velocity = torch.where(usable.unsqueeze(-1), velocity + correction.squeeze(-1), best)
    return best, best_miss
