"""Medians of points on a manifold."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.gradient_of import gradient_of
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_count
from pullgeo.stats.centers.newton import dual_norm
from pullgeo.stats.frechet import FrechetMean, Groups, center, checked_weights
from pullgeo.stats.points import Points, as_points

NEAR = 0.02
"""How near to a point, in mean distances, a search is that may be drawn into it."""

UNITS = 8
"""How near to a point, in rounding errors of its coordinates, a search cannot leave it."""

FIRST = 12
"""Steps after which to look whether it is."""


@with_progress()
def frechet_median(
    manifold: Manifold,
    points: Points,
    weights: Tensor | np.ndarray | None = None,
    groups: Groups | None = None,
    *,
    start: Points | None = None,
    solver: Solver | None = None,
    tol: float = 1e-8,
    max_steps: int = 100,
    progress: bool = False,
) -> FrechetMean:
    """Fréchet medians ``argmin_p Σ w_i d(p, z_i)``, of one group of points or of many at once.

    A median withstands outliers: a point far away pulls as strongly as one near by. It is found by Newton's method, in
    the same way as the mean, with Weiszfeld's weights ``w_i / d_i``; where the exact Hessian is not positive definite
    Weiszfeld's takes its place. A median that is one of the points is recognised by the condition that the pull of all
    others, ``‖Σ w_i log(z_i)/d_i‖``, is not more than its weight.

    Arguments and result are those of `frechet_mean`, which stands for the mean. A median that is one of the points has
    derivatives with respect to this point alone.

    Raises:
        ShapeError, DtypeError, NonFiniteError, OptionError: as for `frechet_mean`.

    Source: Fletcher, Venkatasubramanian, Joshi, *The geometric median on Riemannian manifolds with application to
    robust atlas estimation*, NeuroImage 45, 2009; Vardi, Zhang, *The multivariate L1-median and associated data depth*,
    PNAS 97, 2000 (medians that are one of the points).

    Example:
        >>> from pullgeo import PullbackManifold
        >>> line = PullbackManifold(torch.nn.Linear(1, 3).double())
        >>> z = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]], dtype=torch.float64)
        >>> frechet_median(line, z).point.tolist()
        [[2.0]]
    """
    where = "frechet_median"
    check_count(where, "max_steps", max_steps, 0)
    first = min(max_steps, FIRST)
    found = center(where, manifold, points, weights, groups, start, solver, tol, first, power=1)
    plain = as_points(where, points, name="points")
    weight = checked_weights(where, weights, plain.double(), found.group, len(found.label))
    w = weight.detach()
    vertex = _vertices(manifold, found, plain, w, solver, tol)
    if max_steps > first and not all(v >= 0 or s.converged for v, s in zip(vertex, found.status, strict=True)):
        begin = found.point.detach()
        found = center(where, manifold, points, weights, groups, begin, solver, tol, max_steps - first, power=1)
        vertex = _vertices(manifold, found, plain, w, solver, tol)
    at = [g for g, v in enumerate(vertex) if v >= 0]
    if not at:
        return found
    place = torch.tensor(at, device=plain.device)
    z = points if isinstance(points, Tensor) and points.is_floating_point() else plain
    point = found.point.index_put((place,), z[[vertex[g] for g in at]].to(found.point.dtype))
    geodesics = manifold.geodesic(point.double()[found.group], z.double(), solver)
    total = weight.new_zeros(len(point))
    known = (w > 0) | torch.isfinite(geodesics.energy.detach())
    share = weight[known] * geodesics.energy[known]
    spread = total.index_add(0, found.group[known], share) / total.index_add(0, found.group, weight)
    return replace(
        found,
        point=point,
        variance=found.variance.index_put((place,), spread[place].to(point.dtype)),
        status=tuple(Status.CONVERGED if g in at else s for g, s in enumerate(found.status)),
        residual=found.residual.index_fill(0, place, 0.0),
        geodesics=geodesics,
    )


def _vertices(
    manifold: Manifold, found: FrechetMean, z: Tensor, w: Tensor, solver: Solver | None, tol: float
) -> list[int]:
    """For each group the number of the point that is its median, or -1."""
    vertex = []
    for g in range(len(found.label)):
        member = (found.group == g) & (w > 0)
        length = found.geodesics.length.detach()
        # a point that cannot be measured is not the nearest
        distance = torch.where(member & torch.isfinite(length), length, torch.inf)
        known = distance[torch.isfinite(distance)]
        i = int(distance.argmin())
        vertex.append(-1)
        beside = (z[i].double() - found.point[g].detach().double()).abs().amax() <= UNITS * torch.finfo(
            torch.float64
        ).eps * z[i].double().abs().amax()
        if len(known) and (beside or distance[i] <= NEAR * known.mean()):
            pull, held, failed = _pull(manifold, z[member].double(), z[i].double(), w[member], solver)
            if failed is None and pull <= held * (1 + tol):
                vertex[-1] = i
    return vertex


def _pull(
    manifold: Manifold, z: Float[Tensor, "n d"], p: Float[Tensor, " d"], w: Float[Tensor, " n"], solver: Solver | None
) -> tuple[Tensor, Tensor, Status | None]:
    """``‖Σ w_i log_p(z_i) / d_i‖`` over the points other than p, the weight at p, and a status of failure.

    Points that cannot be told from p are at p: no direction leads to them.
    """
    others = (z != p).any(1)
    if not bool(others.any()):
        return w.new_zeros(()), w.sum(), None
    p = p.detach().clone().requires_grad_()
    with torch.enable_grad():
        # in float64, where nothing that weighs little is lost
        solution = manifold.geodesic(p, z[others].detach(), solver if solver is not None else Newton())
    length = solution.length.detach()
    apart = torch.tensor([s is not Status.DEGENERATE for s in solution.status], device=z.device) & ~(length <= 0)
    held = w.sum() - w[others][apart].sum()
    failed = next((s for s in solution.status if not s.converged), None)
    if failed is not None or not bool(apart.any()):
        return w.new_zeros(()), held, failed
    slope = gradient_of(w[others][apart] * solution.length[apart], p)
    with torch.no_grad():
        norm = dual_norm(manifold.in_double().metric(p.detach().unsqueeze(0)).dense(), slope.unsqueeze(0))
    return norm.squeeze(0), held, None
