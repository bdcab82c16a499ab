"""The logarithm: a boundary value problem, the geodesic equation that makes it exact, and its derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullgeo.curve import DiscreteCurve
from pullgeo.geodesic import Given, Newton, Solution, Solver, check_same_weights, leaves, where_defined
from pullgeo.manifold.collocation import collocate
from pullgeo.manifold.initial_value import Connection, shoot
from pullgeo.manifold.multiple_shooting import meet

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


def logarithm(
    connection: Connection, norm: Norm, geodesic: Geodesic, x: Float[Tensor, "b d"], y: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    """The initial velocities of shortest geodesics; NaN where none was found. In float64.

    A discrete geodesic leads to the exact one by collocation, or by shooting where the connection jumps. What is found
    there must keep its speed, as a geodesic does unless the metric jumps, and be as long as the discrete one. If it
    fails for another reason, the discrete curve was too coarse: it is sought again with twice the segments.

    Differentiable once, to points and to weights, by the implicit function theorem for ``exp_x(v) = y``.
    """
    with torch.no_grad():
        solution = geodesic(x, y, None)
        apart = (x != y).any(1)
        found = torch.zeros_like(x).masked_fill(apart.unsqueeze(1), torch.nan)
        index = (solution.converged & apart).nonzero().squeeze(1)
        solution = solution[index.tolist()]
        while len(index):
            smooth = _smooth(connection, norm, solution.curve)
            same = (smooth.speed - solution.length).abs() <= SAME_SPEED * solution.length + 3 * solution.error_estimate
            good = smooth.solved & smooth.steady & same
            found = found.index_put((index[good],), smooth.velocity[good])
            again = (~good & ~(smooth.solved & ~smooth.steady)).nonzero().squeeze(1)
            segments = 2 * solution.curve.segments
            if segments > MAX_SEGMENTS or not len(again):
                break
            finer = Newton(segments=segments, starts=(Given(solution.curve[again]),), rtol=None)
            index = index[again]
            solution = geodesic(x[index], y[index], finer)
            index, solution = index[solution.converged], solution[solution.converged.nonzero().squeeze(1).tolist()]
    if not torch.is_grad_enabled() or not len(x):
        return found
    # the norm has the weights of the connection, also where that does not exist
    one = x[:1].detach()
    weights = leaves(where_defined(norm, (), one, one))
    if not (weights or x.requires_grad or y.requires_grad):
        return found
    logarithms: Tensor = _Logarithm.apply(connection, found, x, y, *weights)
    return logarithms


@dataclass(frozen=True, eq=False)
class _Smooth:
    """Solutions of the geodesic equation: what they begin with, and whether they are geodesics."""

    velocity: Float[Tensor, "b d"]
    speed: Float[Tensor, " b"]
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
            self.solved.index_put((index,), fine),
            self.steady.index_put((index,), speeds.amax(1) <= (1 + STEADY) * speeds.amin(1)),
        )


def _smooth(connection: Connection, norm: Norm, curve: DiscreteCurve) -> _Smooth:
    one = torch.zeros_like(curve.begin[:, 0], dtype=torch.bool)
    found = _Smooth(curve.begin, torch.zeros_like(curve.begin[:, 0]), one, one)
    for index, part in collocate(connection, curve):
        found = found.put(index, norm, part.points, part.velocities, part.error)
        near = ((part.error >= GOOD) & (part.error < ROUGH)).nonzero().squeeze(1)
        if len(near):
            states, mismatch = meet(connection, part.curve[near])
            found = found.put(index[near], norm, states[:, :, 0], states[:, :, 1], mismatch)
    return found


class _Logarithm(torch.autograd.Function):
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
            end = shoot(ctx.connection, start, v)[0]
            rows = [torch.autograd.grad(end[:, k].sum(), v, retain_graph=True)[0] for k in range(x.shape[1])]
            # dv = (∂exp/∂v)⁻¹ (dy - ∂exp/∂x dx - ∂exp/∂θ dθ)
            pulled = torch.linalg.solve(torch.stack(rows, 1).mT, weight[index])
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
