"""From a rough solution on a mesh to one whose error is known: more Gauss points, and one correction at still more."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.corrections import Slopes, correction, force_at, krylov_step, newton, residual
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.equation import Equation

FINE = 12
"""Gauss points of a piece of the solution: order 24."""

FINEST = 16
"""Gauss points where it is verified: more than the solution has, to see what it leaves out."""

NEARLY = 5e-10
"""Relative residual that is left for the last correction. Its square drowns in rounding errors."""

LAST = 0.1
"""Relative residual of the linear system of the last correction, where that is solved by products. Set by hand."""

LOOSE = 10.0
"""A residual of so many times `NEARLY` is worth the last correction. Set by hand."""


def settle(equation: Equation, rough: Pieces, slopes: Slopes, *, free: bool) -> tuple[Pieces, Float[Tensor, "b J"]]:
    """The curves that rough ones approximate, at sixteen Gauss points of each piece, and bounds on their errors.

    Newton's method at twelve points keeps the derivatives that were taken at fewer. By how much its solution misses the
    equation at sixteen other points tells its error, by one more correction.

    Args:
        equation: of the curves.
        rough: near them.
        slopes: derivatives there.
        free: whether the end is free.

    Returns:
        The curves, and by how much the last correction changed point and velocity at their joints, relative to the
        velocity, with the residual before it: a bound on what it leaves. Infinite where nothing was found, and the
        curve is the rough one.

    Source: Hairer, Wanner, *Solving Ordinary Differential Equations II*, section IV.8.
    """
    by_products = rough.origin.shape[1] >= NEWTON.large
    found = rough.refined(FINEST)
    errors = torch.full_like(found.joints, torch.inf)
    now, slopes, error = newton(equation, rough.refined(FINE), slopes.refined(FINE), free=free, tol=NEARLY)
    kept = (error < LOOSE * NEARLY).nonzero().squeeze(1)
    if not len(kept):
        return found, errors
    now, slopes, error = now[kept], slopes[kept].refined(FINEST), error[kept]
    finest = now.refined(FINEST)
    force = force_at(equation, finest)
    turned, _ = residual(finest, force, slopes.inverse, free)
    if by_products:
        goal = torch.full_like(error, LAST)
        step = krylov_step(equation, finest, force, turned, slopes.inverse, goal, free=free)
        finest = finest.with_accelerations(finest.accelerations + step, free=free)
    else:
        finest = finest.moved(correction(finest, turned, slopes, free=free), torch.ones_like(error))
    states = finest.states
    away = (states - now.states).norm(dim=3)
    # points by the largest velocity, as curves are so long; velocities by what they are there
    change = torch.maximum(away[:, :, 0] / finest.size.unsqueeze(1), away[:, :, 1] / states[:, :, 1].norm(dim=2))
    change = change + error.unsqueeze(1)
    return found.put(kept, finest), errors.index_put((kept,), change.nan_to_num(nan=torch.inf))
