"""Geodesics and parallel transport from initial values, for any connection."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import DiscreteCurve
from pullgeo.manifold.runge_kutta import RTOL, integrate

Connection = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(z, u, w) -> Γ(u, w)`` at points ``(b, d)``."""

PROBE = 1e-5
"""How far apart, relative to the velocity, neighbours are shot for a derivative: between rounding and curvature."""


def shoot(
    connection: Connection,
    z: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *carried: Float[Tensor, "b d"],
    rtol: float = RTOL,
) -> tuple[Float[Tensor, "b d"], ...]:
    """Follow geodesics for unit time: ``z̈ = -Γ(ż, ż)``, carrying vectors along in parallel, ``ẇ = -Γ(ż, w)``.

    Returns:
        End points, velocities there, and the carried vectors there; NaN for a geodesic that cannot be continued for
        unit time, because it leaves the chart or the metric degenerates.
    """

    def field(state: Tensor) -> Tensor:
        point, speed, tangents = state[:, 0], state[:, 1], state[:, 1:]
        return torch.cat([speed.unsqueeze(1), -turns(connection, point, speed, tangents)], 1)

    def size(state: Tensor) -> Tensor:
        own = state.abs().amax(2)
        # a point's error counts against the distance covered in unit time, wherever the origin is
        return torch.cat([own[:, 1:2], own[:, 1:]], 1)

    return integrate(field, torch.stack([z, velocity, *carried], 1), size, rtol=rtol).unbind(1)


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


def begin_velocity(connection: Connection, curve: DiscreteCurve) -> Float[Tensor, "b d"]:
    """The velocity with which curves begin that are geodesics but for discretisation errors.

    ``ż(0) = z(1) - z(0) + ∫ (1 - t) Γ(ż, ż) dt``, by Simpson's rule: a spline's slope is worst at its ends, and this
    integral smooths it. Cost: one connection at about as many points as the curve has nodes.
    """
    n = 2 * -(-curve.segments // 2)
    t = torch.linspace(0, 1, n + 1, dtype=curve.nodes.dtype, device=curve.nodes.device)
    points, speeds = (a.reshape(-1, a.shape[-1]) for a in (curve(t), curve.velocity(t)))
    turn = connection(points, speeds, speeds).unflatten(0, (len(curve), n + 1))
    weight = torch.full_like(t, 2.0)
    weight[1::2], weight[0], weight[-1] = 4.0, 1.0, 1.0
    return curve.end - curve.begin + torch.einsum("t,btd->bd", weight * (1 - t) / (3 * n), turn)


def polish(
    connection: Connection,
    z: Float[Tensor, "b d"],
    target: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    *,
    tol: float = 1e-10,
    max_rounds: int = 4,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, " b"]]:
    """Newton's method on the initial velocity, until the geodesic meets its target.

    The derivative of the end point comes from d geodesics nearby, shot in the same batch; a velocity that a boundary
    value solver found is near enough for one derivative and one or two corrections with it.

    Returns:
        The velocities and the remaining miss ``‖exp_z(v) - target‖``, relative to ``‖target - z‖``.

    Cost: a round shoots ``(d + 1) b`` geodesics in one batch, then b of them for each of at most three corrections.
    """
    reach = (target - z).norm(dim=-1).clamp(min=torch.finfo(z.dtype).tiny)
    best, best_miss = velocity, torch.full_like(reach, torch.inf)
    open_ = torch.arange(len(z), device=z.device)
    for _ in range(max_rounds):
        if not len(open_):
            break
        before = best_miss[open_]
        end, derivative = _end_and_derivative(connection, z[open_], best[open_])
        best_miss = best_miss.index_put((open_,), _miss(end, target[open_], reach[open_]))
        active = open_
        for _ in range(3):
            correction, info = torch.linalg.solve_ex(derivative, (target[active] - end).unsqueeze(-1))
            trial = best[active] + correction.squeeze(-1)
            end = shoot(connection, z[active], torch.where((info == 0).unsqueeze(-1), trial, best[active]))[0]
            miss = _miss(end, target[active], reach[active])
            better = miss < best_miss[active]
            best = best.index_put((active[better],), trial[better])
            going = better & (miss > tol) & (miss < 0.1 * best_miss[active])
            best_miss = best_miss.index_put((active[better],), miss[better])
            active, end, derivative = active[going], end[going], derivative[going]
            if not len(active):
                break
        # at rounding error a round changes nothing any more
        still = (best_miss[open_] > tol) & (best_miss[open_] < 0.5 * before)
        open_ = open_[still]
    return best, best_miss


def end_derivative(
    connection: Connection, z: Float[Tensor, "b d"], velocity: Float[Tensor, "b d"]
) -> Float[Tensor, "b d d"]:
    """``∂exp_z(v)/∂v`` by differences to d neighbours, to about five digits. Cost: ``(d + 1) b`` geodesics."""
    return _end_and_derivative(connection, z, velocity)[1]


def _end_and_derivative(connection: Connection, z: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    b, d = z.shape
    size = velocity.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
    steps = PROBE * size.unsqueeze(0) * torch.eye(d, dtype=z.dtype, device=z.device).unsqueeze(1)
    bundle = torch.cat([velocity.unsqueeze(0), velocity + steps])
    ends = shoot(connection, z.repeat(d + 1, 1), bundle.reshape(-1, d))[0].unflatten(0, (d + 1, b))
    return ends[0], ((ends[1:] - ends[0]) / (PROBE * size)).permute(1, 2, 0)


def _miss(end: Tensor, target: Tensor, reach: Tensor) -> Tensor:
    return ((end - target).norm(dim=-1) / reach).nan_to_num(nan=torch.inf)
