"""The nearest neighbours of every point along geodesics, for point sets of which no distance matrix fits in memory."""

import logging
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float64, Int
from joblib import delayed
from scipy.sparse import csr_array
from torch import Tensor

from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.chunking import DERIVED, EDGES, GEODESICS, METRICS
from pullgeo.numerics.neighbour_graph import nearest
from pullgeo.stats.arguments import check_count, check_generator, check_manifold
from pullgeo.stats.geodesic_distances import solve_pairs
from pullgeo.stats.graph_distances import GraphReport, edge_lengths
from pullgeo.stats.points import Points, as_points
from pullgeo.stats.tasks import results

_log = logging.getLogger("pullgeo")


@overload
def kneighbors_graph(
    manifold: Manifold,
    z: Points,
    n_neighbors: int = 15,
    *,
    y: Points | None = None,
    mode: Literal["distance", "connectivity"] = "distance",
    candidates: int | None = None,
    edges: Literal["chord", "geodesic"] = "chord",
    check_pairs: int = 100,
    generator: torch.Generator | None = None,
    progress: bool = False,
    return_report: Literal[False] = False,
) -> csr_array: ...


@overload
def kneighbors_graph(
    manifold: Manifold,
    z: Points,
    n_neighbors: int = 15,
    *,
    y: Points | None = None,
    mode: Literal["distance", "connectivity"] = "distance",
    candidates: int | None = None,
    edges: Literal["chord", "geodesic"] = "chord",
    check_pairs: int = 100,
    generator: torch.Generator | None = None,
    progress: bool = False,
    return_report: Literal[True],
) -> tuple[csr_array, GraphReport]: ...


