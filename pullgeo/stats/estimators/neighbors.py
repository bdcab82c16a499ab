"""Classification by the nearest neighbours along geodesics."""

from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pullgeo.errors import NonFiniteError, OptionError
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_count
from pullgeo.stats.estimators.checks import as_array, manifold_of
from pullgeo.stats.graph_distances import NeighbourGraph
from pullgeo.stats.pairwise import pairwise_distances


class GeodesicKNeighbors(ClassifierMixin, BaseEstimator):
    """A vote among the k training points that are nearest along geodesics.

    Args:
        manifold: where the points live, or ``"precomputed"``: then ``X`` in `predict` holds distances ``(m, n)`` to the
            n training points, such as a block of `pairwise_distances`, and ``X`` in `fit` is a matrix with n rows.
        n_neighbors: k.
        weights: ``"uniform"``, or ``"distance"`` for votes in proportion to the inverse distance.
        method: how distances are found: ``"exact"``, ``"graph"`` or a `NeighbourGraph`.
        solver: how geodesics are found; ``Newton()`` if ``None``.
        progress: show a progress bar where distances are found, counting pairs.

    Attributes:
        classes_: labels, sorted.
        n_features_in_: columns of ``X``.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> X, y = np.array([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0], [3.1, 0.0]]), ["a", "a", "b", "b"]
        >>> knn = GeodesicKNeighbors(PullbackManifold(torch.nn.Identity()), n_neighbors=1).fit(X, y)
        >>> knn.predict([[0.5, 0.5], [2.0, 0.0]]).tolist()
        ['a', 'b']
    """

    def __init__(
        self,
        manifold: Manifold | Literal["precomputed"],
        n_neighbors: int = 5,
        *,
        weights: Literal["uniform", "distance"] = "uniform",
        method: Literal["exact", "graph"] | NeighbourGraph = "exact",
        solver: Solver | None = None,
        progress: bool = False,
    ) -> None:
        self.manifold = manifold
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.method = method
        self.solver = solver
        self.progress = progress

    def fit(self, X: Any, y: Any) -> "GeodesicKNeighbors":
        """Keep the training points.

        Raises:
            OptionError: an option has no meaning.
        """
        if self.weights not in ("uniform", "distance"):
            raise OptionError(f"GeodesicKNeighbors: weights must be 'uniform' or 'distance', got {self.weights!r}.")
        X, y = validate_data(self, as_array(X), as_array(y), dtype=np.float64)
        check_count("GeodesicKNeighbors", "n_neighbors", self.n_neighbors)
        if self.manifold != "precomputed":
            manifold_of(self)
        check_classification_targets(y)
        self.classes_, self._y = np.unique(y, return_inverse=True)
        self._X = X
        return self

    def kneighbors(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Distances ``(m, k)`` to the k nearest training points, ascending, and their numbers ``(m, k)``.

        Raises:
            NonFiniteError: for a point fewer than k geodesics were found.
            OptionError: there are fewer than k training points.
        """
        check_is_fitted(self)
        k = self.n_neighbors
        if k > len(self._y):
            raise OptionError(f"GeodesicKNeighbors: n_neighbors is {k}, but there are {len(self._y)} training points.")
        D = self._distances(X)
        D = np.where(np.isnan(D), np.inf, D)
        nearest = np.argsort(D, axis=1, kind="stable")[:, :k]
        near = np.take_along_axis(D, nearest, 1)
        lost = np.flatnonzero(~np.isfinite(near).all(1))
        if len(lost):
            raise NonFiniteError(
                f"GeodesicKNeighbors: fewer than {k} geodesics were found from row {lost[0]} of X, and from "
                f"{len(lost) - 1} others. Drop the rows, or take fewer neighbours."
            )
        return near, nearest

    def predict_proba(self, X: Any) -> np.ndarray:
        """Shares ``(m, classes)`` of the votes."""
        near, nearest = self.kneighbors(X)
        if self.weights == "uniform":
            votes = np.ones_like(near)
        else:
            # a point that is a training point takes its label
            hit = near == 0
            # inverse distances in units of the largest, which does not overflow
            nearest_one = near.min(1, keepdims=True)
            votes = np.where(hit.any(1, keepdims=True), hit, nearest_one / np.where(hit, 1, near))
        shares = np.zeros((len(near), len(self.classes_)))
        for neighbour, vote in zip(self._y[nearest].T, votes.T, strict=True):
            shares[np.arange(len(near)), neighbour] += vote
        return shares / shares.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The labels with the most votes; of several the first."""
        best = self.predict_proba(X).argmax(1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def _distances(self, X: Any) -> np.ndarray:
        if self.manifold == "precomputed":
            D = np.asarray(as_array(X), dtype=np.float64)
            if D.ndim != 2 or D.shape[1] != len(self._y):
                raise OptionError(
                    f"GeodesicKNeighbors: with manifold='precomputed' X must hold distances (m, {len(self._y)}) to the "
                    f"training points, got {D.shape}."
                )
            if bool((D < 0).any()):
                raise OptionError(
                    "GeodesicKNeighbors: with manifold='precomputed' X holds distances, got some below 0."
                )
            return D
        X = validate_data(self, as_array(X), reset=False, dtype=np.float64)
        return pairwise_distances(
            self.manifold, X, self._X, method=self.method, solver=self.solver, progress=self.progress
        )
