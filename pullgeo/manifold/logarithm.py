"""The logarithm: a boundary value problem, the geodesic equation that makes it exact, and its derivatives."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullgeo._torch.grad_mode import check_same_weights, leaves
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.geodesic.starts.base import InitialCurve
from pullgeo.geodesic.status import Status
from pullgeo.manifold.bvp.collocation import collocate
from pullgeo.manifold.bvp.multiple_shooting import multiple_shooting
from pullgeo.manifold.exponential import Connection, check_derivative, shoot
from pullgeo.numerics.bisect_batch import where_defined

GOOD = 1e-7
"""The largest error, relative to the velocity, with which a logarithm is given."""

ROUGH = 1e-2
"""An error with which a curve is near enough to the geodesic for shooting to end there."""

STEADY = 1e-5
"""By how much a speed may change along a geodesic, which keeps it, before the metric is taken to jump on the way."""

SAME_SPEED = 1e-3
"""By how much a geodesic may differ in length from the discrete one, beyond the latter's error."""

MAX_SEGMENTS = 256
"""So many has a discrete geodesic at most, where one of fewer does not lead to the geodesic."""

Norm = Callable[[Tensor, Tensor], Tensor]
"""``(z, u) -> ‖u‖`` at points ``(b, d)``."""

Geodesic = Callable[[Tensor, Tensor, Solver | None], Solution]
"""Discrete geodesics between points ``(b, d)``, by a solver or by the default one."""


@dataclass(frozen=True, eq=False)
class Logarithm:
    """Initial velocities of shortest geodesics, and for each pair whether there is one and how well it is known.

    Args:
        vector: the velocities ``log_x(y)``; NaN for a pair that has none.
        status: how the search ended, one `Status` for each pair, in the order of ``vector.reshape(-1, d)``; its text
            says what to do.
        error: estimated errors of the velocities, relative to these; infinite where there is none. For pairs solved by
            shooting it is by how much the parts of the geodesic fail to meet.
    """

    vector: Float[Tensor, "*b d"]
    status: tuple[Status, ...]
    error: Float[Tensor, "*b"]

    @property
    def converged(self) -> Bool[Tensor, "*b"]:
        """Whether each pair has a velocity."""
        good = torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.error.device)
        return good.reshape(self.error.shape)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.status)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {status.name}" for status, n in Counter(self.status).items())
        return f"Logarithm({len(self)} pairs: {counts or 'none'})"


def logarithm(
    connection: Connection, norm: Norm, geodesic: Geodesic, x: Float[Tensor, "b d"], y: Float[Tensor, "b d"]
) -> Logarithm:
    """The initial velocities of shortest geodesics, in float64.

    A discrete geodesic leads to the exact one by collocation, or by shooting where the connection jumps. What is found
    there must keep its speed, as a geodesic does unless the metric jumps, and be as long as the discrete one. If it
    fails for another reason, the discrete curve was too coarse: it is sought again with twice the segments.

    Differentiable once, to points and to weights, by the implicit function theorem for ``exp_x(v) = y``.
    """
    with torch.no_grad():
        found = _search(connection, norm, geodesic, x, y)
    if not torch.is_grad_enabled() or not len(x):
        return found
    # the norm has the weights of the connection, also where that does not exist
    one = x[:1].detach()
    weights = leaves(where_defined(norm, (), one, one))
    if not (weights or x.requires_grad or y.requires_grad):
        return found
    return replace(found, vector=_Differentiable.apply(connection, found.vector, x, y, *weights))


def _search(connection: Connection, norm: Norm, geodesic: Geodesic, x: Tensor, y: Tensor) -> Logarithm:
    solution = geodesic(x, y, None)
    apart = (x != y).any(1)
    # where nothing is apart there is a shortest curve, and no equation for it
    flat = (apart & (solution.length == 0)).tolist()
    status: list[Status] = [
        Status.SINGULAR if s is Status.DEGENERATE or of_pair else s
        for s, of_pair in zip(solution.status, flat, strict=True)
    ]
    vector = torch.zeros_like(x).masked_fill(apart.unsqueeze(1), torch.nan)
    error = torch.zeros_like(vector[:, 0]).masked_fill(apart, torch.inf)
    regular = torch.tensor([s.converged for s in status], dtype=torch.bool, device=x.device)
    index = (regular & apart).nonzero().squeeze(1)
    solution = solution[index.tolist()]
    while len(index):
        smooth = _smooth(connection, norm, solution.curve)
        same = (smooth.speed - solution.length).abs() <= SAME_SPEED * solution.length + 3 * solution.error_estimate
        good = smooth.solved & smooth.steady & same
        vector = vector.index_put((index[good],), smooth.velocity[good])
        error = error.index_put((index[good],), smooth.error[good])
        kinked = smooth.solved & ~smooth.steady
        for pair, of_pair in zip(index[~good].tolist(), kinked[~good].tolist(), strict=True):
            status[pair] = Status.KINKED if of_pair else Status.NOT_REFINED
        again = (~good & ~kinked).nonzero().squeeze(1)
        segments = 2 * solution.curve.segments
        if segments > MAX_SEGMENTS or not len(again):
            break
        finer = Newton(segments=segments, starts=(InitialCurve(solution.curve[again]),), rtol=None)
        index = index[again]
        solution = geodesic(x[index], y[index], finer)
        for pair, of_pair in zip(index.tolist(), solution.status, strict=True):
            status[pair] = of_pair
        index, solution = index[solution.converged], solution[solution.converged.nonzero().squeeze(1).tolist()]
    return Logarithm(vector, tuple(status), error)


