"""The last steps to a solution, with the Hessian left as it is."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.geodesic.block_banded import Factor
from pullgeo.geodesic.descent import Descent, energy_rounding
from pullgeo.geodesic.space import Space

CONTRACTION = 0.1
"""By how much a step has to bring the residual down for another one with the same Hessian to be worth its while."""

ENERGY_ROUNDING = 1e-12
"""Relative rise of the energy that is taken for rounding errors."""

CURVES = 128
"""Curves whose activations are kept at a time."""


def polish(
    space: Space, rough: Descent, tol: float, max_steps: int
) -> tuple[Float[Tensor, "p n d"], Float[Tensor, " p"], Float[Tensor, " p"], Int[Tensor, " p"]]:
    """Simplified Newton steps from where a descent ended, with the Hessian of its last point.

    Close to the solution the Hessian hardly changes, and may be known to few digits only: the error still shrinks by
    the relative error of the Hessian with every step, while a step costs a gradient instead of an expansion. So a
    descent in float32 is brought to float64 accuracy. A step that contracts the residual too little, or raises the
    energy, is not taken and ends the polishing of its curve.

    Args:
        space: where the curves live, in the precision that is asked for.
        rough: the curves and the Hessians.
        tol: the residual at which a curve is done.
        max_steps: the number of steps, those of the descent included, at which it gives up.

    Returns:
        Nodes, energies, residuals and steps, those of the descent included.

    Source: Ortega, Rheinboldt, *Iterative Solution of Nonlinear Equations in Several Variables*, section 7.1
    (simplified Newton method).
    """
    at = rough.at
    # where the descent saw no gradient at all, only an expansion can tell what its unit is
    unit = torch.where(at.residual > 0, at.residual / at.gradient.flatten(1).norm(dim=1), torch.inf)
    factor = at.hessian.cholesky()
    x, steps = _first_step(rough, factor, max_steps)
    energy, gradient = slope(space, x)
    residual = unit * gradient.flatten(1).norm(dim=1)
    back = ((steps > rough.steps) & ~((residual < at.residual) & (energy <= at.energy + energy_rounding(at))))
    if bool(back.any()):
        x, steps = torch.where(back.view(-1, 1, 1), rough.nodes, x), torch.where(back, rough.steps, steps)
        energy[back], gradient[back] = slope(space, x[back])
        residual = unit * gradient.flatten(1).norm(dim=1)
    active = factor.good & torch.isfinite(residual) & ~rough.stalled
    while True:
        active = active & ~(residual <= tol) & (steps < max_steps)
        chosen = active.nonzero().squeeze(1)
        if not len(chosen):
            return x, energy, residual, steps
        step = factor.solve(gradient)[chosen]
        trial = torch.cat([x[chosen, :1], x[chosen, 1:-1] - step, x[chosen, -1:]], 1)
        new_energy, new_gradient = slope(space, trial)
        new_residual = unit[chosen] * new_gradient.flatten(1).norm(dim=1)
        good = new_residual < CONTRACTION * residual[chosen]
        good = good & (new_energy <= (1 + ENERGY_ROUNDING) * energy[chosen])
        taken = chosen[good]
        x = x.index_put((taken,), trial[good])
        gradient = gradient.index_put((taken,), new_gradient[good])
        energy = energy.index_put((taken,), new_energy[good])
        residual = residual.index_put((taken,), new_residual[good])
        steps = steps.index_put((taken,), steps[taken] + 1)
        active = active.index_put((chosen[~good],), torch.zeros_like(chosen[~good], dtype=torch.bool))


def _first_step(rough: Descent, factor: Factor, max_steps: int) -> tuple[Float[Tensor, "p n d"], Int[Tensor, " p"]]:
    """A Newton step with what the descent knows at its last point, which costs nothing."""
    x, step = rough.nodes, factor.solve(rough.at.gradient)
    able = factor.good & torch.isfinite(step).flatten(1).all(1) & ~rough.stalled & (rough.steps < max_steps)
    moved = torch.cat([x[:, :1], x[:, 1:-1] - step, x[:, -1:]], 1)
    return torch.where(able.view(-1, 1, 1), moved, x), rough.steps + able


def slope(space: Space, nodes: Float[Tensor, "p n d"]) -> tuple[Float[Tensor, " p"], Float[Tensor, "p m d"]]:
    """Energies of curves and their gradients with respect to the inner nodes, without second derivatives.

    Cost: a forward and a backward pass for each node.
    """
    energies, gradients = [], []
    with torch.enable_grad():
        for part in nodes.detach().split(CURVES):
            x = part.clone().requires_grad_()
            energy = space.energy(x)
            # a decoder that is constant, or detaches its output, has no graph
            moved = torch.autograd.grad(energy.sum(), x)[0] if energy.requires_grad else torch.zeros_like(x)
            gradients.append(moved[:, 1:-1])
            energies.append(energy.detach())
    return torch.cat(energies), torch.cat(gradients)
