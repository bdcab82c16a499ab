"""Distance matrices are the same wherever joblib computes them."""

import numpy as np
import pytest
import torch
from joblib import parallel_config

from pullgeo import MetricManifold, Newton, PullbackManifold, pairwise_distances
from pullgeo.manifold import Manifold
from pullgeo.testing.charts import HalfPlane

SOLVER = Newton(segments=4)
Z = torch.linspace(0.3, 2, 14, dtype=torch.float64).square().sin().abs().reshape(7, 2) + 0.5


def no_rule(z: torch.Tensor) -> torch.Tensor:
    """A function, which has no rules and takes forward mode."""
    return torch.cat([z.sin(), z.square() * z.flip(1).cos()], 1)


MANIFOLDS = {
    "rules": PullbackManifold(torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))),
    "forward mode": PullbackManifold(no_rule),
    "given metric": MetricManifold(HalfPlane().metric),
}


@pytest.mark.parametrize("kind", MANIFOLDS)
def test_threads_do_not_disturb_each_other(kind: str):
    manifold = MANIFOLDS[kind]
    alone = pairwise_distances(manifold, Z, solver=SOLVER, batch_size=2)
    with parallel_config(backend="threading", n_jobs=4):
        together = pairwise_distances(manifold, Z, solver=SOLVER, batch_size=2)
    np.testing.assert_array_equal(together, alone)


def distances(manifold: Manifold) -> np.ndarray:
    return pairwise_distances(manifold, Z, solver=SOLVER, batch_size=7)


def test_dask_workers_find_the_same():
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("joblib._dask")
    manifold = MANIFOLDS["rules"]
    with parallel_config(backend="threading", n_jobs=2):
        expected = distances(manifold)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
        parallel_config(backend="dask"),
    ):
        found = distances(manifold)
    np.testing.assert_array_equal(found, expected)
