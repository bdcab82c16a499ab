"""Geodesics and parallel transport as initial-value problems, by scipy's eighth-order integrator.

z̈^k = -Γ^k_ij ż^i ż^j and ẇ^k = -Γ^k_ij ż^i w^j, with Christoffel symbols by finite differences of G.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from pullgeo.errors import NonFiniteError
from pullgeo.testing.oracles.connection import christoffel
from pullgeo.testing.oracles.curves import MetricFunction
from pullgeo.testing.oracles.differences import central_difference


def geodesic_ivp(
    metric: MetricFunction,
    z: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    t: Float[Tensor, " n"] | None = None,
    rtol: float = 1e-12,
) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
    """The geodesics with γ(0) = z and γ̇(0) = v.

    Args:
        metric: ``(b, d) -> (b, d, d)``.
        z: start points ``(b, d)``.
        v: initial velocities ``(b, d)``.
        t: increasing times ``(n,)`` in [0, T]; by default only 1, where γ(1) = exp_z(v).
        rtol: relative tolerance of the integrator (absolute: the same).

    Returns:
        Positions and velocities, float64 ``(b, n, d)``.

    Raises:
        NonFiniteError: the integrator gave up, for example because the geodesic runs out of the chart.

    Cost: some hundred evaluations of Γ per sample.

    Example:
        >>> flat = lambda z: torch.eye(1, dtype=z.dtype).expand(len(z), 1, 1)
        >>> position, velocity = geodesic_ivp(flat, torch.zeros(1, 1), torch.ones(1, 1))
        >>> round(position.item(), 12)
        1.0
    """
    times = torch.ones(1, dtype=torch.float64) if t is None else t.double()
    states = _integrate(_geodesic_field(metric), torch.stack([z.detach().double(), v.detach().double()]), times, rtol)
    return states[:, 0].movedim(0, 1), states[:, 1].movedim(0, 1)


def transport_along_geodesic(
    metric: MetricFunction,
    z: Float[Tensor, "b d"],
    v: Float[Tensor, "b d"],
    w: Float[Tensor, "b d"],
    rtol: float = 1e-12,
) -> Float[Tensor, "b d"]:
    """Parallel transport of w from γ(0) to γ(1) along the geodesic with γ(0) = z, γ̇(0) = v.

    Args:
        metric: ``(b, d) -> (b, d, d)``.
        z: start points ``(b, d)``.
        v: initial velocities ``(b, d)``.
        w: tangents at z, ``(b, d)``.
        rtol: relative tolerance of the integrator.

    Returns:
        Tangents at exp_z(v), float64 ``(b, d)``.

    Raises:
        NonFiniteError: as for `geodesic_ivp`.

    Example:
        >>> flat = lambda z: torch.eye(1, dtype=z.dtype).expand(len(z), 1, 1)
        >>> one = torch.ones(1, 1)
        >>> round(transport_along_geodesic(flat, one, one, 3 * one).item(), 12)
        3.0
    """
    start = torch.stack([tangent.detach().double() for tangent in (z, v, w)])
    return _integrate(_geodesic_field(metric), start, torch.ones(1, dtype=torch.float64), rtol)[0, 2]


def parallel_transport(
    metric: MetricFunction,
    curve: Callable[[float], Float[Tensor, " d"]],
    w: Float[Tensor, " d"],
    rtol: float = 1e-12,
) -> Float[Tensor, " d"]:
    """Parallel transport of one tangent along any curve on [0, 1].

    Args:
        metric: ``(b, d) -> (b, d, d)``.
        curve: smooth, ``t -> (d,)``, defined a little beyond [0, 1] too: its velocity is taken by central differences.
        w: tangent at ``curve(0)``, ``(d,)``.
        rtol: relative tolerance of the integrator.

    Returns:
        Tangent at ``curve(1)``, float64 ``(d,)``.

    Raises:
        NonFiniteError: as for `geodesic_ivp`.

    Example:
        >>> flat = lambda z: torch.eye(1, dtype=z.dtype).expand(len(z), 1, 1)
        >>> parallel_transport(flat, lambda t: torch.tensor([t]), torch.tensor([2.0]))
        tensor([2.], dtype=torch.float64)
    """

    def position(time: Tensor) -> Tensor:
        return curve(float(time)).double()

    def field(time: float, tangent: Tensor) -> Tensor:
        instant = torch.tensor([time], dtype=torch.float64)
        velocity = central_difference(position, instant)[:, 0]
        gamma = christoffel(metric, position(instant)[None])[0]
        return -torch.einsum("kij,i,j->k", gamma, velocity, tangent)

    return _integrate(field, w.detach().double(), torch.ones(1, dtype=torch.float64), rtol)[0]


def _geodesic_field(metric: MetricFunction) -> Callable[[float, Tensor], Tensor]:
    """The field of (z, ż, w...), each ``(b, d)``: every tangent beyond ż is transported along."""

    def field(_time: float, state: Tensor) -> Tensor:
        gamma = christoffel(metric, state[0])
        turns = -torch.einsum("bkij,bi,sbj->sbk", gamma, state[1], state[1:])
        return torch.cat([state[1:2], turns])

    return field


def _integrate(field: Callable[[float, Tensor], Tensor], start: Tensor, times: Tensor, rtol: float) -> Tensor:
    """The states at the given times, ``(n, *start)``."""

    def right_hand_side(time: float, state: np.ndarray) -> np.ndarray:
        return field(time, torch.from_numpy(state.copy()).reshape(start.shape)).flatten().numpy()

    span = (0.0, float(times[-1]))
    result = solve_ivp(
        right_hand_side, span, start.flatten().numpy(), method="DOP853", t_eval=times.numpy(), rtol=rtol, atol=rtol
    )
    if not result.success:
        raise NonFiniteError(
            f"oracles: expected to integrate to t = {span[1]}, got stuck: {result.message} "
            "Does the geodesic leave the chart?"
        )
    return torch.from_numpy(result.y.T.copy()).reshape(-1, *start.shape)
