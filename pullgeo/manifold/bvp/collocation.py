"""Geodesics between two points as polynomials that solve their equation at Gauss's points."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.corrections import Slopes, newton, slopes_at
from pullgeo.manifold.bvp.pieces import Collocated, Pieces
from pullgeo.manifold.bvp.settle import FINEST, settle
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.chunking import COLLOCATION
from pullgeo.numerics.ode.piecewise import STAGES


@dataclass(frozen=True)
class CollocationSettings:
    """How the mesh of a collocation follows its geodesic.

    Attributes:
        pieces: to begin with. Set by hand.
        max_pieces: bound on their number. Set by hand.
        growth: by how much the number of pieces grows where the first choice does not do. Set by hand.
        sparse: pieces at whose Gauss points derivatives are taken first; they are interpolated to all others. Newton's
            method corrects what interpolation gets wrong.
        sketched: relative residual with which the first mesh is left: it is only to tell where the curve bends.
        roughly: the same for six Gauss points on the mesh of the solution, whose own error is not smaller.
        resolved: the part of the velocity's change on a piece that the two highest of six degrees may make, for twelve
            to leave no more than an error that is settled. From geometric decay of the coefficients.
        spare: so many more pieces are taken than would do if they were ideally placed. Set by hand.
        settled: relative error that is small enough. A hundredth of the error that a logarithm may have.
        rough: so many pieces may show that a curve is not smooth. Set by hand.
        slow: more pieces leave a smooth curve less than this part of its error. Set by hand.
    """

    pieces: int = 8
    max_pieces: int = 64
    growth: float = 1.5
    sparse: int = 3
    sketched: float = 0.2
    roughly: float = 1e-4
    resolved: float = 2e-3
    spare: float = 1.3
    settled: float = 1e-9
    rough: int = 24
    slow: float = 0.2


SETTINGS = CollocationSettings()


def collocate(
    equation: Equation, origin: Float[Tensor, "b d"], curve: DiscreteCurve
) -> list[tuple[Tensor, Collocated]]:
    """The geodesics that discrete geodesics approximate, by Gauss collocation and Newton's method.

    On every piece ``∇ż/dt = 0`` holds at Gauss points, and pieces meet with one velocity. All pieces of all pairs are
    solved for at once. Eight pieces of six points, solved for roughly, tell where the curve bends, and how many pieces
    it needs; `settle` solves for these, and estimates the error. Where that is too large, half as many again are
    taken. Where the error hardly shrinks the connection jumps, as with ELU, and more pieces would be of no use.

    Args:
        equation: of the geodesics.
        origin: where they begin.
        curve: displacements from there.

    Returns:
        Which pairs, and what was found for them; each pair once.

    Cost: covariant derivatives, for which no metric has to be inverted: some five times at six, four times at twelve
    and once at sixteen points of each piece. In few dimensions ``3d`` times as many as six points take for derivatives,
    once or twice; from 12 dimensions on none, but some ten directional derivatives for a correction, and one metric
    tensor a piece.

    Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, sections 5.3 and 5.6; Knoll,
    Keyes, *Jacobian-free Newton-Krylov methods*, J. Comput. Phys. 2004.
    """
    return _in_parts(equation, Pieces.through(origin, curve, SETTINGS.pieces))


def _in_parts(equation: Equation, begin: Pieces) -> list[tuple[Tensor, Collocated]]:
    b, d = begin.origin.shape
    # matrices of the pieces, or Krylov spaces
    each = (FINEST * d) ** 2 if d < NEWTON.large else NEWTON.krylov_rounds * FINEST * d
    parts = []
    for part in COLLOCATION.slices(b, SETTINGS.max_pieces * each):
        parts += [(index + part.start, found) for index, found in _sketched(equation, begin[part])]
    return parts


def _sketched(equation: Equation, begin: Pieces) -> list[tuple[Tensor, Collocated]]:
    by_products = begin.origin.shape[1] >= NEWTON.large
    slopes = _metrics(equation, begin) if by_products else _sparse(equation, begin)
    now, slopes, _ = newton(equation, begin, slopes, free=False, tol=SETTINGS.sketched)
    need = ((now.roughness / SETTINGS.resolved) ** (1 / (STAGES - 1))).nan_to_num(nan=1.0, posinf=1.0).sum(1)
    need = (SETTINGS.spare * need).clamp(SETTINGS.pieces // 2, SETTINGS.max_pieces)
    # pairs that need about as many go together
    level = (need / SETTINGS.pieces).log2().ceil().clamp(min=0)
    parts: list[tuple[Tensor, Collocated]] = []
    for one in level.unique().tolist():
        index = (level == one).nonzero().squeeze(1)
        pieces = math.ceil(float(need[index].max()))
        found = _refined(equation, now[index], slopes[index], pieces)
        parts += [(index[own], of_them) for own, of_them in found]
    return parts


def _refined(equation: Equation, now: Pieces, slopes: Slopes, pieces: int) -> list[tuple[Tensor, Collocated]]:
    by_products = now.origin.shape[1] >= NEWTON.large
    index = torch.arange(len(now.origin), device=now.origin.device)
    parts = []
    last = torch.full_like(now.size, torch.inf)
    while len(index):
        joints = now.finer_joints(pieces)
        finer = now.at(joints)
        slopes = _metrics(equation, finer) if by_products else slopes.between(now.joints, joints)
        before = now
        now, slopes, left = newton(equation, finer, slopes, free=False, tol=SETTINGS.roughly)
        found, errors = settle(equation, now, slopes, free=False)
        # where collocation is most exact
        error = errors[:, [0, -1]].amax(1)
        # what is not smooth may have an approximation all the same
        change = torch.maximum(left, now.away_from(before)).nan_to_num(nan=torch.inf)
        error = torch.where(torch.isfinite(error), error, change)
        done = (
            (error < SETTINGS.settled)
            | ((error > SETTINGS.slow * last) & (pieces >= SETTINGS.rough))
            | (pieces == SETTINGS.max_pieces)
        )
        if bool(done.any()):
            parts.append((index[done], found[done.nonzero().squeeze(1)].collocated(error[done])))
        rest = (~done).nonzero().squeeze(1)
        index, now, last, slopes = index[rest], now[rest], error[rest], slopes[rest]
        pieces = min(SETTINGS.max_pieces, math.ceil(SETTINGS.growth * pieces))
    return parts


def _sparse(equation: Equation, begin: Pieces) -> Slopes:
    """Derivatives at few points, interpolated to all others."""
    sparse = torch.linspace(0, 1, SETTINGS.sparse + 1, dtype=begin.joints.dtype, device=begin.joints.device)
    sparse = sparse.expand(len(begin.joints), -1)
    return slopes_at(equation, begin.at(sparse))[0].between(sparse, begin.joints)


def _metrics(equation: Equation, at: Pieces) -> Slopes:
    """One metric for each piece."""
    half = at.points + at.durations * at.velocities / 2
    lower = inverse(equation.matrix(at.origin.unsqueeze(1) + half))
    return Slopes(lower.unsqueeze(2).expand(-1, -1, STAGES, -1, -1))
