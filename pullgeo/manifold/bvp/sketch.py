"""Geodesics from initial values, roughly: one short polynomial after the other."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.corrections import Slopes, correction, force_at, krylov_step, residual, slopes_at
from pullgeo.manifold.bvp.outlook import Outlook
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.ode.piecewise import STAGES


@dataclass(frozen=True)
class SketchSettings:
    """How a geodesic is sketched.

    Attributes:
        good: relative residual of a polynomial whose next correction is taken without a look. It is squared by that.
        hopeless: relative residual from which nothing is tried.
        patience: corrections of one polynomial, at most, before it is made shorter.
        given_up: after so many attempts at one piece the sketch ends.
        easy: relative residual that guesses should have.
        resolved: the part of the velocity's change that the two highest of six degrees may make: more points resolve
            what these leave out. See `CollocationSettings.resolved`.
        shorter: the least factor from one duration to the next.
        longer: the largest factor.
        nearly_all: a piece that is so much of what is left is all of it.

    All set by hand.
    """

    good: float = 0.3
    hopeless: float = 3.0
    patience: int = 3
    given_up: int = 10
    easy: float = 0.2
    resolved: float = 3e-3
    shorter: float = 0.2
    longer: float = 2.0
    nearly_all: float = 0.8


SETTINGS = SketchSettings()


@dataclass(frozen=True, eq=False)
class Sketch(Batch):
    """Geodesics in pieces of six Gauss points each, by their own time; those behind the last have no duration.

    Attributes:
        pieces: the curves.
        slopes: derivatives of the equation near them, as they were taken on the way.
        count: the number of pieces.
        time: for how long its next piece might be.
    """

    pieces: Pieces
    slopes: Slopes
    count: Int[Tensor, " b"]
    time: Float[Tensor, " b"]


def sketch(
    equation: Equation,
    origin: Float[Tensor, "b d"],
    velocity: Float[Tensor, "b d"],
    left: Float[Tensor, " b"],
    outlook: Outlook,
    time: Float[Tensor, " b"],
    most: Int[Tensor, " b"],
) -> Sketch:
    """Follow geodesics by polynomials that are corrected once or twice each, and not verified.

    Each begins with a guess, from how the one before ends. Newton's method for the curve as a whole corrects them
    together; they need only be near.

    Args:
        equation: of the geodesics.
        origin: where they begin.
        velocity: with which velocity.
        left: for how long they are followed.
        outlook: how they begin.
        time: the duration of the first piece.
        most: bounds on the numbers of pieces.

    Cost: covariant derivatives at six points, with their derivatives, one or two batches a piece.
    """
    b, d = origin.shape
    here, speed, now = torch.zeros_like(origin), velocity, torch.zeros_like(left)
    count, tries = torch.zeros_like(most), torch.zeros_like(most)
    h, guess = torch.zeros_like(left), origin.new_zeros(b, STAGES, d)
    fresh = torch.ones_like(left, dtype=torch.bool)
    found: list[tuple[Tensor, Tensor, Pieces, Slopes]] = []
    going = ((left > 0) & torch.isfinite(time) & (most > 0)).nonzero().squeeze(1)
    while len(going):
        ahead = left[going] - now[going]
        longest = torch.minimum(time[going], outlook[going].longest)
        longest = torch.where(longest > SETTINGS.nearly_all * ahead, ahead, longest)
        new = fresh[going]
        t = torch.where(new, longest, h[going])
        begun = torch.where(new[:, None, None], outlook[going].accelerations(t, STAGES), guess[going])
        zero = torch.zeros_like(t)
        piece = Pieces(
            torch.stack([zero, t], 1),
            origin[going] + here[going],
            torch.zeros_like(origin[going]).unsqueeze(1),
            speed[going].unsqueeze(1),
            begun.unsqueeze(1),
            here[going],
        )
        error, corrected, slopes = _corrected(equation, piece)
        good = error < SETTINGS.good
        again = ~good & (error < SETTINGS.hopeless) & (tries[going] < SETTINGS.patience)
        h, guess = h.index_put((going,), t), guess.index_put((going,), corrected.accelerations[:, 0])
        # what is easy to guess, and resolved by twelve points
        factor = torch.minimum(
            (SETTINGS.easy / error) ** (1 / 3), (SETTINGS.resolved / corrected.roughness[:, 0]) ** (1 / (STAGES - 1))
        ).nan_to_num(nan=SETTINGS.shorter)
        factor = factor.clamp(SETTINGS.shorter, SETTINGS.longer)
        factor = torch.where(good, factor, factor.clamp(max=0.7))
        # a polynomial that had to be corrected twice was too long
        late = torch.where(new, 1.0, torch.where(good, 0.8, 1.0))
        time = time.index_put((going,), factor * late * t)
        arrived = good.nonzero().squeeze(1)
        if len(arrived):
            of, last = going[arrived], corrected[arrived]
            found.append((of, count[of], replace(last, points=here[of].unsqueeze(1)), slopes[arrived]))
            ends = last.ends[:, 0]
            here, speed = here.index_put((of,), here[of] + ends[:, 0]), speed.index_put((of,), ends[:, 1])
            outlook = outlook.put(of, Outlook.behind(last))
            done = t[arrived] == ahead[arrived]
            now = now.index_put((of,), torch.where(done, left[of], now[of] + t[arrived]))
            count = count.index_put((of,), count[of] + 1)
        tries = tries.index_put((going,), torch.where(good, 0, tries[going] + 1))
        fresh = fresh.index_put((going,), ~again)
        going = going[(now[going] < left[going]) & (count[going] < most[going]) & (tries[going] < SETTINGS.given_up)]
    return Sketch(*_together(origin, here, speed, now, count, found), count, time)


def _corrected(equation: Equation, piece: Pieces) -> tuple[Float[Tensor, " b"], Pieces, Slopes]:
    """Relative residuals of single pieces, these after a correction, and the derivatives before it."""
    if piece.origin.shape[1] >= NEWTON.large:
        metric = inverse(equation.matrix(piece.origin[:, None, None] + piece.stages[0]))
        force = force_at(equation, piece)
        turned, error = residual(piece, force, metric, free=True)
        step = krylov_step(equation, piece, force, turned, metric, error, free=True)
        return error, piece.with_accelerations(piece.accelerations + step, free=True), Slopes(metric)
    slopes, force = slopes_at(equation, piece)
    turned, error = residual(piece, force, slopes.inverse, free=True)
    return error, piece.moved(correction(piece, turned, slopes, free=True), torch.ones_like(error)), slopes


def _together(
    origin: Tensor,
    end: Tensor,
    velocity: Tensor,
    time: Tensor,
    count: Tensor,
    found: list[tuple[Tensor, Tensor, Pieces, Slopes]],
) -> tuple[Pieces, Slopes]:
    """Curves of what was found one after the other; beyond its last piece each stays where it ends."""
    S, (b, d) = max(1, int(count.max())), origin.shape
    joints = origin.new_zeros(b, S)
    points, velocities = (a.unsqueeze(1).repeat(1, S, 1) for a in (end, velocity))
    accelerations = origin.new_zeros(b, S, STAGES, d)
    matrices = origin.new_zeros(b, S, STAGES, d, d)
    slopes = Slopes(matrices, () if d >= NEWTON.large else (matrices.clone(), matrices.clone()))
    for of, place, piece, own in found:
        joints[of, place] = piece.joints[:, 1]
        points[of, place], velocities[of, place] = piece.points[:, 0], piece.velocities[:, 0]
        accelerations[of, place] = piece.accelerations[:, 0]
        for whole, part in zip((slopes.inverse, *slopes.derivatives), (own.inverse, *own.derivatives), strict=True):
            whole[of, place] = part[:, 0]
    joints = torch.cat([torch.zeros_like(joints[:, :1]), joints.cumsum(1)], 1)
    return Pieces(torch.minimum(joints, time.unsqueeze(1)), origin, points, velocities, accelerations, end), slopes