@dataclass(frozen=True, eq=False)
class _Smooth:
    """Solutions of the geodesic equation: what they begin with, and whether they are geodesics."""

    velocity: Float[Tensor, "b d"]
    speed: Float[Tensor, " b"]
    error: Float[Tensor, " b"]
    solved: Bool[Tensor, " b"]
    steady: Bool[Tensor, " b"]

    def put(self, index: Tensor, norm: Norm, z: Tensor, u: Tensor, error: Tensor) -> "_Smooth":
        """Those of some pairs exchanged; they are given by their states at several times."""
        # points that are hardly apart are known to their rounding errors alone
        rounded = 16 * torch.finfo(z.dtype).eps * z.abs().flatten(1).amax(1) / u.norm(dim=2).amax(1)
        fine = (torch.isfinite(z) & torch.isfinite(u)).flatten(1).all(1) & (error < rounded.clamp(min=GOOD))
        speeds = torch.full_like(z[:, :, 0], torch.nan)
        if bool(fine.any()):
            speeds[fine] = norm(z[fine].flatten(0, 1), u[fine].flatten(0, 1)).reshape(-1, z.shape[1])
        return _Smooth(
            self.velocity.index_put((index,), u[:, 0]),
            self.speed.index_put((index,), speeds[:, 0]),
            self.error.index_put((index,), error),
            self.solved.index_put((index,), fine),
            self.steady.index_put((index,), speeds.amax(1) <= (1 + STEADY) * speeds.amin(1)),
        )


def _smooth(connection: Connection, norm: Norm, curve: DiscreteCurve) -> _Smooth:
    zero = torch.zeros_like(curve.begin[:, 0])
    found = _Smooth(curve.begin, zero, zero, zero.bool(), zero.bool())
    rough: list[tuple[Tensor, DiscreteCurve]] = []
    for index, part in collocate(connection, curve):
        found = found.put(index, norm, part.points, part.velocities, part.error)
        near = ((part.error >= GOOD) & (part.error < ROUGH)).nonzero().squeeze(1)
        if len(near):
            rough.append((index[near], part.curve[near]))
    if rough:
        segments = max(near.segments for _, near in rough)
        nodes = [near.nodes if near.segments == segments else near.resample(segments).nodes for _, near in rough]
        states, mismatch = multiple_shooting(connection, DiscreteCurve(torch.cat(nodes)))
        found = found.put(torch.cat([index for index, _ in rough]), norm, states[:, :, 0], states[:, :, 1], mismatch)
    return found


class _Differentiable(torch.autograd.Function):
    """Passes the velocities through; the backward pass shoots once more, with a graph."""

    @staticmethod
    def forward(ctx: Any, connection: Connection, velocity: Tensor, x: Tensor, y: Tensor, *weights: Tensor) -> Tensor:
        ctx.connection = connection
        ctx.save_for_backward(velocity, x, y, *weights)
        return velocity.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        velocity, x, y, *weights = ctx.saved_tensors
        # a pair without a logarithm has no derivative, and there may be no connection where it begins
        index = torch.isfinite(velocity).all(1).nonzero().squeeze(1)
        with torch.enable_grad():
            v = velocity[index].requires_grad_()
            # x may be computed from the weights: what lies behind it is the caller's, and not counted here
            start = x[index].detach().requires_grad_(x.requires_grad)
            end, speed = shoot(ctx.connection, start, v)
            each = [torch.autograd.grad(end[:, k].sum(), v, retain_graph=True)[0] for k in range(x.shape[1])]
            differential = torch.stack(each, 1)
            along = (differential @ v.detach().unsqueeze(2)).squeeze(2) - speed.detach()
            check_derivative("logmap", along.norm(dim=1), speed.detach().norm(dim=1))
            # dv = (∂exp/∂v)⁻¹ (dy - ∂exp/∂x dx - ∂exp/∂θ dθ)
            pulled = torch.linalg.solve(differential.mT, weight[index])
            wanted = [a for a in (start, *weights) if a.requires_grad]
            gradients: tuple[Tensor | None, ...] = ()
            if wanted:
                # the graph behind x and the weights is the caller's, who may go through it again
                gradients = torch.autograd.grad(end, wanted, -pulled, allow_unused=True, retain_graph=True)
        of_weights = gradients[len(gradients) - len(weights) :]
        if len(index) and all(gradient is None for gradient in of_weights):
            check_same_weights("the derivative of logmap", of_weights)
        parts = iter(gradients)
        at_x, *to_weights = (next(parts) if a.requires_grad else None for a in (x, *weights))
        to_x, to_y = (
            torch.zeros_like(x).index_put((index,), part) if a.requires_grad and part is not None else None
            for a, part in ((x, at_x), (y, pulled))
        )
        return None, None, to_x, to_y, *to_weights
