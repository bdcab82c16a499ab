"""Normal distributions on a manifold."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError, SingularMetricError
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.progress import advance, with_progress
from pullgeo.stats.arguments import check_count, check_generator, check_manifold, check_tolerance
from pullgeo.stats.frechet import checked_weights, frechet_mean
from pullgeo.stats.points import Points, as_points
from pullgeo.stats.tangent import logarithms

DIFFERENCE = 1e-3
"""Step of the differences that differentiate the exponential map, relative to the longest tangent."""

LEAST_DIFFERENCE = 1e-6
"""The least of these steps, relative to the coordinates of the point: those of nearly equal points would drown."""

ASYMMETRY = 1e-5
"""By how much a covariance may differ from its transpose, relative to its largest entry: rounding of float32."""


@dataclass(frozen=True, eq=False)
class LAND:
    """The locally adaptive normal distribution ``p(z) = exp(-½ log_μ(z)ᵀ Σ⁻¹ log_μ(z)) / C``.

    It is a density with respect to the Riemannian volume; add `Manifold.log_volume` for the density in the chart. The
    normalisation constant is the integral over the tangent space at the mean,
    ``C = ∫ √det G(exp_μ v) |det d(exp_μ)_v| exp(-½ vᵀΣ⁻¹v) dv``, by Monte Carlo. Beyond the cut locus, where two
    geodesics reach the same point, that counts points twice.

    Attributes:
        manifold: where the distribution lives.
        mean: μ.
        covariance: Σ, of tangents at the mean in coordinates of the chart.
        log_normalizer: ``log C``.
        normalizer_error: relative standard error of C.
        status: how a fit ended.

    Source: Arvanitidis, Hansen, Hauberg, *A locally adaptive normal distribution*, NeurIPS 2016, section 3.
    """

    manifold: Manifold
    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]
    log_normalizer: float
    normalizer_error: float
    status: Status = Status.CONVERGED

    @staticmethod
    @with_progress()
    def of(
        manifold: Manifold,
        mean: Float[Tensor, " d"],
        covariance: Float[Tensor, "d d"],
        *,
        generator: torch.Generator,
        samples: int = 1000,
        progress: bool = False,
    ) -> "LAND":
        """The distribution with given parameters.

        Raises:
            OptionError: ``samples`` is below 2; the covariance is not symmetric.
            ShapeError: mean and covariance do not fit together.
            SingularMetricError: the covariance is not positive definite.
            NonFiniteError: a geodesic from the mean leaves the region where the metric is finite.

        Cost: ``(2d + 1) samples`` geodesics from initial values, in one batch.
        """
        check_manifold("LAND", manifold)
        mean, covariance = (torch.as_tensor(values) for values in (mean, covariance))
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ShapeError(
                f"LAND: expected a mean (d,) and a covariance (d, d), got {tuple(mean.shape)} and "
                f"{tuple(covariance.shape)}."
            )
        gap = (covariance - covariance.mT).abs().max()
        if not bool(gap <= ASYMMETRY * covariance.abs().max()):
            raise OptionError("LAND: the covariance is not symmetric, or not finite. Use (C + C.mT) / 2.")
        root = _root(covariance.double())
        noise = _noise("LAND", samples, len(mean), generator)
        log_volume = _log_volumes(manifold, mean.double(), noise @ root.mT)
        return _make(manifold, mean, covariance, root, log_volume, Status.CONVERGED)

    @with_progress()
    def log_prob(self, z: Points, *, progress: bool = False) -> Float[Tensor, " n"]:
        """Log densities with respect to the Riemannian volume; NaN where no geodesic was found.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the points are no finite ``(n, d)``, or none can be reached.
        """
        plain = as_points("LAND.log_prob", z)
        v = logarithms("LAND.log_prob", self.manifold, self.mean, plain)[0]
        return (-_squares(v, _root(self.covariance.double())) / 2 - self.log_normalizer).to(plain.dtype)

    @with_progress()
    def sample(
        self, count: int, generator: torch.Generator, *, proposals: int = 20, progress: bool = False
    ) -> Float[Tensor, "n d"]:
        """Points of the distribution: normal tangents, drawn again in proportion to the volume that they span.

        Args:
            count: number of points.
            generator: draws them.
            proposals: tangents for each point; with few of them points repeat more often.
            progress: show a progress bar, counting steps.

        Raises:
            OptionError: ``count`` or ``proposals`` is below 1.
            NonFiniteError: a geodesic from the mean leaves the region where the metric is finite.

        Source: Rubin, *Using the SIR algorithm to simulate posterior distributions*, 1988.
        """
        check_count("LAND.sample", "count", count)
        check_count("LAND.sample", "proposals", proposals)
        p = self.mean.double()
        v = _noise("LAND.sample", max(2, count * proposals), len(p), generator) @ _root(self.covariance.double()).mT
        log_volume = _log_volumes(self.manifold, p, v)
        weights = (log_volume - log_volume.max()).exp().to(generator.device)
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator).to(v.device)
        with torch.no_grad():
            return self.manifold.in_double().expmap(p, v[chosen]).to(self.mean.dtype)


@with_progress("round")
def fit_land(
    manifold: Manifold,
    points: Points,
    weights: Tensor | np.ndarray | None = None,
    *,
    generator: torch.Generator,
    samples: int = 500,
    solver: Solver | None = None,
    tol: float = 1e-4,
    max_steps: int = 50,
    progress: bool = False,
) -> LAND:
    """The `LAND` of the largest likelihood.

    At the maximum the mean tangent of the data and their second moment are those of the distribution. Starting from the
    Fréchet mean, mean and covariance are moved until they are; the same normal numbers serve in every step, so that
    the steps converge.

    Args:
        manifold: where the points live.
        points: ``(n, d)``, tensor or numpy array.
        weights: ``(n,)``, not negative; all 1 if ``None``.
        generator: draws the normal numbers.
        samples: how many tangents the distribution's moments are computed from.
        solver: how the geodesics to the Fréchet mean are found.
        tol: bound on the differences of the moments, in standard deviations.
        max_steps: bound on the number of steps.
        progress: show a progress bar, counting rounds.

    Returns:
        The distribution; ``status`` is MAX_STEPS if the moments still differ.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the points are no finite ``(n, d)``, or none can be reached.
        OptionError: ``samples`` is below 2, or weights are negative.
        SingularMetricError: the points span no d dimensions.

    Source: Arvanitidis, Hansen, Hauberg, *A locally adaptive normal distribution*, NeurIPS 2016, section 3 (the
    gradients that vanish).
    """
    where = "fit_land"
    check_tolerance(where, tol)
    check_count(where, "max_steps", max_steps)
    plain = as_points(where, points, name="points")
    n, d = plain.shape
    z = plain.double()
    w = checked_weights(where, weights, z, torch.zeros(n, dtype=torch.long, device=z.device), 1).detach()
    noise = _noise(where, samples, d, generator).to(z.device)
    with torch.no_grad():
        p = frechet_mean(manifold, z, w, solver=solver).point[0]
        root: Tensor | None = None
        status = Status.MAX_STEPS
        for _ in range(max_steps):
            advance()
            v, found = logarithms(where, manifold, p, z)
            share = torch.where(found, w, 0.0)
            share = (share / share.sum()).unsqueeze(1)
            v = torch.where(found.unsqueeze(1), v, 0.0)
            mean, second = (share * v).sum(0), v.mT @ (share * v)
            root = _root(second) if root is None else root
            log_volume = _log_volumes(manifold, p, noise @ root.mT)
            ratio = (log_volume - log_volume.max()).exp().unsqueeze(1)
            ratio = ratio / ratio.sum()
            moment = noise.mT @ (ratio * noise)
            off = mean - root @ (ratio * noise).sum(0)
            gap = torch.linalg.solve(root, torch.linalg.solve(root, second).mT) - moment
            if float(torch.linalg.solve(root, off).norm()) <= tol and float(gap.norm()) <= tol:
                status = Status.CONVERGED
                break
            root = _root(second) @ torch.linalg.inv(_root(moment))
            p = manifold.in_double().expmap(p, off)
        if root is None:
            raise OptionError(f"{where}: max_steps must be at least 1, got {max_steps}.")
        if status is not Status.CONVERGED:
            log_volume = _log_volumes(manifold, p, noise @ root.mT)
    dtype = plain.dtype
    return _make(manifold, p.to(dtype), (root @ root.mT).to(dtype), root, log_volume, status)


def _make(
    manifold: Manifold, mean: Tensor, covariance: Tensor, root: Tensor, log_volume: Tensor, status: Status
) -> LAND:
    count = len(log_volume)
    top = log_volume.max()
    volume = (log_volume - top).exp()
    log_gauss = len(mean) / 2 * math.log(2 * math.pi) + float(torch.linalg.slogdet(root)[1])
    return LAND(
        manifold=manifold,
        mean=mean,
        covariance=covariance,
        log_normalizer=log_gauss + float(volume.mean().log() + top),
        normalizer_error=float(volume.std() / volume.mean()) / math.sqrt(count),
        status=status,
    )


def _log_volumes(manifold: Manifold, p: Tensor, v: Float[Tensor, "s d"]) -> Float[Tensor, " s"]:
    """``log √det G(exp_p v) + log |det d(exp_p)_v|``.

    The derivative is a difference of geodesics close by, all followed in one batch: Jacobi fields take several times
    as long, and the error of the Monte Carlo sum is a thousand times that of the difference.
    """
    space = manifold.in_double()
    s, d = v.shape
    step = torch.maximum(DIFFERENCE * v.abs().amax(), LEAST_DIFFERENCE * p.abs().amax())
    offsets = step * torch.eye(d, dtype=v.dtype, device=v.device).unsqueeze(1)
    with torch.no_grad():
        ends = space.expmap(p, torch.cat([v.unsqueeze(0), v + offsets, v - offsets]).reshape(-1, d))
        here, ahead, behind = ends.reshape(2 * d + 1, s, d).split([1, d, d])
        stretch = torch.linalg.slogdet(((ahead - behind) / (2 * step)).permute(1, 2, 0))[1]
        return space.log_volume(here.squeeze(0)) + stretch


def _noise(where: str, samples: int, d: int, generator: torch.Generator) -> Float[Tensor, "s d"]:
    check_count(where, "samples", samples, 2)
    check_generator(where, generator)
    return torch.randn(samples, d, dtype=torch.float64, generator=generator, device=generator.device)


def _root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    lower, info = torch.linalg.cholesky_ex(covariance)
    if int(info):
        raise SingularMetricError("LAND: the covariance is not positive definite. More points, or fewer dimensions?")
    return lower


def _squares(v: Float[Tensor, "n d"], root: Float[Tensor, "d d"]) -> Float[Tensor, " n"]:
    return torch.linalg.solve_triangular(root, v.mT, upper=False).square().sum(0)
