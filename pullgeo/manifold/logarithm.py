"""The logarithm: a boundary value problem, an initial value problem that polishes it, and its derivatives."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullgeo.geodesic import Solution, leaves
from pullgeo.manifold.initial_value import Connection, shoot
from pullgeo.manifold.multiple_shooting import meet

GOOD = 1e-7
"""The largest mismatch, relative to the velocity, with which a logarithm is given."""

SAME_SPEED = 1e-3
"""By how much a speed may change along a geodesic, which keeps it, before the metric is taken to jump on the way."""


def logarithm(
    connection: Connection,
    norm: Callable[[Tensor, Tensor], Tensor],
    geodesic: Callable[[Tensor, Tensor], Solution],
    x: Float[Tensor, "b d"],
    y: Float[Tensor, "b d"],
) -> Float[Tensor, "b d"]:
    """The initial velocities of shortest geodesics; NaN where none was found. In float64.

    Differentiable once, to points and to weights, by the implicit function theorem for ``exp_x(v) = y``.
    """
    with torch.no_grad():
        solution = geodesic(x, y)
        apart = (x != y).any(1)
        keep = solution.converged & apart
        polished, miss = meet(connection, solution.curve[keep])
        found = torch.zeros_like(x).masked_fill((apart & ~solution.converged).unsqueeze(1), torch.nan)
        # where the metric jumps on the way, a solution of the geodesic equation is no shortest curve
        length, speed = solution.length[keep], norm(x[keep], polished)
        same = (speed - length).abs() <= SAME_SPEED * length + 3 * solution.error_estimate[keep]
        good = ((miss < GOOD) & same).unsqueeze(1)
        found = found.index_put((keep.nonzero().squeeze(1),), torch.where(good, polished, torch.nan))
    if not torch.is_grad_enabled() or not len(x):
        return found
    weights = leaves(connection(x[:1].detach(), found[:1], found[:1]))
    if not (weights or x.requires_grad or y.requires_grad):
        return found
    logarithms: Tensor = _Logarithm.apply(connection, found, x, y, *weights)
    return logarithms


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
        # a pair without a logarithm has no derivative, and keeps out of the way of the others
        found = torch.isfinite(velocity)
        with torch.enable_grad():
            v = torch.where(found, velocity, 0.0).requires_grad_()
            # x may be computed from the weights: what lies behind it is the caller's, and not counted here
            start = x.detach().requires_grad_(x.requires_grad)
            end = shoot(ctx.connection, start, v)[0]
            rows = [torch.autograd.grad(end[:, k].sum(), v, retain_graph=True)[0] for k in range(x.shape[1])]
            # dv = (∂exp/∂v)⁻¹ (dy - ∂exp/∂x dx - ∂exp/∂θ dθ)
            pulled = torch.linalg.solve(torch.stack(rows, 1).mT, torch.where(found, weight, 0.0))
            wanted = [a for a in (start, *weights) if a.requires_grad]
            gradients: tuple[Tensor | None, ...] = ()
            if wanted:
                # the graph behind x and the weights is the caller's, who may go through it again
                gradients = torch.autograd.grad(end, wanted, -pulled, allow_unused=True, retain_graph=True)
        parts = iter(gradients)
        to_x, *to_weights = (next(parts) if a.requires_grad else None for a in (x, *weights))
        to_y = pulled if y.requires_grad else None
        return None, None, to_x, to_y, *to_weights
