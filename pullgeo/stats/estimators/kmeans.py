"""Clusters around Fréchet means."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.chunking import GEODESICS
from pullgeo.numerics.progress import advance, progress_bar
from pullgeo.stats.arguments import check_count
from pullgeo.stats.estimators.checks import as_array, check_reached, distances, manifold_of, new_points
from pullgeo.stats.frechet import FrechetMean, frechet_mean
from pullgeo.stats.geodesic_distances import solve_pairs
from pullgeo.stats.pairwise import pairwise_distances

TIE = 1e-9
"""Relative difference of distances that makes no centre the nearer one."""


class FrechetKMeans(TransformerMixin, ClusterMixin, BaseEstimator):
    """k-means with geodesic distances and Fréchet means.

    Points go to the nearest centre, centres to the Fréchet means of their points, all groups in one Newton system,
    until no point is nearer to another centre. Distances that cannot be the least, by the triangle inequality and the
    ways that the centres have gone, are not computed again. The first centres are drawn as by k-means++: each with a
    probability in proportion to the squared distance from those before.

    Args:
        manifold: where the points live.
        n_clusters: number of clusters.
        n_init: number of starts; that with the least inertia is kept.
        max_iter: bound on the number of rounds.
        solver: how geodesics are found; ``Newton()`` if ``None``.
        random_state: seed, or numpy random state, for the first centres.
        progress: show a progress bar in `fit`, counting rounds.

    Attributes:
        cluster_centers_: ``(k, d)``.
        labels_: cluster of each training point.
        inertia_: sum of squared distances to the centres.
        n_iter_: rounds of the best start.
        n_features_in_: columns of ``X``.

    Source: Arthur, Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007; Elkan, *Using the triangle
    inequality to accelerate k-means*, ICML 2003.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> X = np.array([[0.0, 0.0], [0.2, 0.0], [3.0, 1.0], [3.2, 1.0]])
        >>> kmeans = FrechetKMeans(PullbackManifold(torch.nn.Identity()), n_clusters=2, random_state=0).fit(X)
        >>> np.sort(kmeans.cluster_centers_, axis=0).round(6).tolist()
        [[0.1, 0.0], [3.1, 1.0]]
    """

    def __init__(
        self,
        manifold: Manifold,
        n_clusters: int = 8,
        *,
        n_init: int = 1,
        max_iter: int = 50,
        solver: Solver | None = None,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.manifold = manifold
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.solver = solver
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> "FrechetKMeans":
        """Find the clusters of points ``(n, d)``.

        Raises:
            OptionError: an option has no meaning, or there are fewer points than clusters.
            NonFiniteError: from a point no geodesic to a centre was found.
        """
        manifold = manifold_of(self)
        X = validate_data(self, as_array(X), dtype=np.float64)
        check_count("FrechetKMeans", "n_init", self.n_init)
        check_count("FrechetKMeans", "max_iter", self.max_iter)
        check_count("FrechetKMeans", f"n_clusters, with n_samples={len(X)},", self.n_clusters, 1, len(X))
        random = check_random_state(self.random_state)
        with progress_bar("FrechetKMeans", self.progress, unit="round"):
            runs = [self._run(manifold, X, random) for _ in range(self.n_init)]
        # not even the least, where a sum of squares is not finite
        best = min(runs, key=lambda run: run[2] if np.isfinite(run[2]) else np.inf)
        self.cluster_centers_, self.labels_, self.inertia_, self.n_iter_ = best
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Distances ``(m, k)`` to the centres; NaN where no geodesic was found."""
        points = new_points(self, X)
        return distances("FrechetKMeans", manifold_of(self), points, self.cluster_centers_, self.solver)

    def predict(self, X: Any) -> np.ndarray:
        """Numbers of the nearest centres."""
        labels: np.ndarray = np.nanargmin(self.transform(X), axis=1)
        return labels

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the sum of squared distances to the nearest centres."""
        return -float(np.square(np.nanmin(self.transform(X), axis=1)).sum())

    def _run(
        self, manifold: Manifold, X: np.ndarray, random: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray, float, int]:
        centers, D = self._seeds(manifold, X, random)
        check_reached("FrechetKMeans", D)
        labels, rounds = np.nanargmin(D, axis=1), 0
        for _ in range(self.max_iter):
            rounds += 1
            advance()
            labels = _no_empty_cluster(labels, np.nanmin(D, axis=1), len(centers))
            # labels need no mean to the last digit: a solver that is named takes no finer steps at the end
            solver = self.solver if self.solver is not None else Newton()
            means = frechet_mean(manifold, X, groups=labels, start=centers, solver=solver)
            before, centers = centers, means.point.numpy(force=True)
            D = self._distances(manifold, X, before, D, means, labels)
            nearest = np.nanargmin(D, axis=1)
            # equal centres are as good as each other: a point changes only for one that is nearer
            near = D[np.arange(len(X)), labels] <= (1 + TIE) * np.nanmin(D, axis=1)
            settled, labels = near | (labels == nearest), nearest
            if settled.all():
                break
        return centers, labels, float(np.square(np.nanmin(D, axis=1)).sum()), rounds

    def _distances(
        self,
        manifold: Manifold,
        X: np.ndarray,
        before: np.ndarray,
        D: np.ndarray,
        means: FrechetMean,
        labels: np.ndarray,
    ) -> np.ndarray:
        """Distances to the centres, or lower bounds of them where these tell that another centre is nearer.

        To its own centre the mean has found each point's geodesic. The distance to another one is no less than it was,
        or than its bound was, less the way which that centre has gone. (Distances are those of the geodesics that the
        solver finds, which keep the triangle inequality where they are shortest.)
        """
        rows = np.arange(len(X))
        centers = means.point.numpy(force=True)
        found = means.geodesics
        own = np.where(found.converged.numpy(force=True), found.length.numpy(force=True), np.nan)
        with torch.no_grad():
            moved = manifold.geodesic(torch.tensor(before), torch.tensor(centers), self.solver)
        way = torch.where(moved.converged, moved.length, torch.inf).numpy(force=True)
        bound = D - way
        bound[rows, labels] = own
        # a bound that is not known is none
        open_ = ~(bound > (1 + TIE) * own[:, None])
        open_[rows, labels] = np.isnan(own)
        i, c = np.nonzero(open_)
        if len(i):
            points, targets = torch.tensor(X), torch.tensor(centers)
            length, _ = solve_pairs(
                manifold, self.solver, points, targets, i, c, GEODESICS.limit, where="FrechetKMeans"
            )
            bound[i, c] = length
        check_reached("FrechetKMeans", bound)
        return bound

    def _seeds(self, manifold: Manifold, X: np.ndarray, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """The first centres, and the distances to them."""
        chosen = [random.randint(len(X))]
        columns = [pairwise_distances(manifold, X, X[chosen[-1:]], solver=self.solver)[:, 0]]
        while len(chosen) < self.n_clusters:
            # a point that no geodesic has reached is not drawn, as long as there is another
            nearest = np.fmin.reduce([np.full(len(X), np.inf), *columns])
            share = np.square(np.where(np.isfinite(nearest), nearest, 0.0))
            share[chosen] = 0
            total = share.sum()
            left = np.setdiff1d(np.arange(len(X)), chosen)
            chosen.append(int(random.choice(len(X), p=share / total) if total > 0 else random.choice(left)))
            columns.append(pairwise_distances(manifold, X, X[chosen[-1:]], solver=self.solver)[:, 0])
        return X[chosen], np.stack(columns, 1)


def _no_empty_cluster(labels: np.ndarray, distance: np.ndarray, count: int) -> np.ndarray:
    """A cluster without points takes the point that is farthest from its centre."""
    labels, distance = labels.copy(), distance.copy()
    for empty in np.setdiff1d(np.arange(count), labels):
        alone = np.bincount(labels, minlength=count)[labels] == 1
        farthest = int(np.where(alone, -1, distance).argmax())
        labels[farthest], distance[farthest] = empty, 0
    return labels
