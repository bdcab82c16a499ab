"""Regression along a geodesic."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.geodesic.starts.base import InitialCurve
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.progress import advance, with_progress
from pullgeo.stats.arguments import check_count, check_manifold, check_tolerance
from pullgeo.stats.frechet import checked_weights, frechet_mean
from pullgeo.stats.points import Points, as_numbers, as_points

ROUNDING = 1e-9
"""Lengths below this, relative to the coordinates, count as zero."""


@dataclass(frozen=True, eq=False)
class GeodesicRegression:
    """The geodesic that is closest to points at given times.

    Attributes:
        manifold: where the points live.
        begin: where the geodesic is at the earliest time.
        velocity: its velocity there, per unit of the given times.
        first: the earliest time.
        last: the latest time.
        curve: the geodesic, from the earliest to the latest time.
        geodesics: from its points at the given times to the points: lengths are the residuals.
        r_squared: ``1 - Σ w d(γ(t_i), z_i)² / Σ w d(mean, z_i)²``.
        status: how the search ended.
        residual: the norm of half the mean square's gradient with respect to the ends, relative to the geodesic's
            length plus the mean residual distance.
    """

    manifold: Manifold
    begin: Float[Tensor, " d"]
    velocity: Float[Tensor, " d"]
    first: float
    last: float
    curve: Solution
    geodesics: Solution
    r_squared: float
    status: Status
    residual: float

    def predict(self, t: Tensor | np.ndarray) -> Float[Tensor, "m d"]:
        """``exp_begin((t - first) velocity)`` at times ``(m,)``, also earlier or later ones.

        Raises:
            ShapeError, DtypeError: ``t`` is not a vector of numbers.
            NonFiniteError: the geodesic leaves the region where the metric is finite.
        """
        times = as_numbers("GeodesicRegression.predict", t, name="t", like=self.begin).to(self.begin)
        if times.ndim != 1:
            raise ShapeError(f"GeodesicRegression.predict: t must have shape (m,), got {tuple(times.shape)}.")
        return self.manifold.expmap(self.begin, (times - self.first).unsqueeze(1) * self.velocity)


@with_progress("evaluation")
def geodesic_regression(
    manifold: Manifold,
    t: Tensor | np.ndarray,
    points: Points,
    weights: Tensor | np.ndarray | None = None,
    *,
    solver: Solver | None = None,
    tol: float = 1e-6,
    max_steps: int = 200,
    progress: bool = False,
) -> GeodesicRegression:
    """Least squares along a geodesic: ``min Σ w_i d(γ(t_i), z_i)²`` over all geodesics γ.

    The unknowns are where the geodesic is at the earliest and at the latest time. Gradients pass through it, and
    through the geodesics to the points, by the implicit function theorem; a quasi-Newton method (BFGS) does the rest.

    Args:
        manifold: where the points live.
        t: the times ``(n,)`` of the points: any explanatory variable.
        points: ``(n, d)``, tensor or numpy array.
        weights: ``(n,)``, not negative; all 1 if ``None``.
        solver: how geodesics are found to begin with, and with how many segments; ``Newton()`` if ``None``.
        tol: bound on the residual.
        max_steps: bound on the number of steps.
        progress: show a progress bar, counting evaluations.

    Raises:
        ShapeError, DtypeError, NonFiniteError: times, points or weights are not as described above.
        OptionError: all times are equal, or an option is out of its range.

    Source: Fletcher, *Geodesic regression and the theory of least squares on Riemannian manifolds*, IJCV 105, 2013.

    Cost: some dozens of evaluations with n + 1 geodesics each, started from the previous ones.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> t = torch.linspace(0, 2, 5, dtype=torch.float64)
        >>> z = torch.stack([1 + 3 * t, -t], 1)
        >>> fit = geodesic_regression(PullbackManifold(torch.nn.Identity()), t, z)
        >>> fit.velocity.round(decimals=4)
        tensor([ 3., -1.], dtype=torch.float64)
    """
    where = "geodesic_regression"
    check_manifold(where, manifold)
    check_tolerance(where, tol)
    check_count(where, "max_steps", max_steps)
    plain = as_points(where, points, name="points")
    n = len(plain)
    times = as_numbers(where, t, name="t", like=plain).detach()
    if times.shape != (n,) or not bool(torch.isfinite(times).all()):
        raise ShapeError(f"{where}: t must be {n} finite numbers, one for each point, got shape {tuple(times.shape)}.")
    first, last = float(times.min()), float(times.max())
    if first == last:
        raise OptionError(f"{where}: all times are {first}; a geodesic needs at least two.")
    w = checked_weights(where, weights, plain.double(), torch.zeros(n, dtype=torch.long, device=plain.device), 1)
    z, w, s = plain.double(), w.detach() / w.detach().sum(), (times - first) / (last - first)
    search = _Search(manifold, z, w, s, solver if solver is not None else Newton())
    root = w.sqrt().unsqueeze(1)
    line = torch.linalg.lstsq(root * torch.stack([1 - s, s], 1), root * z).solution
    scale = float(z.std(0).norm()) or 1.0
    result = minimize(
        lambda x: search.value(x * scale, scale),
        line.flatten().numpy(force=True) / scale,
        jac=True,
        method="BFGS",
        callback=lambda intermediate_result: search.stop(tol),
        options={"maxiter": max_steps, "gtol": 0.0},
    )
    search.value(result.x * scale, scale)
    curve, geodesics, residual = search.state()
    failed = [status for status in (*curve.status, *geodesics.status) if not status.converged]
    if failed:
        status = failed[0]
    elif residual <= tol:
        status = Status.CONVERGED
    else:
        status = Status.MAX_STEPS if result.nit >= max_steps else Status.STALLED
    begin, end = curve.curve.nodes[0, 0], curve.curve.nodes[0, -1]
    with torch.no_grad():
        spread = frechet_mean(manifold, z, w, solver=solver).variance[0]
        still = float((end - begin).norm()) <= ROUNDING * float(begin.norm())
        velocity = torch.zeros_like(begin) if still else manifold.logmap(begin, end) / (last - first)
    left = (w * geodesics.energy).sum()
    return GeodesicRegression(
        manifold=manifold,
        begin=begin.to(plain.dtype),
        velocity=velocity.to(plain.dtype),
        first=first,
        last=last,
        curve=curve,
        geodesics=geodesics,
        r_squared=float(1 - left / spread) if float(spread) > 0 else float("nan"),
        status=status,
        residual=residual,
    )


class _Search:
    """The sum of squares as a function of the geodesic's ends; every evaluation begins at the last one's curves."""

    def __init__(self, manifold: Manifold, z: Tensor, w: Tensor, s: Tensor, solver: Solver) -> None:
        self.manifold, self.z, self.w, self.s = manifold, z, w, s
        self.solvers = [solver, solver]
        self.last: tuple[Solution, Solution, float] | None = None

    def value(self, x: np.ndarray, scale: float) -> tuple[float, np.ndarray]:
        advance()
        ends = torch.from_numpy(x).to(self.z).reshape(2, -1).requires_grad_()
        with torch.enable_grad():
            curve = self.manifold.geodesic(ends[:1], ends[1:], self.solvers[0])
            there = curve.curve(self.s)[0]
            geodesics = self.manifold.geodesic(there, self.z, self.solvers[1])
            total = (self.w * geodesics.energy).sum()
            (gradient,) = torch.autograd.grad(total, ends)
        self.solvers = [_from(curve), _from(geodesics)]
        size = float((self.w * geodesics.length.detach()).sum() + curve.length.detach())
        self.last = (_detached(curve), _detached(geodesics), self._residual(ends.detach(), gradient, size))
        return float(total.detach()), gradient.flatten().numpy(force=True) * scale

    def state(self) -> tuple[Solution, Solution, float]:
        """Curve, geodesics and residual of the last evaluation."""
        if self.last is None:
            raise OptionError("geodesic_regression: nothing was evaluated.")
        return self.last

    def stop(self, tol: float) -> None:
        if self.state()[2] <= tol:
            raise StopIteration

    def _residual(self, ends: Tensor, gradient: Tensor, size: float) -> float:
        # a constant metric has no batch
        G = self.manifold.in_double().metric(ends).dense().detach().expand(2, *2 * ends.shape[1:])
        inverse = torch.linalg.pinv(G, hermitian=True)
        norm = float(torch.einsum("ei,eij,ej->", gradient, inverse, gradient).clamp(min=0).sqrt())
        # of points that are all the same, rounding errors are the only distances there are
        rounding = ROUNDING * float(torch.einsum("ei,eij,ej->e", ends, G, ends).amax().clamp(min=0).sqrt())
        return norm / (2 * max(size, rounding, 1e-300))


def _from(solution: Solution) -> Newton:
    curve = solution.curve
    return Newton(segments=curve.segments, starts=(InitialCurve(replace(curve, nodes=curve.nodes.detach())),))


def _detached(solution: Solution) -> Solution:
    return replace(
        solution,
        curve=replace(solution.curve, nodes=solution.curve.nodes.detach()),
        length=solution.length.detach(),
        energy=solution.energy.detach(),
    )
