"""Geodesics from initial values: one polynomial of high degree for a long stretch of each."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.corrections import (
    Approximation,
    Residual,
    Slopes,
    correction,
    force_at,
    krylov_step,
    newton,
    residual,
    slopes_at,
)
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.damped_newton import STEP_LENGTH, TWICE, damped_newton
from pullgeo.numerics.ode.piecewise import like


@dataclass(frozen=True)
class PolynomialSettings:
    """How one polynomial is found for a stretch of a geodesic.

    Attributes:
        coarse: gauss points of the first approximation, where derivatives are taken. Set by hand.
        fine: gauss points of the solution. Order 24.
        finest: gauss points where it is verified. More than the solution has, to see what it leaves out.
        roughly: relative residual with which a first approximation is left. Set by hand.
        costly: dimension from which on derivatives are taken again only where they must be. All 2d directions are
            looked at for derivatives.
        rounds: bound on the corrections of a first approximation, before the last. Set by hand.
        lost: the same after which a stretch is too long. Set by hand.
        hopeless: relative residual of a guess from which nothing is tried. Set by hand.
        nearly: relative residual that is left for the last correction. Its square drowns in rounding errors.
        gained: what the last correction leaves, at most: less than each one before it. Set by hand.
    """

    coarse: int = 6
    fine: int = 12
    finest: int = 16
    roughly: float = 3e-3
    costly: int = 5
    rounds: int = 7
    lost: float = 0.1
    hopeless: float = 3.0
    nearly: float = 5e-10
    gained: float = 0.1


SETTINGS = PolynomialSettings()


DAMPING = replace(STEP_LENGTH, limit=10.0)
"""Of a first approximation."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """Geodesics for some time, each in one piece.

    Attributes:
        pieces: the curves; the guess where nothing was found.
        error: estimated error of point and velocity at the end, relative to the velocity; infinite where nothing was
            found.
        guessed: relative residual of the guess.
    """

    pieces: Pieces
    error: Float[Tensor, " b"]
    guessed: Float[Tensor, " b"]

    @property
    def tail(self) -> Float[Tensor, " b"]:
        """The part of the velocity's change that the highest degrees make; the error at the end is about its square."""
        top = torch.einsum(
            "km,bmd->bkd",
            like(self.pieces.rule.legendre[-2:], self.pieces.accelerations),
            self.pieces.accelerations[:, 0],
        )
        return top.norm(dim=2).amax(1) / self.pieces.size


def stretch(
    equation: Equation,
    origin: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    accelerations: Float[Tensor, "b c d"],
) -> Stretch:
    """Geodesics from initial values, for unit time, by Gauss collocation and Newton's method.

    A polynomial through six points is found first, with derivatives at these points alone. One through twelve begins
    there and keeps the derivatives. It is exact to order 24 at the end; by how much it misses the equation at sixteen
    other points tells its error, by one more correction.

    Args:
        equation: of the geodesics.
        origin: where they begin.
        velocity: with which velocity.
        accelerations: a guess of ``z̈`` at six Gauss points.

    Cost: covariant derivatives at some 100 points for each geodesic, in some ten batches; ``12 d`` of them are for
    derivatives, or as many for products from 12 dimensions on.

    Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration*, section II.1.3; Hairer, Wanner, *Solving
    Ordinary Differential Equations II*, section IV.8.
    """
    by_products = origin.shape[1] >= NEWTON.large
    rough = _by_products if by_products else _with_few_derivatives if origin.shape[1] >= SETTINGS.costly else _roughly
    now, slopes, error, guessed = rough(equation, Pieces.free(origin, velocity, accelerations))
    found = now.refined(SETTINGS.finest)
    errors = torch.full_like(guessed, torch.inf)
    index = (error < SETTINGS.lost).nonzero().squeeze(1)
    if not len(index):
        return Stretch(found, errors, guessed)
    now, slopes = now[index], slopes[index].refined(SETTINGS.fine)
    now, slopes, error = newton(equation, now.refined(SETTINGS.fine), slopes, free=True, tol=SETTINGS.nearly)
    kept = (error < 10 * SETTINGS.nearly).nonzero().squeeze(1)
    index, now, slopes, error = index[kept], now[kept], slopes[kept], error[kept]
    if not len(index):
        return Stretch(found, errors, guessed)
    slopes, finest = slopes.refined(SETTINGS.finest), now.refined(SETTINGS.finest)
    force = force_at(equation, finest)
    turned, _ = residual(finest, force, slopes.inverse, free=True)
    if by_products:
        goal = torch.full_like(error, SETTINGS.gained)
        step = krylov_step(equation, finest, force, turned, slopes.inverse, goal, free=True)
        finest = finest.with_accelerations(finest.accelerations + step, free=True)
    else:
        finest = finest.moved(correction(finest, turned, slopes, free=True), torch.ones_like(error))
    change = SETTINGS.gained * (finest.away_from(now) + error)
    errors = errors.index_put((index,), change.nan_to_num(nan=torch.inf))
    return Stretch(found.put(index, finest), errors, guessed)


