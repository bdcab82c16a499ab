"""Paths of a graph that are pulled taut, each by a few steps towards the geodesic."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from joblib import delayed
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.geodesic.descent.quasi_newton import approach
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.geodesic.single_precision import single_precision
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.chunking import DERIVED, GEODESICS, METRICS
from pullgeo.numerics.neighbour_graph import PathGraph
from pullgeo.stats.lengths import exact_enough
from pullgeo.stats.tasks import results

SEGMENTS = 8
"""Of the curves that are pulled taut. Their energies are of fourth order."""


def shortened(
    manifold: Manifold,
    network: PathGraph,
    places: Float[Tensor, "k d"],
    sources: Int[np.ndarray, " n"],
    targets: Int[np.ndarray, " m"],
    lengths: Float64[np.ndarray, "n m"],
    steps: int,
    progress: bool,
) -> Float64[np.ndarray, "n m"]:
    """Lengths of curves that begin as the shortest path between two nodes, or as the straight line if it is shorter.

    No length becomes larger. Where both sets are the same each pair is looked at from one end.

    Args:
        manifold: what measures.
        network: the graph.
        places: where its nodes are.
        sources: nodes, ascending.
        targets: nodes, ascending.
        lengths: of the shortest paths.
        steps: how many are taken with each curve.
        progress: show a bar.

    Cost: for each pair about ``3 T (steps + 2)`` forward passes for T = `SEGMENTS`, and the shortest paths once more;
    for each node one metric.
    """
    pairs = np.argwhere(sources[:, None] < targets if np.array_equal(sources, targets) else sources[:, None] != targets)
    begin, end = sources[pairs[:, 0]], targets[pairs[:, 1]]
    metrics = _metrics(manifold, places)
    known = lengths[pairs[:, 0], pairs[:, 1]]
    parts = list(GEODESICS.slices(len(pairs)))
    tasks = (
        delayed(_shortened)(
            manifold,
            network,
            places,
            _between(metrics, begin[part], end[part]),
            begin[part],
            end[part],
            known[part],
            steps,
        )
        for part in parts
    )
    sizes = [part.stop - part.start for part in parts]
    found = np.concatenate([known[:0], *results("pairwise_distances", tasks, sizes, unit="pair", progress=progress)])
    taut = lengths.copy()
    taut[pairs[:, 0], pairs[:, 1]] = np.fmin(known, found)
    return taut


def _metrics(manifold: Manifold, places: Float[Tensor, "k d"]) -> Float[Tensor, "k d d"]:
    """Metric tensors, NaN where there are none, and the identity where all of them would take too much memory."""
    k, d = places.shape
    if not METRICS.fits(k, places.element_size() * d * d):
        return torch.eye(d, dtype=places.dtype, device=places.device).expand(k, d, d)
    space = manifold.in_double()

    def metric(z: Tensor) -> Tensor:
        # one that is the same everywhere may come without a batch
        return space.metric(z).dense().expand(len(z), d, d)

    with torch.no_grad():
        return torch.cat([where_defined(metric, (d, d), z) for (z,) in DERIVED.split(places)])


def _between(metrics: Tensor, begin: np.ndarray, end: np.ndarray) -> Float[Tensor, "p d d"]:
    return (metrics[begin] + metrics[end]) / 2


def _shortened(
    manifold: Manifold,
    network: PathGraph,
    places: Tensor,
    metric: Tensor,
    begin: np.ndarray,
    end: np.ndarray,
    known: np.ndarray,
    steps: int,
) -> Float64[np.ndarray, " p"]:
    """Lengths of some pairs' curves; NaN or infinite where they are not finite."""
    with torch.no_grad():
        near = single_precision(manifold, manifold.in_double(), places)
        nodes = straight_line(places[begin], places[end], SEGMENTS).nodes
        at = slope(near, nodes)
        around = (~(at.energy.sqrt() <= torch.from_numpy(known).to(at.energy))).nonzero().squeeze(1)
        if len(around):
            chosen = around.numpy(force=True)
            polygons = DiscreteCurve(places[torch.from_numpy(network.corners(begin[chosen], end[chosen])).to(around)])
            other = polygons.at_equal_arcs(polygons.nodes.diff(dim=1).norm(dim=2), SEGMENTS).nodes
            nodes, at = nodes.index_put((around,), other), at.put(around, slope(near, other))
        nodes = approach(near, nodes, at, metric, steps)
        fine = DiscreteCurve(nodes).resample(2 * SEGMENTS).nodes
        return exact_enough(manifold, nodes[:, 0], lambda space, some: _length(space, fine[some])).numpy(force=True)


def _length(space: DiscreteEnergy, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
    """By chords between all nodes and between every second one, extrapolated."""
    fine, coarse = (space.chord_lengths(part.unsqueeze(2)).flatten(1).sum(1) for part in (nodes, nodes[:, ::2]))
    return fine + (fine - coarse) / 3
