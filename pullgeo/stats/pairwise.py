"""Distances between all pairs of points."""

import logging
import os
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_count, check_manifold
from pullgeo.stats.checkpoint import Checkpoint, check_cache, fingerprint
from pullgeo.stats.geodesic_distances import solve_pairs
from pullgeo.stats.graph_distances import GraphReport, NeighbourGraph, graph_distances
from pullgeo.stats.points import Points, as_points

Distances = Float64[np.ndarray, "n m"]
Statuses = np.ndarray
Cache = str | os.PathLike[str]

LARGE_ERROR = 0.05
"""Median relative error of a graph's distances that is worth a warning."""

_log = logging.getLogger("pullgeo")


@overload
def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    method: Literal["exact", "graph"] | NeighbourGraph = "exact",
    solver: Solver | None = None,
    batch_size: int = 512,
    cache: Cache | None = None,
    progress: bool = False,
    return_status: Literal[False] = False,
) -> Distances: ...


@overload
def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    method: Literal["exact"] = "exact",
    solver: Solver | None = None,
    batch_size: int = 512,
    cache: Cache | None = None,
    progress: bool = False,
    return_status: Literal[True],
) -> tuple[Distances, Statuses]: ...


@overload
def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    method: Literal["graph"] | NeighbourGraph,
    solver: Solver | None = None,
    batch_size: int = 512,
    cache: Cache | None = None,
    progress: bool = False,
    return_status: Literal[True],
) -> tuple[Distances, GraphReport]: ...


