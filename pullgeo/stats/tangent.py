"""Principal component analysis in the tangent space at a mean."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.errors import NonFiniteError, ShapeError
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.frame import Frame
from pullgeo.metric.structured import Dense
from pullgeo.numerics.progress import with_progress
from pullgeo.stats.arguments import check_count, check_manifold
from pullgeo.stats.frechet import checked_weights, frechet_mean
from pullgeo.stats.points import Points, as_numbers, as_points


@dataclass(frozen=True, eq=False)
class TangentPCA:
    """Principal directions of points, as seen from a base point.

    Attributes:
        manifold: where the points live.
        base: the base point.
        directions: tangents at the base, orthonormal in the metric there, by falling variance.
        variances: of the points' coordinates along them, in squared ambient units.
        total: the variance along all directions.
        coordinates: of the points; NaN where no geodesic to a point was found.
        found: where it was.
    """

    manifold: Manifold
    base: Float[Tensor, " d"]
    directions: Float[Tensor, "k d"]
    variances: Float[Tensor, " k"]
    total: float
    coordinates: Float[Tensor, "n k"]
    found: Bool[Tensor, " n"]

    @property
    def ratios(self) -> Float[Tensor, " k"]:
        """The share of each direction in the total variance; 0 where there is none, as of points that coincide."""
        return self.variances / self.total if self.total > 0 else torch.zeros_like(self.variances)

    def points(self, coordinates: Points) -> Float[Tensor, "m d"]:
        """``exp`` of tangents given by coordinates ``(m, k)`` along the directions.

        Raises:
            ShapeError: there are not k coordinates for each point.
            NonFiniteError: a geodesic leaves the region where the metric is finite.
        """
        x = as_numbers("TangentPCA.points", coordinates, name="coordinates", like=self.base).to(self.directions)
        if x.ndim != 2 or x.shape[1] != len(self.directions):
            raise ShapeError(
                f"TangentPCA.points: coordinates must have shape (m, {len(self.directions)}), got {tuple(x.shape)}."
            )
        return self.manifold.expmap(self.base, x @ self.directions)

    def principal_geodesic(self, component: int, t: Tensor | np.ndarray) -> Float[Tensor, "m d"]:
        """Points on the geodesic through the base along a direction, at signed distances ``t``, ``(m,)``, from it.

        Raises:
            OptionError: there is no such component.
            ShapeError: ``t`` is not a vector.
            NonFiniteError: the geodesic leaves the region where the metric is finite.
        """
        where = "TangentPCA.principal_geodesic"
        check_count(where, "component", component, 0, len(self.directions) - 1)
        along = as_numbers(where, t, name="t", like=self.base).to(self.base)
        if along.ndim != 1:
            raise ShapeError(f"{where}: t must have shape (m,), got {tuple(along.shape)}.")
        return self.manifold.expmap(self.base, along.unsqueeze(1) * self.directions[component])

    @with_progress()
    def project(self, z: Points, *, progress: bool = False) -> Float[Tensor, "m k"]:
        """Coordinates of any points: of ``log_base(z)`` along the directions; NaN where no geodesic was found.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the points are no finite ``(m, d)``, or none can be reached.
        """
        where = "TangentPCA.project"
        plain = as_points(where, z)
        v = logarithms(where, self.manifold, self.base, plain)[0]
        frame = _frame(where, self.manifold, self.base)
        return (frame.coordinates(v) @ frame.coordinates(self.directions.double()).mT).to(self.base.dtype)


@with_progress()
def tangent_pca(
    manifold: Manifold,
    points: Points,
    weights: Tensor | np.ndarray | None = None,
    *,
    base: Tensor | np.ndarray | None = None,
    components: int | None = None,
    solver: Solver | None = None,
    progress: bool = False,
) -> TangentPCA:
    """Principal directions: eigenvectors of the covariance of ``log_base(z_i)``, in an orthonormal frame at the base.

    The first principal geodesic runs from the base along the first direction, and so on: to first order in the spread
    of the points it is the geodesic that they are closest to.

    Args:
        manifold: where the points live.
        points: ``(n, d)``, tensor or numpy array.
        weights: ``(n,)``, not negative; all 1 if ``None``.
        base: ``(d,)``; the Fréchet mean if ``None``. From another base the mean tangent is not zero: it is not
            subtracted.
        components: how many directions; all if ``None``.
        solver: how the geodesics to the mean are found.
        progress: show a progress bar, counting steps.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the points are no finite ``(n, d)``, or none can be reached.
        OptionError: ``components`` is not between 1 and d.
        SingularMetricError: the metric is singular at the base.

    Source: Fletcher, Lu, Pizer, Joshi, *Principal geodesic analysis for the study of nonlinear statistics of shape*,
    IEEE TMI 23, 2004, section IV.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> line = torch.linspace(-1, 1, 5, dtype=torch.float64)
        >>> z = torch.stack([3 * line, line.square() - 0.5], 1)
        >>> pca = tangent_pca(PullbackManifold(torch.nn.Identity()), z)
        >>> pca.directions[0].abs().round(decimals=6)
        tensor([1., 0.], dtype=torch.float64)
    """
    where = "tangent_pca"
    plain = as_points(where, points, name="points")
    n, d = plain.shape
    k = d if components is None else components
    check_manifold(where, manifold)
    check_count(where, "components", k, 1, d)
    w = checked_weights(where, weights, plain.double(), torch.zeros(n, dtype=torch.long, device=plain.device), 1)
    w = w.detach()
    if base is None:
        with torch.no_grad():
            p = frechet_mean(manifold, plain.double(), w, solver=solver).point[0]
    else:
        p = as_numbers(where, base, name="base", like=plain).detach()
        if p.shape != (d,):
            raise ShapeError(f"{where}: base must have shape ({d},), got {tuple(p.shape)}.")
    frame = _frame(where, manifold, p)
    v, found = logarithms(where, manifold, p, plain)
    x = frame.coordinates(v)
    seen = torch.where(found.unsqueeze(1), x, 0.0)
    w = torch.where(found, w, 0.0)
    covariance = seen.mT @ (w.unsqueeze(1) * seen) / w.sum()
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp(min=0)[:k], vectors.flip(1)[:, :k]
    directions = frame.tangents(vectors.mT)
    # eigenvectors have no sign of their own: the largest coordinate is positive
    largest = directions.abs().argmax(1, keepdim=True)
    sign = directions.gather(1, largest).sign()
    directions, vectors = directions * sign, vectors * sign.mT
    dtype = plain.dtype
    return TangentPCA(
        manifold=manifold,
        base=p.to(dtype),
        directions=directions.to(dtype),
        variances=values.to(dtype),
        total=float(covariance.trace()),
        coordinates=(x @ vectors).to(dtype),
        found=found,
    )


def _frame(where: str, manifold: Manifold, p: Float[Tensor, " d"]) -> Frame:
    """The frame at a point, in float64."""
    point = p.double().unsqueeze(0)
    with torch.no_grad():
        # a constant metric has no batch
        G = Dense(manifold.in_double().metric(point).dense().expand(1, len(p), len(p)))
    return Frame.at(where, G, p)


def logarithms(
    where: str, manifold: Manifold, p: Float[Tensor, " d"], z: Float[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d"], Bool[Tensor, " n"]]:
    """``log_p(z)`` in float64, and which of them were found; those that were not are NaN.

    Raises:
        NonFiniteError: none was found.
    """
    with torch.no_grad():
        v = manifold.logmap(p.double(), z.detach().double())
    found = torch.isfinite(v).all(1)
    if not bool(found.any()):
        raise NonFiniteError(f"{where}: no geodesic from {p.tolist()} to any of {len(z)} points was found.")
    return v, found