Rough = tuple[Pieces, Slopes, Float[Tensor, " b"], Float[Tensor, " b"]]
"""First approximations, derivatives near them, relative residuals, and those of the guesses."""


def _roughly(equation: Equation, guess: Pieces) -> Rough:
    """Newton's method with new derivatives in each round: they come in the same batch as residuals."""
    slopes, force = slopes_at(equation, guess)
    turned, guessed = residual(guess, force, slopes.inverse, free=True)
    never = torch.zeros_like(guessed, dtype=torch.bool)
    start = Approximation(
        at=Residual(guess, force, turned, guessed), slopes=slopes, fresh=~never, ended=never, **DAMPING.begin(guessed)
    )
    index = (guessed < SETTINGS.hopeless).nonzero().squeeze(1)
    found = start.put(index, damped_newton(_Roughly(equation), start[index], DAMPING, SETTINGS.rounds))
    # the last correction is not verified here
    index = (found.at.error < SETTINGS.roughly).nonzero().squeeze(1)
    last = found[index]
    step = correction(last.at.curve, last.at.turned, last.slopes, free=True)
    now = found.at.curve.put(index, last.at.curve.moved(step, 1 / last.damping))
    return now, found.slopes, found.at.error, guessed


@dataclass(frozen=True, eq=False)
class _Roughly:
    """Corrections with new derivatives each time."""

    equation: Equation

    def done(self, now: Approximation) -> Bool[Tensor, " b"]:
        return now.at.error < SETTINGS.roughly

    def step(self, now: Approximation) -> tuple[Approximation, Tensor, Tensor]:
        step = correction(now.at.curve, now.at.turned, now.slopes, free=True)
        curve = now.at.curve.moved(step, 1 / now.damping)
        slopes, force = slopes_at(self.equation, curve)
        turned, error = residual(curve, force, slopes.inverse, free=True)
        better = error < now.at.error
        new = replace(now, at=Residual(curve, force, turned, error), slopes=slopes)
        return new.where(better, now), better, torch.full_like(error, TWICE)


def _with_few_derivatives(equation: Equation, guess: Pieces) -> Rough:
    """Newton's method with the derivatives at the guess, as long as corrections with them gain a digit each."""
    slopes, force = slopes_at(equation, guess)
    guessed = residual(guess, force, slopes.inverse, free=True)[1]
    index = (guessed < SETTINGS.hopeless).nonzero().squeeze(1)
    now, new, error = newton(equation, guess[index], slopes[index], force[index], free=True, tol=SETTINGS.roughly)
    return guess.put(index, now), slopes.put(index, new), guessed.index_put((index,), error), guessed


def _by_products(equation: Equation, guess: Pieces) -> Rough:
    """Newton's method without derivatives."""
    slopes = Slopes(inverse(equation.matrix(guess.origin[:, None, None] + guess.stages[0])))
    force = force_at(equation, guess)
    guessed = residual(guess, force, slopes.inverse, free=True)[1]
    index = (guessed < SETTINGS.hopeless).nonzero().squeeze(1)
    now, _, error = newton(equation, guess[index], slopes[index], force[index], free=True, tol=SETTINGS.roughly)
    return guess.put(index, now), slopes, guessed.index_put((index,), error), guessed