def pairwise_distances(
    manifold: Manifold,
    z: Points,
    y: Points | None = None,
    *,
    method: Literal["exact", "graph"] | NeighbourGraph = "exact",
    solver: Solver | None = None,
    batch_size: int = 512,
    cache: Cache | None = None,
    progress: bool = False,
    return_status: bool = False,
) -> Distances | tuple[Distances, Statuses] | tuple[Distances, GraphReport]:
    """Geodesic distances between all points of one set, or from every point of one set to every point of another.

    ``D[i, j] = dist(z[i], z[j])``: exactly symmetric and exactly zero on the diagonal, as scikit-learn wants it for
    ``metric="precomputed"``. With ``y``, ``D[i, j] = dist(z[i], y[j])``. Equal points have distance zero.

    ``method="exact"`` solves for the geodesic of each unordered pair, once. **A pair that did not converge is NaN**,
    never a wrong number; which ones, and what to do about them, the statuses say.

    ``method="graph"`` joins each point to its neighbours and takes the lengths of shortest paths: upper bounds of the
    distances, hundreds of times as fast. How good they are is measured on a sample of geodesics, logged, and returned
    with ``return_status=True``. Options: ``method=NeighbourGraph(neighbours=100)``; in many dimensions, where paths
    over points are far too long, ``NeighbourGraph(refine=3)`` pulls them taut.

    Batches go through `joblib.Parallel`: one after the other as a rule, or as a surrounding `joblib.parallel_config`
    decides, such as ``parallel_config(backend="loky", n_jobs=4)``; "threading", "dask" and "ray" do as well.

    Args:
        manifold: where the points live.
        z: points ``(n, d)``, tensor or numpy array; their precision does not limit that of the distances.
        y: points ``(m, d)`` to measure to; all pairs of ``z`` if ``None``.
        method: ``"exact"``, ``"graph"``, or a `NeighbourGraph` with options.
        solver: how geodesics are found; ``Newton()`` if ``None``.
        batch_size: the number of pairs solved together, which bounds memory.
        cache: a folder that keeps every finished batch of the exact method. The same call finds what is there and goes
            on with the rest, to a matrix that is the same to the last bit, and solves again for batches whose files
            are damaged; workers on other machines must see the folder. The caller removes it.
        progress: show a progress bar, counting pairs (joblib's backends "multiprocessing" and "ray" cannot).
        return_status: return the matrix of statuses too, or the report on the graph.

    Returns:
        ``D``, float64 numpy ``(n, n)`` or ``(n, m)``, in ambient units. With ``return_status=True``, ``(D, status)``
        with an object array of the same shape that holds a `Status` for each pair: ``status != Status.CONVERGED`` is
        a mask, ``status[i, j].value`` the advice. Equal points count as converged. For a graph, ``(D, report)`` with a
        `GraphReport`.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the points are no finite ``(n, d)``; the message names the row.
        OptionError: ``batch_size`` is not a positive whole number, ``method`` is something else, ``cache`` is not a
            path, or there is one for a graph.
        DataError: ``cache`` holds distances of other points, another manifold or another solver, or something else; or
            it cannot be written to.

    Cost: n(n-1)/2 geodesics (nm with ``y``), and 16 bytes for each entry of the matrix with its status; for a graph,
    about four decoded points for each edge, eight for a bent one, and n searches for shortest paths; with ``refine``,
    n metrics, and for each pair about 60 decoded points and ``24 refine`` times what one takes, half of it backwards.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> plane = torch.nn.Linear(2, 3).double()
        >>> z = torch.randn(4, 2, dtype=torch.float64)
        >>> D = pairwise_distances(PullbackManifold(plane), z)
        >>> bool(np.allclose(D, torch.cdist(plane(z), plane(z)).detach()))
        True
    """
    where = "pairwise_distances"
    check_manifold(where, manifold)
    check_count(where, "batch_size", batch_size)
    if not isinstance(method, NeighbourGraph) and method not in ("exact", "graph"):
        raise OptionError(f"{where}: method must be 'exact', 'graph' or a NeighbourGraph(...), got {method!r}.")
    if cache is not None:
        check_cache(cache)
    points = as_points(where, z)
    others = None if y is None else as_points(where, y, name="y").to(points.device)
    if others is not None and points.shape[1] != others.shape[1]:
        raise ShapeError(
            f"{where}: z and y must have the same number of columns, got {tuple(points.shape)} and "
            f"{tuple(others.shape)}. Both are points of one latent space."
        )
    if method != "exact":
        if cache is not None:
            raise OptionError(f"{where}: cache is for method='exact'; a graph takes less time than reading files.")
        graph = method if isinstance(method, NeighbourGraph) else NeighbourGraph()
        D = graph_distances(manifold, points, others, graph, progress)
        report = _report(manifold, solver, points, others, D, graph, batch_size, progress)
        return (D, report) if return_status else D
    checkpoint = None
    if cache is not None:
        checkpoint = Checkpoint.open(cache, fingerprint(manifold, solver, points, others, int(batch_size)))
    i, j = _pairs(len(points), None if others is None else len(others))
    targets = points if others is None else others
    length, found = solve_pairs(
        manifold, solver, points, targets, i, j, batch_size, where=where, progress=progress, checkpoint=checkpoint
    )
    D = np.zeros((len(points), len(targets)))
    status = np.full(D.shape, Status.CONVERGED, dtype=object)
    D[i, j], status[i, j] = length, found
    if others is None:
        D[j, i], status[j, i] = length, found
    return (D, status) if return_status else D


def _pairs(n: int, m: int | None) -> tuple[np.ndarray, np.ndarray]:
    if m is None:
        return np.triu_indices(n, 1)
    i, j = np.divmod(np.arange(n * m), m)
    return i, j


def _report(
    manifold: Manifold,
    solver: Solver | None,
    points: Tensor,
    others: Tensor | None,
    D: np.ndarray,
    graph: NeighbourGraph,
    batch_size: int,
    progress: bool,
) -> GraphReport:
    """Compare a sample of the distances with geodesics."""
    i, j = _pairs(len(points), None if others is None else len(others))
    apart = np.flatnonzero(D[i, j] > 0)
    generator = graph.generator if graph.generator is not None else torch.Generator().manual_seed(0)
    order = torch.randperm(len(apart), generator=generator, device=generator.device)[: graph.check_pairs]
    sample = apart[order.numpy(force=True)]
    i, j = i[sample], j[sample]
    targets = points if others is None else others
    exact, status = solve_pairs(
        manifold, solver, points, targets, i, j, batch_size, where="pairwise_distances, check", progress=progress
    )
    report = GraphReport(np.stack([i, j], 1), D[i, j], exact, tuple(status))
    if len(sample):
        level = logging.WARNING if report.median_error > LARGE_ERROR else logging.INFO
        advice = "; take more neighbours, refine=3, or supporting points" if level == logging.WARNING else ""
        _log.log(level, "pairwise_distances: %s%s", report, advice)
    return report
