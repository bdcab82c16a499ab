"""What all estimators check."""

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pullgeo.errors import NonFiniteError
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.pairwise import pairwise_distances


def manifold_of(estimator: Any) -> Manifold:
    """The estimator's manifold.

    Raises:
        OptionError: it is not a manifold.
    """
    check_manifold(type(estimator).__name__, estimator.manifold)
    manifold: Manifold = estimator.manifold
    return manifold


def as_array(X: Any) -> Any:
    """Tensors as arrays, whatever their device and whether or not they require gradients; all else as it is."""
    return X.numpy(force=True) if isinstance(X, Tensor) and X.layout == torch.strided else X


def new_points(estimator: Any, X: Any) -> np.ndarray:
    """Points of the space that a fitted estimator knows, in float64."""
    check_is_fitted(estimator)
    points: np.ndarray = validate_data(estimator, as_array(X), reset=False, dtype=np.float64)
    return points


def distances(where: str, manifold: Manifold, X: np.ndarray, Y: np.ndarray, solver: Solver | None) -> np.ndarray:
    """Distances from points to centres; NaN where no geodesic was found.

    Raises:
        NonFiniteError: a point has no distance to any centre.
    """
    D = pairwise_distances(manifold, X, Y, solver=solver)
    check_reached(where, D)
    return D


def check_reached(where: str, D: np.ndarray) -> None:
    """Raise `NonFiniteError` unless each point has a distance to some centre."""
    lost = np.flatnonzero(np.isnan(D).all(1))
    if len(lost):
        raise NonFiniteError(
            f"{where}: no geodesic from row {lost[0]} was found, nor from {len(lost) - 1} others. "
            "pairwise_distances(..., return_status=True) tells why; drop the rows."
        )
