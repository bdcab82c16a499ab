"""Distance computations that are interrupted and go on."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, pairwise_distances
from pullgeo.errors import DataError, OptionError
from pullgeo.testing.charts import StereographicSphere

COARSE = Newton(segments=2)
MANIFOLD = PullbackManifold(StereographicSphere(3))


class Breaking(PullbackManifold):
    """Fails when it has solved some batches, as a power cut would."""

    left = 2

    def geodesic(self, z0, z1, solver=None):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().geodesic(z0, z1, solver)


def points(generator: torch.Generator) -> torch.Tensor:
    return 0.6 * torch.randn(5, 3, dtype=torch.float64, generator=generator)


def test_what_was_interrupted_is_not_computed_again(generator: torch.Generator, tmp_path: Path):
    z = points(generator)
    broken = Breaking(StereographicSphere(3))
    with pytest.raises(KeyboardInterrupt):
        pairwise_distances(broken, z, solver=COARSE, batch_size=3, cache=tmp_path / "new" / "folder")
    broken.left = 2  # four batches in all
    D, status = pairwise_distances(
        broken, z, solver=COARSE, batch_size=3, cache=tmp_path / "new" / "folder", return_status=True
    )
    assert broken.left == 0
    whole, whole_status = pairwise_distances(MANIFOLD, z, solver=COARSE, batch_size=3, return_status=True)
    np.testing.assert_array_equal(D, whole)
    np.testing.assert_array_equal(status, whole_status)
    np.testing.assert_array_equal(
        pairwise_distances(broken, z, solver=COARSE, batch_size=3, cache=tmp_path / "new" / "folder"), whole
    )


@pytest.mark.parametrize("progress", [False, True])
def test_an_interrupt_says_what_is_kept(generator: torch.Generator, tmp_path: Path, progress: bool):
    z, calls, last = points(generator), 0, None
    decoder = StereographicSphere(3)

    def pressed(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return decoder(x)

    manifold = PullbackManifold(pressed)
    whole = pairwise_distances(manifold, z, solver=COARSE, batch_size=3)
    options = {"solver": COARSE, "batch_size": 3, "cache": tmp_path, "progress": progress}
    last = calls + calls // 2
    with pytest.raises(KeyboardInterrupt) as caught:
        pairwise_distances(manifold, z, **options)
    files = len(list(tmp_path.glob("batch-*.npz")))
    assert 0 < files < 4
    (note,) = caught.value.__notes__
    assert note == (
        f"pairwise_distances: interrupted. {3 * files} of 10 pairs are kept in cache {tmp_path}; the same call goes on "
        "from there."
    )
    np.testing.assert_array_equal(pairwise_distances(manifold, z, **options), whole)


@pytest.mark.full
@pytest.mark.heavy
def test_a_killed_process_loses_nothing_but_its_batch(tmp_path: Path):
    script = textwrap.dedent(
        """
        import sys
        import numpy as np, torch
        from pullgeo import Newton, PullbackManifold, pairwise_distances
        from pullgeo.testing.charts import StereographicSphere

        torch.set_num_threads(1)
        z = 0.6 * torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        D = pairwise_distances(PullbackManifold(StereographicSphere(3)), z, solver=Newton(segments=2), batch_size=3,
                               cache=sys.argv[1])
        np.save(sys.argv[2], D)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), str(tmp_path / "D.npy")]
    process = subprocess.Popen(command, env=dict(os.environ))
    while len(list(tmp_path.glob("cache/batch-*.npz"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "D.npy").exists()
    kept = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("cache/batch-*.npz")}
    assert 2 <= len(kept) < 19
    z = 0.6 * torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = Newton(segments=2)
    resumed = pairwise_distances(MANIFOLD, z, solver=solver, batch_size=3, cache=tmp_path / "cache")
    np.testing.assert_array_equal(resumed, pairwise_distances(MANIFOLD, z, solver=solver, batch_size=3))
    assert all((tmp_path / "cache" / name).stat().st_mtime_ns == when for name, when in kept.items())


def test_a_damaged_file_is_computed_again(generator: torch.Generator, tmp_path: Path):
    z = points(generator)
    D = pairwise_distances(MANIFOLD, z, solver=COARSE, batch_size=3, cache=tmp_path)
    (tmp_path / "batch-0000001.npz").write_bytes(b"half a fi")
    np.testing.assert_array_equal(D, pairwise_distances(MANIFOLD, z, solver=COARSE, batch_size=3, cache=tmp_path))


def test_unconverged_pairs_are_remembered_as_such(generator: torch.Generator, tmp_path: Path):
    z, solver = points(generator), Newton(segments=2, max_steps=1, tol=1e-15)
    first = pairwise_distances(MANIFOLD, z, solver=solver, cache=tmp_path, return_status=True)
    again = pairwise_distances(MANIFOLD, z, solver=solver, cache=tmp_path, return_status=True)
    assert np.isnan(again[0]).any()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("what", ["points", "targets", "manifold", "solver", "batch_size"])
def test_other_computations_are_not_mixed_in(what: str, generator: torch.Generator, tmp_path: Path):
    z = points(generator)
    arguments = {"manifold": MANIFOLD, "z": z, "y": z[:2] + 1, "solver": COARSE, "batch_size": 3, "cache": tmp_path}
    pairwise_distances(**arguments)
    other = {
        "points": {"z": z + 1e-12},
        "targets": {"y": None},
        "manifold": {"manifold": PullbackManifold(StereographicSphere(3, radius=1 + 1e-6))},
        "solver": {"solver": Newton(segments=2, tol=1e-9)},
        "batch_size": {"batch_size": 2},
    }[what]
    with pytest.raises(DataError, match=f"holds a computation with other .*{what}"):
        pairwise_distances(**(arguments | other))


def test_folders_that_cannot_be_used(generator: torch.Generator, tmp_path: Path):
    z = points(generator)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Name a folder"):
        pairwise_distances(MANIFOLD, z, cache=tmp_path / "file")
    (tmp_path / "batch-0000000.npz").write_bytes(b"")
    with pytest.raises(DataError, match="Empty it"):
        pairwise_distances(MANIFOLD, z, cache=tmp_path)
    with pytest.raises(OptionError, match="cache is for method='exact'"):
        pairwise_distances(MANIFOLD, z, method="graph", cache=tmp_path)