def kneighbors_graph(
    manifold: Manifold,
    z: Points,
    n_neighbors: int = 15,
    *,
    y: Points | None = None,
    mode: Literal["distance", "connectivity"] = "distance",
    candidates: int | None = None,
    edges: Literal["chord", "geodesic"] = "chord",
    check_pairs: int = 100,
    generator: torch.Generator | None = None,
    progress: bool = False,
    return_report: bool = False,
) -> csr_array | tuple[csr_array, GraphReport]:
    """The nearest neighbours of every point as a sparse matrix, as scikit-learn's ``kneighbors_graph`` returns it.

    What DBSCAN, spectral clustering, Isomap, UMAP and t-SNE need of the distances between 10⁵ points, of which the full
    matrix would take 80 GB. Neighbours are found in three steps, each of which looks closer at fewer:

    1. ``candidates`` nearest points in the latent space, by a k-d tree;
    2. of these the ``2 n_neighbors`` nearest by the metrics of both ends, ``½ (Δzᵀ G(a) Δz + Δzᵀ G(b) Δz)``;
    3. of these, and of the points that have chosen this one, the ``n_neighbors`` nearest by length.

    Lengths are those of the image of the straight line between the two, by chords of two resolutions that are
    extrapolated; with ``edges="geodesic"``, of geodesics. Between neighbours both differ little; how little is measured
    on a sample of geodesics, logged, and returned with ``return_report=True``.

    Tasks go through `joblib.Parallel`, wherever a surrounding `joblib.parallel_config` says.

    Args:
        manifold: where the points live.
        z: points ``(n, d)``, tensor or numpy array.
        n_neighbors: k, the neighbours of each point, itself not among them; less than n.
        y: points ``(m, d)`` among which neighbours are sought, at least k; the other points of ``z`` if ``None``.
        mode: the entries: ``"distance"``, or ``"connectivity"`` for ones.
        candidates: points that are looked at for each point, at least k; ``4 n_neighbors`` if ``None``. More where the
            metric is far from isotropic: a condition number κ of G stretches balls of equal distance to ellipses whose
            axes differ by the factor √κ.
        edges: ``"chord"`` or ``"geodesic"``; the latter is never longer and takes much more time.
        check_pairs: how many entries are compared with geodesics.
        generator: draws these; one with seed 0 if ``None``.
        progress: show a progress bar, counting pairs (joblib's backends "multiprocessing" and "ray" cannot).
        return_report: return what the comparison found as well.

    Returns:
        A ``csr_array`` ``(n, n)``, or ``(n, m)`` with ``y``, with exactly k entries a row, ascending by distance, in
        ambient units. Equal points have an entry of zero. It is not symmetric, as nearness is not mutual;
        ``graph.maximum(graph.T)`` is. With ``return_report=True``, ``(graph, report)`` with a `GraphReport`.

    Raises:
        ShapeError, DtypeError, NonFiniteError: the points are no finite ``(n, d)``, or a point has fewer than k
            candidates to which a finite straight line leads.
        OptionError: an option is out of its range.

    Cost: n metrics, for each of about 1.5 nk edges four decoded points, eight if it is bent, and
    ``4 n (d² + candidates)`` bytes. Where all metrics have more than 2²⁷ entries, the second step is left out and every
    candidate's edge is measured.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> stretched = torch.nn.Linear(2, 3, bias=False)
        >>> _ = torch.nn.init.constant_(stretched.weight, 0.0)
        >>> stretched.weight.data[0, 0], stretched.weight.data[1, 1] = 1.0, 10.0
        >>> z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
        >>> graph = kneighbors_graph(PullbackManifold(stretched), z, 1, candidates=3)
        >>> graph.indices.tolist(), graph.data.tolist()  # 1 is nearer to 0 than 2 is
        ([1, 0, 0, 1], [2.0, 2.0, 10.0, 3.0])
    """
    where = "kneighbors_graph"
    check_manifold(where, manifold)
    points = as_points(where, z).double()
    targets = points if y is None else as_points(where, y, name="y").double().to(points.device)
    if points.shape[1] != targets.shape[1]:
        raise ShapeError(
            f"{where}: z and y must have the same number of columns, got {tuple(points.shape)} and "
            f"{tuple(targets.shape)}. Both are points of one latent space."
        )
    most = len(targets) - (y is None)
    check_count(where, "n_neighbors", n_neighbors, 1, most)
    if candidates is None:
        candidates = min(4 * n_neighbors, most)
    check_count(where, "candidates", candidates, n_neighbors, most)
    check_count(where, "check_pairs", check_pairs, 0)
    if mode not in ("distance", "connectivity"):
        raise OptionError(f"{where}: mode must be 'distance' or 'connectivity', got {mode!r}.")
    if edges not in ("chord", "geodesic"):
        raise OptionError(f"{where}: edges must be 'chord' or 'geodesic', got {edges!r}.")
    if generator is not None:
        check_generator(where, generator)
    near = _nearest_in_chart(points, targets, candidates)
    if 2 * n_neighbors < candidates and METRICS.fits(len(targets), 4 * targets.shape[1] ** 2):
        near = _nearest_by_metric(manifold, points, targets, near, 2 * n_neighbors)
    pairs = np.stack([np.repeat(np.arange(len(points)), near.shape[1]), near.ravel()], 1)
    if targets is points:
        pairs = np.unique(np.sort(pairs, 1), axis=0)
    lengths = _measured(manifold, points, targets, pairs, edges, progress)
    if targets is points:  # an edge has two ends
        pairs, lengths = np.concatenate([pairs, pairs[:, ::-1]]), np.tile(lengths, 2)
    graph = _nearest(pairs, lengths, (len(points), len(targets)), n_neighbors)
    report = _compared(manifold, points, targets, graph, check_pairs, generator, progress)
    if mode == "connectivity":
        graph.data[:] = 1.0
    return (graph, report) if return_report else graph


def _nearest_in_chart(points: Tensor, targets: Tensor, count: int) -> Int[np.ndarray, "n c"]:
    """For each point the nearest targets; where these are the points themselves, all but itself."""
    n, among_themselves = len(points), targets is points
    wanted = count + among_themselves
    found = nearest("kneighbors_graph", points.numpy(force=True), targets.numpy(force=True), wanted)
    if not among_themselves:
        return found
    own = found == np.arange(n)[:, None]
    # among many equal points a point may not be in its own list: then the last of them leaves
    own[~own.any(1), -1] = True
    return found[~own].reshape(n, count)


