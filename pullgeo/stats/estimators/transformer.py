"""Points to their sparse graph of nearest neighbours."""

from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data

from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_count
from pullgeo.stats.estimators.checks import as_array, manifold_of, new_points
from pullgeo.stats.kneighbors import kneighbors_graph


class GeodesicNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Points to the sparse graph of their nearest neighbours along geodesics; see `kneighbors_graph`.

    It stands where scikit-learn's ``KNeighborsTransformer`` does: in front of whatever takes a sparse matrix of
    distances with ``metric="precomputed"``, as ``make_pipeline(GeodesicNeighborsTransformer(manifold), DBSCAN(...))``,
    and in ``scanpy.pp.neighbors(adata, use_rep="X_vae", transformer=GeodesicNeighborsTransformer(manifold))``.

    Args:
        manifold: where the points live.
        n_neighbors: k, less than the number of points.
        mode: ``"distance"`` or, with ones for entries, ``"connectivity"``. As in scikit-learn, rows have k + 1 entries,
            of which the first of a point that the transformer was fitted to is the point itself.
        candidates: points that are looked at for each point; ``4 n_neighbors`` if ``None``.
        edges: ``"chord"``, or ``"geodesic"`` to solve for the geodesics to the neighbours.
        progress: show a progress bar, counting pairs.

    Attributes:
        n_samples_fit_: how many points it is fitted to: the columns of the graph.
        n_features_in_: columns of ``X``.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> X = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [6.0, 0.0]])
        >>> graph = GeodesicNeighborsTransformer(PullbackManifold(torch.nn.Identity()), n_neighbors=1).fit_transform(X)
        >>> graph.toarray()[:, :2].tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    """

    def __init__(
        self,
        manifold: Manifold,
        n_neighbors: int = 15,
        *,
        mode: Literal["distance", "connectivity"] = "distance",
        candidates: int | None = None,
        edges: Literal["chord", "geodesic"] = "chord",
        progress: bool = False,
    ) -> None:
        self.manifold = manifold
        self.n_neighbors = n_neighbors
        self.mode = mode
        self.candidates = candidates
        self.edges = edges
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> "GeodesicNeighborsTransformer":
        """Keep the points among which neighbours are sought.

        Raises:
            OptionError: ``n_neighbors`` is not a whole number from 1 up.
        """
        manifold_of(self)
        check_count("GeodesicNeighborsTransformer", "n_neighbors", self.n_neighbors)
        self._X = validate_data(self, as_array(X), dtype=np.float64)
        self.n_samples_fit_ = self._n_features_out = len(self._X)
        return self

    def transform(self, X: Any) -> csr_matrix:
        """The nearest fitted points to each row of ``X``, as a matrix ``(m, n_samples_fit_)``.

        Raises:
            OptionError: an option is out of its range, or there are not more than ``n_neighbors`` fitted points.
            NonFiniteError: a point has too few neighbours to which a finite straight line leads.
        """
        points = new_points(self, X)
        options = {**self._options, "n_neighbors": self.n_neighbors + 1}
        return csr_matrix(kneighbors_graph(self.manifold, points, y=self._X, check_pairs=0, **options))

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> csr_matrix:
        """The graph of the points themselves; each row begins with its own point.

        Raises:
            OptionError, NonFiniteError: as `transform`.
        """
        n = self.fit(X).n_samples_fit_
        graph = kneighbors_graph(self.manifold, self._X, check_pairs=0, **self._options)
        own = np.zeros((n, 1)) if self.mode == "distance" else np.ones((n, 1))
        entries = np.hstack([own, graph.data.reshape(n, -1)])
        columns = np.hstack([np.arange(n)[:, None], graph.indices.reshape(n, -1)])
        pointers = np.arange(n + 1) * entries.shape[1]
        return csr_matrix((entries.ravel(), columns.ravel(), pointers), shape=(n, n))

    @property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("n_neighbors", "mode", "candidates", "edges", "progress")}
