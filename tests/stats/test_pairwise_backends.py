"""Distances are the same wherever joblib computes them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config

from pullgeo import MetricManifold, Newton, PullbackManifold, pairwise_distances
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


SCRIPT = """
import sys

import numpy as np
import torch
from distributed import Client, LocalCluster
from joblib import parallel_config

from pullgeo import Newton, PullbackManifold, pairwise_distances
from pullgeo.stats import kneighbors_graph


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(2, 7), torch.nn.Linear(7, 5)

    def forward(self, z):
        return self.two(torch.tanh(self.one(z)))


def distances():
    matrix = pairwise_distances(manifold, z, solver=Newton(segments=4), batch_size=7)
    return np.stack([matrix, kneighbors_graph(manifold, z, 3, check_pairs=0).toarray()])


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    manifold, z = PullbackManifold(Decoder()), torch.randn(7, 2)
    found = [distances()]
    with parallel_config(backend="threading", n_jobs=2):
        found.append(distances())
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster), parallel_config(backend="dask"):
        found.append(distances())
    np.save(sys.argv[1], np.stack(found))
"""


@pytest.mark.full
@pytest.mark.heavy
def test_dask_workers_find_the_same(tmp_path: Path):
    # a script of its own: what stands in __main__ is pickled by value, as a notebook's decoder is
    pytest.importorskip("distributed")
    pytest.importorskip("joblib._dask")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    subprocess.run([sys.executable, str(script), str(tmp_path / "found.npy")], check=True, cwd=tmp_path, timeout=280)
    alone, threads, workers = np.load(tmp_path / "found.npy")
    assert np.isfinite(alone).all()
    matrix, neighbours = alone
    assert (matrix > 0).sum() == 42
    assert (neighbours > 0).sum(1).tolist() == 7 * [3]
    np.testing.assert_array_equal(threads, alone)
    np.testing.assert_array_equal(workers, alone)
