"""Geodesic distances between all pairs of points."""

from threading import Lock
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float64
from joblib import Parallel, delayed
from torch import Tensor
from tqdm.auto import tqdm

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic import Solver, Status
from pullgeo.manifold import Manifold
from pullgeo.stats.points import Points, as_points

Distances = Float64[np.ndarray, "n m"]
Statuses = np.ndarray

# Torch keeps the levels of forward-mode differentiation for the process, not for the thread.
_one_thread_at_a_time = Lock()


@overload
def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    solver: Solver | None = None,
    batch_size: int = 512,
    progress: bool = False,
    return_status: Literal[False] = False,
) -> Distances: ...


@overload
def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    solver: Solver | None = None,
    batch_size: int = 512,
    progress: bool = False,
    return_status: Literal[True],
) -> tuple[Distances, Statuses]: ...


def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    solver: Solver | None = None,
    batch_size: int = 512,
    progress: bool = False,
    return_status: bool = False,
) -> Distances | tuple[Distances, Statuses]:
    """Geodesic distances between all points of one set, or from every point of one set to every point of another.

    ``D[i, j] = dist(z[i], z[j])``, each unordered pair solved once: the matrix is exactly symmetric and its diagonal
    exactly zero, as scikit-learn wants it for ``metric="precomputed"``. With ``y``, ``D[i, j] = dist(z[i], y[j])``.
    Equal points have distance zero. **A pair that did not converge is NaN**, never a wrong number; which ones, and
    what to do about them, the statuses say.

    Batches of pairs go through `joblib.Parallel`: one after the other as a rule, or as a surrounding
    `joblib.parallel_config` decides (``parallel_config(backend="loky", n_jobs=4)``). Use processes: threads take turns.

    Args:
        manifold: where the points live.
        z: points ``(n, d)``, tensor or numpy array; their precision does not limit that of the distances.
        y: points ``(m, d)`` to measure to; all pairs of ``z`` if ``None``.
        solver: how geodesics are found; ``Newton()`` if ``None``.
        batch_size: the number of pairs solved together, which bounds memory.
        progress: show a progress bar, counting pairs (joblib's backends "multiprocessing" and "ray" cannot).
        return_status: return the matrix of statuses too.

    Returns:
        ``D``, float64 numpy ``(n, n)`` or ``(n, m)``, in ambient units. With ``return_status=True``, ``(D, status)``
        with an object array of the same shape that holds a `Status` for each pair: ``status != Status.CONVERGED`` is
        a mask, ``status[i, j].value`` the advice. Equal points count as converged.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the points are no finite ``(n, d)``; the message names the row.
        OptionError: ``batch_size`` is not a positive whole number.

    Cost: n(n-1)/2 geodesics (nm with ``y``), and 16 bytes for each entry of the matrix with its status.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> plane = torch.nn.Linear(2, 3).double()
        >>> z = torch.randn(4, 2, dtype=torch.float64)
        >>> D = pairwise_distances(PullbackManifold(plane), z)
        >>> bool(np.allclose(D, torch.cdist(plane(z), plane(z)).detach()))
        True
    """
    where = "pairwise_distances"
    if not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"{where}: batch_size must be a positive whole number, got {batch_size!r}.")
    points = as_points(where, z)
    others = points if y is None else as_points(where, y, name="y").to(points.device)
    if points.shape[1] != others.shape[1]:
        raise ShapeError(
            f"{where}: z and y must have the same number of columns, got {tuple(points.shape)} and "
            f"{tuple(others.shape)}. Both are points of one latent space."
        )
    rows, columns = _pairs(len(points), None if y is None else len(others))
    D = np.zeros((len(points), len(others)))
    status = np.full(D.shape, Status.CONVERGED, dtype=object)

    batches = [slice(start, start + batch_size) for start in range(0, len(rows), batch_size)]
    tasks = (
        delayed(_solve_batch)(manifold, solver, points[rows[batch]].double(), others[columns[batch]].double())
        for batch in batches
    )
    # not every backend can hand out results one by one, which a progress bar needs
    results = Parallel(return_as="generator" if progress else "list")(tasks)
    with tqdm(total=len(rows), unit="pair", disable=not progress) as bar:
        for batch, (length, found) in zip(batches, results, strict=True):
            i, j = rows[batch], columns[batch]
            D[i, j], status[i, j] = length, found
            if y is None:
                D[j, i], status[j, i] = length, found
            bar.update(len(i))
    return (D, status) if return_status else D


def _pairs(n: int, m: int | None) -> tuple[np.ndarray, np.ndarray]:
    if m is None:
        return np.triu_indices(n, 1)
    i, j = np.divmod(np.arange(n * m), m)
    return i, j


def _solve_batch(manifold: Manifold, solver: Solver | None, a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and statuses of a batch of pairs; equal points are not solved for."""
    length = np.zeros(len(a))
    status = np.full(len(a), Status.CONVERGED, dtype=object)
    apart = (a != b).any(1)
    if bool(apart.any()):
        with _one_thread_at_a_time, torch.no_grad():
            solution = manifold.geodesic(a[apart], b[apart], solver)
        found = torch.where(solution.converged, solution.length.double(), torch.nan)
        length[apart.numpy(force=True)] = found.numpy(force=True)
        status[apart.numpy(force=True)] = list(solution.status)
    return length, status
