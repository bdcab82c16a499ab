"""Derivatives of geodesics with respect to end points and weights, without unrolling the solver."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.checkpoint import checkpoints_kept
from pullgeo._torch.grad_mode import check_same_weights, leaves
from pullgeo._torch.gradient_of import gradient_of
from pullgeo.geodesic.descent.newton_cg import LARGE, solve_free
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.solver import SearchResult
from pullgeo.numerics.banded.matrix import BlockBanded

RIDGE = 1e-8
"""Share of the Gauss-Newton diagonal that makes a semidefinite Hessian definite."""

PROXIMAL_STEPS = 4
"""Steps after which nothing is left of what this share changes: the least curvature of T segments is about 1 / T²."""


def differentiable(
    space: DiscreteEnergy, found: SearchResult, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
) -> tuple[Float[Tensor, "p n d"], Float[Tensor, " p"], Float[Tensor, " p"]]:
    """The curves, their energies and those seen with every second node, connected to what they depend on.

    That is the end points and every leaf of the graph from which the space's energy is computed, such as weights.
    Nothing but the curves is kept for the backward pass, and nothing is computed before one is asked for.

    Cost: half a forward pass over curves whose energy with half their nodes is not known, and a pass over one curve to
    see on what the energy depends; a backward pass costs an expansion of the energy and its gradient.
    """
    with torch.no_grad():
        coarse_energy = found.coarse_energy
        unknown = coarse_energy.isnan().nonzero().squeeze(1)
        if len(unknown):
            coarse_energy = coarse_energy.index_put((unknown,), space.energy(found.nodes[unknown, ::2]))
        values = (found.nodes, found.energy, coarse_energy)
    if not torch.is_grad_enabled() or not len(z0):
        return values
    weights = leaves(space.energy(found.nodes[:1]))
    if not (weights or z0.requires_grad or z1.requires_grad):
        return values
    nodes, energy, coarse_energy = _Solved.apply(space, *values, z0, z1, *weights)
    return nodes, energy, coarse_energy


class _Solved(torch.autograd.Function):
    """Passes the solution through; the backward pass differentiates one Newton step at the solution."""

    @staticmethod
    def forward(
        ctx: Any,
        space: DiscreteEnergy,
        nodes: Tensor,
        energy: Tensor,
        coarse_energy: Tensor,
        z0: Tensor,
        z1: Tensor,
        *leaves: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.space = space
        ctx.save_for_backward(nodes, z0, z1, *leaves)
        return nodes.clone(), energy.clone(), coarse_energy.clone()

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        nodes, *inputs = ctx.saved_tensors
        twice = torch.is_grad_enabled()
        with torch.enable_grad(), checkpoints_kept():
            # one end point may be computed from the other, or from weights: what lies behind it is not counted here
            ends = [x.view_as(x) if twice else x.detach().requires_grad_(x.requires_grad) for x in inputs[:2]]
            curve = attach(ctx.space, nodes, *ends, twice=twice)
            outputs = (curve, ctx.space.energy(curve), ctx.space.energy(curve[:, ::2]))
            wanted = [x for x in (*ends, *inputs[2:]) if x.requires_grad]
            # the energy of a decoder that is constant depends on nothing
            connected = [i for i, output in enumerate(outputs) if output.requires_grad]
            if not connected:
                check_same_weights("the derivative of a geodesic", [None])
            # the graph behind the inputs is the caller's, who may go through it again
            found = torch.autograd.grad(
                [outputs[i] for i in connected],
                wanted,
                [weights[i] for i in connected],
                allow_unused=True,
                create_graph=twice,
                retain_graph=True,
            )
        check_same_weights("the derivative of a geodesic", found[len(found) - len(inputs[2:]) :])
        gradients = iter(found)
        return None, None, None, None, *(next(gradients) if x.requires_grad else None for x in inputs)


def attach(
    space: DiscreteEnergy,
    nodes: Float[Tensor, "p n d"],
    z0: Float[Tensor, "p d"],
    z1: Float[Tensor, "p d"],
    *,
    twice: bool = False,
) -> Float[Tensor, "p n d"]:
    """The same curves, connected to their end points and to the space's weights for differentiation.

    The inner nodes solve ``g(nodes, z0, z1, θ) = 0``. One Newton step with the Hessian held fixed,
    ``nodes - H⁻¹ g(nodes, z0, z1, θ)``, moves them by nothing and has the derivative that the implicit function
    theorem gives; memory does not depend on how many steps found the curve. After a second one the second derivatives
    of the curve are exact too. Derivatives of its energy, which is stationary, are exact to the third order after one
    step and to the fifth after two.

    Cost: one expansion of the energy, and its backward pass when a gradient is taken; ``twice``, a gradient more.
    """
    inner = nodes[:, 1:-1].detach()
    joined = torch.cat([z0.unsqueeze(1), inner, z1.unsqueeze(1)], 1)
    if nodes.shape[2] >= LARGE:
        joined = joined if joined.requires_grad else joined.requires_grad_()
        solve: Callable[[Tensor], Tensor] = partial(_FreeSolve.apply, space, joined.detach())
        gradient = gradient_of(space.energy(joined), joined, create_graph=True)[:, 1:-1]
    else:
        at = space.expand_energy(joined)
        gradient = at.gradient
        solve = _newton_step(BlockBanded(tuple(band.detach() for band in at.hessian.bands)), at.damping.detach())
    curve = _moved(joined, solve(gradient))
    if not twice:
        return curve
    again = curve if curve.requires_grad else curve.requires_grad_()
    return _moved(curve, solve(gradient_of(space.energy(again), again, create_graph=True)[:, 1:-1]))


def _moved(curve: Float[Tensor, "p n d"], step: Float[Tensor, "p m d"]) -> Float[Tensor, "p n d"]:
    """Derivatives of a step that moves nothing."""
    still = step - step.detach()
    return curve - torch.nn.functional.pad(still, (0, 0, 1, 1))


def _newton_step(hessian: BlockBanded, unit: Float[Tensor, "p m d"]) -> Callable[[Tensor], Tensor]:
    """``g -> H⁻¹ g``, differentiable.

    Where H is indefinite it is 0, and the nodes stay as they are: the energy's first derivative needs no more
    (envelope theorem).
    """
    factor = hessian.cholesky()
    if bool(factor.good.all()):
        return factor.solve
    # what is not used must not be computed either: zero times infinity spoils derivatives
    definite, rest = factor.good.nonzero().squeeze(1), (~factor.good).nonzero().squeeze(1)
    unit = unit[rest].clamp(min=1e-12 * unit[rest].flatten(1).amax(1)[:, None, None])
    ridged = hessian[rest].shifted(RIDGE * unit)
    good = ridged.cholesky().good
    rest, ridged = rest[good], ridged[good]

    def solve(gradient: Tensor) -> Tensor:
        step = torch.zeros_like(gradient)
        if len(definite):
            step = step.index_put((definite,), hessian[definite].cholesky().solve(gradient[definite]))
        if len(rest):
            step = step.index_put((rest,), _semidefinite(hessian[rest], ridged, gradient[rest]))
        return step

    return solve


def _semidefinite(
    hessian: BlockBanded, ridged: BlockBanded, gradient: Float[Tensor, "p m d"]
) -> Float[Tensor, "p m d"]:
    """``H⁺ g`` for Hessians that are only semidefinite, as where the metric is singular.

    At a minimum the gradient's derivatives lie in the range of H. There the proximal iteration
    ``s += (H + εD)⁻¹ (g - H s)`` divides the error by 1 + λ/ε at every step, for each eigenvalue λ > 0 in units of D.
    """
    factor = ridged.cholesky()
    step = factor.solve(gradient)
    for _ in range(PROXIMAL_STEPS - 1):
        step = step + factor.solve(gradient - hessian.matvec(step))
    return step


class _FreeSolve(torch.autograd.Function):
    """``v -> H⁻¹ v`` by conjugate gradients, with a Hessian that is held fixed; its own transpose."""

    @staticmethod
    def forward(ctx: Any, space: DiscreteEnergy, nodes: Tensor, v: Tensor) -> Tensor:
        ctx.space = space
        ctx.save_for_backward(nodes)
        return solve_free(space, nodes, v)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _FreeSolve.apply(ctx.space, ctx.saved_tensors[0], weight)
