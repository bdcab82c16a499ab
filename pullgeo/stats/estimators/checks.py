"""What all estimators check."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from pullgeo.errors import NonFiniteError, OptionError
from pullgeo.geodesic import Solver
from pullgeo.manifold import Manifold
from pullgeo.stats.pairwise import pairwise_distances


def manifold_of(estimator: Any) -> Manifold:
    """The estimator's manifold.

    Raises:
        OptionError: it is none.
    """
    if not isinstance(estimator.manifold, Manifold):
        raise OptionError(
            f"{type(estimator).__name__}: manifold must be a pullgeo Manifold, got {type(estimator.manifold).__name__}."
            " Wrap a decoder: PullbackManifold(decoder)."
        )
    return estimator.manifold


def new_points(estimator: Any, X: Any) -> np.ndarray:
    """Points of the space that a fitted estimator knows, in float64."""
    check_is_fitted(estimator)
    points: np.ndarray = validate_data(estimator, X, reset=False, dtype=np.float64)
    return points


def distances(where: str, manifold: Manifold, X: np.ndarray, Y: np.ndarray, solver: Solver | None) -> np.ndarray:
    """Distances from points to centres; NaN where no geodesic was found.

    Raises:
        NonFiniteError: a point has no distance to any centre.
    """
    D = pairwise_distances(manifold, X, Y, solver=solver)
    lost = np.flatnonzero(np.isnan(D).all(1))
    if len(lost):
        raise NonFiniteError(
            f"{where}: no geodesic from row {lost[0]} was found, nor from {len(lost) - 1} others. "
            "pairwise_distances(..., return_status=True) tells why; drop the rows."
        )
    return D
