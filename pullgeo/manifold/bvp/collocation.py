"""Geodesics between two points as polynomials that solve their equation at Gauss's points."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.corrections import Slopes, newton, slopes_at
from pullgeo.manifold.bvp.pieces import Collocated, Pieces
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.chunking import COLLOCATION
from pullgeo.numerics.ode.piecewise import STAGES


@dataclass(frozen=True)
class CollocationSettings:
    """How the mesh of a collocation follows its geodesic.

    Attributes:
        pieces: to begin with. Set by hand.
        max_pieces: bound on their number. Set by hand.
        growth: by how much the number of pieces grows at a time. Set by hand.
        sparse: pieces at whose Gauss points derivatives are taken first; they are interpolated to all others. Newton's
            method corrects what interpolation gets wrong.
        settled: by how much, relatively, more pieces may still change the curve. A hundredth of the error that a
            logarithm may have.
        rough: so many pieces may show that a curve is not smooth. Eight pieces, grown four times.
        order: what remains of a change with half as many pieces again, at best: collocation is of order 12. 1.5⁻¹²,
            with room for the constant.
        slow: more pieces change a smooth curve by less than this part of the last change. Set by hand.
    """

    pieces: int = 8
    max_pieces: int = 128
    growth: float = 1.5
    sparse: int = 3
    settled: float = 1e-9
    rough: int = 40
    order: float = 0.01
    slow: float = 0.2


SETTINGS = CollocationSettings()


def collocate(
    equation: Equation, origin: Float[Tensor, "b d"], curve: DiscreteCurve
) -> list[tuple[Tensor, Collocated]]:
    """The geodesics that discrete geodesics approximate, by Gauss collocation and Newton's method.

    On every piece ``∇ż/dt = 0`` holds at six Gauss points, and pieces meet with one velocity. All pieces of all pairs
    are solved for at once. Pairs whose velocities at the ends change with the number of pieces go on with half as many
    again, shorter where the curve bends, beginning with what was found and with its derivatives: 8 to 128 pieces. Each
    change foretells the next, by its ratio to the last. Where changes hardly shrink the connection jumps, as with ELU,
    and more pieces would be of no use.

    Args:
        equation: of the geodesics.
        origin: where they begin.
        curve: displacements from there.

    Returns:
        Which pairs, and what was found for them; each pair once.

    Cost: covariant derivatives, for which no metric has to be inverted: at 48 points for a pair and each correction.
    In few dimensions ``2d`` times 18 points for derivatives; from 12 dimensions on none, but some ten directional
    derivatives for a correction, and one metric tensor a piece.

    Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, sections 5.3 and 5.6; Knoll,
    Keyes, *Jacobian-free Newton-Krylov methods*, J. Comput. Phys. 2004.
    """
    return _in_parts(equation, Pieces.through(origin, curve, SETTINGS.pieces))


def _in_parts(equation: Equation, begin: Pieces) -> list[tuple[Tensor, Collocated]]:
    b, d = begin.origin.shape
    # matrices of the pieces, or Krylov spaces
    each = (STAGES * d) ** 2 if d < NEWTON.large else NEWTON.krylov_rounds * STAGES * d
    parts = []
    for part in COLLOCATION.slices(b, SETTINGS.max_pieces * each):
        parts += [(index + part.start, found) for index, found in _refined(equation, begin[part])]
    return parts


def _refined(equation: Equation, begin: Pieces) -> list[tuple[Tensor, Collocated]]:
    index = torch.arange(len(begin.origin), device=begin.origin.device)
    by_products = begin.origin.shape[1] >= NEWTON.large
    slopes = _metrics(equation, begin) if by_products else _sparse(equation, begin)
    now, slopes, error = newton(equation, begin, slopes, free=False)
    parts = []
    last = torch.full_like(now.size, torch.inf)
    while len(index):
        pieces = min(SETTINGS.max_pieces, int(SETTINGS.growth * now.points.shape[1]))
        joints = now.finer_joints(pieces)
        finer = now.at(joints)
        slopes = _metrics(equation, finer) if by_products else slopes.between(now.joints, joints)
        finer, slopes, error = newton(equation, finer, slopes, free=False)
        change = finer.away_from(now)
        # the next one, if they go on to shrink as they do; there is nothing to tell from the first
        coming = change * torch.where(torch.isfinite(last), (change / last).clamp(SETTINGS.order, 1.0), 1.0)
        error = torch.maximum(error, coming).nan_to_num(nan=torch.inf)
        done = (
            (error < SETTINGS.settled)
            | ((change > SETTINGS.slow * last) & (pieces >= SETTINGS.rough))
            | (pieces == SETTINGS.max_pieces)
        )
        if bool(done.any()):
            parts.append((index[done], finer[done.nonzero().squeeze(1)].collocated(error[done])))
        rest = (~done).nonzero().squeeze(1)
        index, now, last, slopes = index[rest], finer[rest], change[rest], slopes[rest]
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
