"""Parallel transport along curves in pieces, as collocation found them."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.bvp.corrections import SETTINGS as NEWTON
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.equation import Equation, inverse
from pullgeo.numerics.gmres import gmres
from pullgeo.numerics.ode.piecewise import like

TAIL = 1e-5
"""Largest part of a tangent's change on a piece that polynomials of the two highest degrees may make: the error where a
piece ends is about its square."""

HALVINGS = 4
"""How often pieces are halved, at most, for tangents that change more abruptly than the curve."""

GOAL = 1e-12
"""Relative residual of the linear equation."""


def transport_pieces(equation: Equation, at: Pieces, w: Float[Tensor, "b k d"]) -> Float[Tensor, "b k d"]:
    """Tangents at the beginning of curves, at their ends: ``∇w/dt = 0`` at Gauss's points, where the curve is known.

    Returns:
        The tangents; NaN for a curve whose pieces are too coarse for them.

    Cost: ``d`` covariant derivatives and one metric at each Gauss point, in one batch; from 12 dimensions on some ten
    for each tangent, and one metric a piece.

    Source: Hairer, Lubich, Wanner, *Geometric Numerical Integration*, section II.1.3.
    """
    moved = torch.full_like(w, torch.nan)
    index = torch.arange(len(w), device=w.device)
    solve = _by_matrices if w.shape[2] < NEWTON.large else _by_products
    for number in range(HALVINGS + 1):
        found, rates = solve(equation, at, w[index])
        top = torch.einsum("nm,bSmkd->bSnkd", like(at.rule.legendre[-2:], rates), rates)
        tail = at.durations * top.norm(dim=4).amax(2)
        good = (tail <= TAIL * w[index].norm(dim=2).unsqueeze(1)).flatten(1).all(1)
        good = good & torch.isfinite(found).flatten(1).all(1)
        moved = moved.index_put((index[good],), found[good])
        rest = (~good).nonzero().squeeze(1)
        if not len(rest) or number == HALVINGS:
            break
        index, at = index[rest], at[rest]
        middle = (at.joints[:, :-1] + at.joints[:, 1:]) / 2
        at = at.at(torch.cat([at.joints, middle], 1).sort(1).values)
    return moved


def _by_matrices(equation: Equation, at: Pieces, w: Tensor) -> tuple[Tensor, Float[Tensor, "b S s k d"]]:
    """By the propagators of the pieces."""
    b, S, s, d = at.accelerations.shape
    z, u = at.stages
    z = at.origin[:, None, None] + z
    basis = torch.eye(d, dtype=z.dtype, device=z.device).view(d, 1, 1, 1, d).expand(d, b, S, s, d)
    points, velocities = z.expand_as(basis), u.expand_as(basis)
    turned = equation.lowered(points, velocities, basis, torch.zeros_like(basis)).movedim(0, 4)
    # ẇ = A w
    A = -(inverse(equation.matrix(z)) @ turned)
    h, inner = at.durations.unsqueeze(3), like(at.rule.inner, z)
    outer = like(at.rule.outer, z)
    # rates K_m = A_m (1 + h Σ_l a_ml K_l), and the propagator is 1 + h Σ_m b_m K_m
    drift = h.unsqueeze(4) * torch.einsum("bSmij,ml->bSmilj", A, inner).reshape(b, S, s, d, s * d)
    system = torch.eye(s * d, dtype=z.dtype, device=z.device) - drift.reshape(b, S, s * d, s * d)
    K = torch.linalg.solve_ex(system, A.reshape(b, S, s * d, d))[0].reshape(b, S, s, d, d)
    propagators = torch.eye(d, dtype=z.dtype, device=z.device) + h * torch.einsum("m,bSmij->bSij", outer, K)
    begins = [w]
    for propagator in propagators.unbind(1):
        begins.append(torch.einsum("bij,bkj->bki", propagator, begins[-1]))
    return begins[-1], torch.einsum("bSmij,bSkj->bSmki", K, torch.stack(begins[:-1], 1))


def _by_products(equation: Equation, at: Pieces, w: Tensor) -> tuple[Tensor, Float[Tensor, "b S s k d"]]:
    """By a Krylov method for the rates of all pieces at once, each tangent a problem of its own."""
    b, k, d = w.shape
    S, s = at.accelerations.shape[1:3]
    z, u = at.stages
    z = at.origin[:, None, None] + z
    half = at.points + at.durations * at.velocities / 2
    metric = inverse(equation.matrix(at.origin.unsqueeze(1) + half))
    h = at.durations.unsqueeze(3)
    rule = at.rule
    inner, outer = like(rule.inner, z), like(rule.outer, z)
    weight = (h * outer.view(-1, 1)).sqrt()

    def derivative(begin: Tensor, rates: Tensor, pair: Tensor) -> Tensor:
        gained = (h[pair] * outer.view(-1, 1) * rates).sum(2)
        before = begin.unsqueeze(1) + gained.cumsum(1) - gained
        here = before.unsqueeze(2) + h[pair] * torch.einsum("ml,nSld->nSmd", inner, rates)
        lowered = equation.lowered(z[pair], u[pair], here, rates)
        return weight[pair] * torch.einsum("nSij,nSmj->nSmi", metric[pair], lowered)

    pairs = torch.arange(b, device=w.device).repeat_interleave(k)
    begin, still = w.flatten(0, 1), torch.zeros(b * k, S, s, d, dtype=w.dtype, device=w.device)

    def product(v: Tensor, index: Tensor) -> Tensor:
        pair = pairs[index]
        rates = v.reshape(len(index), S, s, d) / weight[pair]
        return derivative(torch.zeros_like(begin[index]), rates, pair).flatten(1)

    right = -derivative(begin, still, pairs).flatten(1)
    size = begin.norm(dim=1) / right.norm(dim=1).clamp(min=torch.finfo(w.dtype).tiny)
    found, left = gmres(product, right, GOAL * size.clamp(min=1.0), NEWTON.krylov_rounds)
    rates = found.reshape(still.shape) / weight[pairs]
    end = begin + (h[pairs] * outer.view(-1, 1) * rates).sum((1, 2))
    # what is not solved is not finite
    end = torch.where((left <= 1e2 * GOAL * size.clamp(min=1.0)).unsqueeze(1), end, torch.nan)
    return end.unflatten(0, (b, k)), rates.unflatten(0, (b, k)).permute(0, 2, 3, 1, 4)