def _nearest_by_metric(
    manifold: Manifold, points: Tensor, targets: Tensor, near: np.ndarray, count: int
) -> Int[np.ndarray, "n c"]:
    """Of the candidates those that the metrics of both ends call nearest."""
    space, d = manifold.in_double(), points.shape[1]

    def metric(z: Tensor) -> Tensor:
        # one that is the same everywhere may come without a batch
        with torch.no_grad():
            return space.metric(z).dense().float().expand(len(z), d, d)

    G = torch.cat([metric(z) for (z,) in DERIVED.split(targets)])
    chosen = []
    for part in DERIVED.slices(len(points)):
        own, others = points[part], torch.from_numpy(near[part]).to(points.device)
        step = (targets[others] - own[:, None]).float()
        mean = G[others] + (G[part] if targets is points else metric(own))[:, None]
        squares = torch.einsum("bci,bcij,bcj->bc", step, mean, step)
        squares = torch.where(torch.isfinite(squares), squares, torch.inf)
        chosen.append(others.gather(1, squares.topk(count, dim=1, largest=False).indices))
    return torch.cat(chosen).numpy(force=True)


def _measured(
    manifold: Manifold, points: Tensor, targets: Tensor, pairs: np.ndarray, edges: str, progress: bool
) -> Float64[np.ndarray, " e"]:
    batches = [pairs[part] for part in EDGES.slices(len(pairs))]
    tasks = (delayed(edge_lengths)(manifold, points[batch[:, 0]], targets[batch[:, 1]], edges) for batch in batches)
    sizes = [len(batch) for batch in batches]
    lengths = results("kneighbors_graph", tasks, sizes, unit="pair", progress=progress)
    equal = (points[pairs[:, 0]] == targets[pairs[:, 1]]).all(1).numpy(force=True)
    return np.where(equal, 0.0, np.concatenate(lengths))


def _nearest(pairs: np.ndarray, lengths: np.ndarray, shape: tuple[int, int], count: int) -> csr_array:
    """The shortest edges from each point."""
    finite = np.isfinite(lengths)
    begin, end, length = pairs[finite, 0], pairs[finite, 1], lengths[finite]
    order = np.lexsort((end, length, begin))
    begin, end, length = begin[order], end[order], length[order]
    first = np.searchsorted(begin, np.arange(shape[0] + 1))
    lost = np.flatnonzero(np.diff(first) < count)
    if len(lost):
        raise NonFiniteError(
            f"kneighbors_graph: point {lost[0]} has {np.diff(first)[lost[0]]} neighbours to which a finite straight "
            f"line leads, expected {count}; {len(lost) - 1} other points have too few as well. Drop these points, or "
            "take more candidates."
        )
    keep = np.arange(len(begin)) - first[begin] < count
    return csr_array((length[keep], end[keep], np.arange(shape[0] + 1) * count), shape=shape)


def _compared(
    manifold: Manifold,
    points: Tensor,
    targets: Tensor,
    graph: csr_array,
    count: int,
    generator: torch.Generator | None,
    progress: bool,
) -> GraphReport:
    """Compare a sample of the entries with geodesics."""
    source = generator if generator is not None else torch.Generator().manual_seed(0)
    apart = np.flatnonzero(graph.data > 0)
    sample = apart[torch.randperm(len(apart), generator=source, device=source.device)[:count].numpy(force=True)]
    i, j = sample // graph.indptr[1], graph.indices[sample]
    exact, status = solve_pairs(
        manifold, None, points, targets, i, j, GEODESICS.limit, where="kneighbors_graph, check", progress=progress
    )
    report = GraphReport(np.stack([i, j], 1), graph.data[sample], exact, tuple(status))
    if len(sample):
        _log.info("kneighbors_graph: %s", report)
    return report
