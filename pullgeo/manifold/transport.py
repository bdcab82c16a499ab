"""Parallel transport along curves that are given."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.plain_memory import outside_inference
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import GeometryError, ShapeError
from pullgeo.manifold.exponential import Connection
from pullgeo.numerics.chunking import POINTS
from pullgeo.numerics.directional_derivative import directional
from pullgeo.numerics.ode.gauss_legendre import gauss


@dataclass(frozen=True)
class TransportSettings:
    """How curves are cut for parallel transport.

    Attributes:
        stages: gauss points of a segment: order 6. Set by hand.
        rtol: by how much, relatively, a result may change when the segments are halved. What
            `Manifold.parallel_transport` promises.
        rough_rtol: the same, for a curve that is computed in single precision. A hundred rounding errors of float32.
        segments: to begin with. Set by hand.
        max_segments: bound on their number. Beyond, a curve is taken to have corners.
    """

    stages: int = 3
    rtol: float = 1e-9
    rough_rtol: float = 1e-5
    segments: int = 8
    max_segments: int = 4096


SETTINGS = TransportSettings()


CurveFunction = Callable[[Tensor], Tensor]
"""Times ``(m,)`` to points ``(b, m, d)``: b curves."""


@runtime_checkable
class Moving(Protocol):
    """A curve that states its velocity."""

    def __call__(self, t: Tensor) -> Tensor:
        """Points ``(b, m, d)`` at times ``(m,)``."""

    def velocity(self, t: Tensor) -> Tensor:
        """Velocities ``(b, m, d)`` at times ``(m,)``."""


def parallel_transport(connection: Connection, curve: CurveFunction, v: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """``w(1)`` where ``ẇ = -Γ(ż, w)`` along the curves z, with ``w(0) = v``.

    The equation is linear with known coefficients, so nothing has to be integrated step after step: the connection is
    evaluated at all Gauss points of all segments together, the collocation equations of each segment give its
    propagator, and the propagators are multiplied. The number of segments is doubled until the result stands still.

    Raises:
        ShapeError: the curves' points do not fit the tangents.
        GeometryError: the result does not settle.

    Cost: the connection at ``3 d n`` points for n segments, n about 24 in all for a smooth curve.

    Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration*, section II.1.3.
    """
    if isinstance(curve, DiscreteCurve):
        # the spline through rounded nodes is smooth, a spline evaluated in single precision is not
        curve, n = curve.to(v.dtype), curve.segments
    else:
        n = SETTINGS.segments
    precision = curve(v.new_zeros(1)).dtype
    rtol = SETTINGS.rtol if precision == torch.float64 else SETTINGS.rough_rtol
    previous: Tensor | None = None
    while n <= SETTINGS.max_segments:
        moved = _transport(connection, curve, v, n)
        if previous is not None:
            change, size = (a.detach().abs().amax(1) for a in (moved - previous, moved))
            if bool((change <= rtol * size).all()):
                return moved
        previous, n = moved, 2 * n
    raise GeometryError(
        f"parallel_transport: the result still changes by more than {rtol:.0e} at {n // 2} segments. Is the curve "
        "smooth and the metric regular along it? Cut a curve at its corners and transport along the pieces."
    )


def _transport(connection: Connection, curve: CurveFunction, v: Tensor, n: int) -> Tensor:
    b, d = v.shape
    rule = gauss(SETTINGS.stages)
    nodes, inner, outer = (
        torch.tensor(a, dtype=v.dtype, device=v.device) for a in (rule.points, rule.inner, rule.outer)
    )
    times = ((torch.arange(n, dtype=v.dtype, device=v.device).unsqueeze(1) + nodes) / n).flatten()
    points, speeds = (outside_inference(a).to(v.dtype) for a in _follow(curve, times))
    if points.shape != (b, len(times), d):
        raise ShapeError(
            f"parallel_transport: at {len(times)} times the curve gives points {tuple(points.shape)}; for tangents "
            f"{tuple(v.shape)} it must give {(b, len(times), d)}. A curve maps times (m,) to points (b, m, d)."
        )
    # A[w] = -Γ(ż, w) as matrices [b, n, s, k, j], scaled by the length of a segment
    A = -_matrices(connection, points.reshape(-1, d), speeds.reshape(-1, d)).reshape(b, n, SETTINGS.stages, d, d) / n
    # stages K_m = A_m (1 + Σ_l a_ml K_l), the propagator is 1 + Σ_m b_m K_m
    system = torch.eye(SETTINGS.stages * d, dtype=v.dtype, device=v.device) - torch.einsum(
        "bnmkj,ml->bnmklj", A, inner
    ).reshape(b, n, SETTINGS.stages * d, SETTINGS.stages * d)
    stages = torch.linalg.solve(system, A.reshape(b, n, SETTINGS.stages * d, d)).reshape(b, n, SETTINGS.stages, d, d)
    propagators = torch.eye(d, dtype=v.dtype, device=v.device) + torch.einsum("m,bnmkj->bnkj", outer, stages)
    for propagator in propagators.unbind(1):
        v = torch.einsum("bkj,bj->bk", propagator, v)
    return v


def _follow(curve: CurveFunction, times: Tensor) -> tuple[Tensor, Tensor]:
    if isinstance(curve, Moving):
        return curve(times), curve.velocity(times)
    points, speeds = directional(lambda t: curve(t).transpose(0, 1), times, torch.ones_like(times))
    return points.transpose(0, 1), speeds.transpose(0, 1)


def _matrices(connection: Connection, z: Tensor, u: Tensor) -> Tensor:
    n, d = z.shape
    basis = torch.eye(d, dtype=z.dtype, device=z.device).repeat(n, 1)
    stacks = (z.repeat_interleave(d, 0), u.repeat_interleave(d, 0), basis)
    return torch.cat([connection(*part) for part in POINTS.split(*stacks)]).reshape(n, d, d).mT
