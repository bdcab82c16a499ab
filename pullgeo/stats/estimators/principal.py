"""Dimension reduction along principal geodesics."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from pullgeo.errors import ShapeError
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_count
from pullgeo.stats.estimators.checks import as_array, manifold_of, new_points
from pullgeo.stats.tangent import tangent_pca


class PrincipalGeodesicAnalysis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Coordinates along principal geodesics through the Fréchet mean; see `tangent_pca`.

    Args:
        manifold: where the points live.
        n_components: how many geodesics; as many as there are dimensions if ``None``.
        solver: how the geodesics to the mean are found; ``Newton()`` if ``None``.
        progress: show a progress bar where geodesics are solved for, counting steps.

    Attributes:
        mean_: the Fréchet mean ``(d,)``.
        components_: directions ``(k, d)`` at the mean, orthonormal in the metric there.
        explained_variance_: along each of them, in squared ambient units.
        explained_variance_ratio_: their share in the total.
        analysis_: the `TangentPCA`.
        n_features_in_: columns of ``X``.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> X = np.array([[0.0, 0.0], [1.0, 1.1], [2.0, 1.9], [3.0, 3.0]])
        >>> pga = PrincipalGeodesicAnalysis(PullbackManifold(torch.nn.Identity()), n_components=1)
        >>> pga.fit_transform(X).shape, bool(pga.explained_variance_ratio_[0] > 0.99)
        ((4, 1), True)
    """

    def __init__(
        self,
        manifold: Manifold,
        n_components: int | None = None,
        *,
        solver: Solver | None = None,
        progress: bool = False,
    ) -> None:
        self.manifold = manifold
        self.n_components = n_components
        self.solver = solver
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> "PrincipalGeodesicAnalysis":
        """Find mean and directions of points ``(n, d)``.

        Raises:
            OptionError: ``n_components`` is not between 1 and d.
            SingularMetricError: the metric is singular at the mean.
        """
        manifold = manifold_of(self)
        X = validate_data(self, as_array(X), dtype=np.float64, ensure_min_samples=2)
        if self.n_components is not None:
            check_count("PrincipalGeodesicAnalysis", "n_components", self.n_components, 1, X.shape[1])
        found = tangent_pca(manifold, X, components=self.n_components, solver=self.solver, progress=self.progress)
        self.analysis_ = found
        self.mean_ = found.base.numpy(force=True)
        self.components_ = found.directions.numpy(force=True)
        self.explained_variance_ = found.variances.numpy(force=True)
        self.explained_variance_ratio_ = found.ratios.numpy(force=True)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Coordinates ``(m, k)`` of points; NaN where no geodesic to the mean was found."""
        points = new_points(self, X)
        coordinates: np.ndarray = self.analysis_.project(points, progress=self.progress).numpy(force=True)
        return coordinates

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Points ``(m, d)`` with given coordinates ``(m, k)``.

        Raises:
            ShapeError: there are not k coordinates for each point.
        """
        check_is_fitted(self)
        coordinates = check_array(as_array(X), dtype=np.float64)
        if coordinates.shape[1] != len(self.components_):
            raise ShapeError(
                f"PrincipalGeodesicAnalysis.inverse_transform: expected {len(self.components_)} columns, got "
                f"{coordinates.shape[1]}."
            )
        points: np.ndarray = self.analysis_.points(torch.from_numpy(coordinates)).numpy(force=True)
        return points

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)
