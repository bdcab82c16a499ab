"""Distance matrices against closed forms."""

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.cluster import DBSCAN

from pullgeo import Newton, PullbackManifold, Status
from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.stats import pairwise_distances
from pullgeo.testing.charts import StereographicSphere

# Where the point is not how exact the lengths are.
COARSE = Newton(segments=2)


def sphere_points(generator: torch.Generator, n: int = 5) -> torch.Tensor:
    return 0.6 * torch.randn(n, 3, dtype=torch.float64, generator=generator)


def closed_form(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Great circles, by the angle between unit vectors."""
    p, q = (
        torch.cat([2 * v, v.square().sum(1, keepdim=True) - 1], 1) / (v.square().sum(1, keepdim=True) + 1)
        for v in (x, y)
    )
    return torch.acos((p @ q.T).clamp(-1, 1)).numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_a_sphere_has_great_circle_distances(generator: torch.Generator, batch_size: int):
    z = sphere_points(generator, 4)
    D = pairwise_distances(PullbackManifold(StereographicSphere(3)), z, batch_size=batch_size)
    assert D.dtype == np.float64
    np.testing.assert_array_equal(D, D.T)
    np.testing.assert_array_equal(D.diagonal(), 0)
    off = ~np.eye(len(z), dtype=bool)
    np.testing.assert_allclose(D[off], closed_form(z, z)[off], rtol=1e-4)


def test_more_segments_come_closer(generator: torch.Generator):
    z = sphere_points(generator, 4)
    off = ~np.eye(4, dtype=bool)
    exact = closed_form(z, z)[off]
    errors = [
        np.abs(
            pairwise_distances(PullbackManifold(StereographicSphere(3)), z, solver=Newton(segments=T))[off] - exact
        ).max()
        for T in (4, 32)
    ]
    assert errors[1] < errors[0] / 100


def test_from_one_set_to_another(generator: torch.Generator):
    z, y = sphere_points(generator, 3), sphere_points(generator, 5)
    D, status = pairwise_distances(PullbackManifold(StereographicSphere(3)), z, y, batch_size=4, return_status=True)
    np.testing.assert_allclose(D, closed_form(z, y), rtol=1e-4)
    assert status.shape == (3, 5)


@pytest.mark.parametrize("as_array", [True, False])
def test_a_linear_decoder_is_euclidean_in_any_precision(generator: torch.Generator, as_array: bool):
    decoder = torch.nn.Linear(2, 7)
    z = torch.randn(5, 2, generator=generator)
    y = decoder(z).detach().double()
    D = pairwise_distances(PullbackManifold(decoder), z.numpy() if as_array else z)
    np.testing.assert_allclose(D, torch.cdist(y, y).numpy(), atol=1e-6)


def test_equal_points_have_distance_zero_and_are_converged(generator: torch.Generator):
    z = sphere_points(generator, 5)
    z[4] = z[1]
    manifold = PullbackManifold(StereographicSphere(3))
    D, status = pairwise_distances(manifold, z, solver=COARSE, return_status=True)
    assert D[4, 1] == D[1, 4] == 0
    np.testing.assert_allclose(D[4], D[1], rtol=1e-6)
    assert (status == Status.CONVERGED).all()
    np.testing.assert_array_equal(pairwise_distances(manifold, z[:1].repeat(3, 1)), np.zeros((3, 3)))


def test_what_did_not_converge_is_nan_and_says_why(generator: torch.Generator):
    z = sphere_points(generator, 4)
    z[3] = z[0]
    D, status = pairwise_distances(
        PullbackManifold(StereographicSphere(3)), z, solver=Newton(max_steps=1, tol=1e-15), return_status=True
    )
    same = (z[:, None] == z[None]).all(-1).numpy()
    np.testing.assert_array_equal(np.isnan(D), ~same)
    np.testing.assert_array_equal(D[same], 0)
    np.testing.assert_array_equal(status != Status.CONVERGED, ~same)
    assert status[0, 1] is status[1, 0] is Status.MAX_STEPS
    assert "max_steps" in status[0, 1].value


def test_one_point_makes_a_matrix_of_one():
    D, status = pairwise_distances(
        PullbackManifold(StereographicSphere(2)), torch.zeros(1, 2).double(), return_status=True
    )
    assert D.tolist() == [[0.0]]
    assert status.tolist() == [[Status.CONVERGED]]


def test_each_unordered_pair_is_solved_once(generator: torch.Generator):
    class Counting(PullbackManifold):
        solved = 0

        def geodesic(self, z0, z1, solver=None):
            self.solved += len(z0)
            return super().geodesic(z0, z1, solver)

    manifold = Counting(StereographicSphere(3))
    pairwise_distances(manifold, sphere_points(generator, 5), solver=COARSE, batch_size=4)
    assert manifold.solved == 10


def test_no_graph_is_kept_and_no_argument_changed(generator: torch.Generator):
    z = sphere_points(generator, 3).requires_grad_()
    before = z.detach().clone()
    D = pairwise_distances(PullbackManifold(StereographicSphere(3)), z, solver=COARSE)
    assert isinstance(D, np.ndarray)
    assert z.grad is None
    assert torch.equal(z.detach(), before)


def test_a_surrounding_configuration_decides_where_batches_run(generator: torch.Generator):
    z = sphere_points(generator, 4)
    manifold = PullbackManifold(StereographicSphere(3))
    with parallel_config(backend="threading", n_jobs=2):
        D = pairwise_distances(manifold, z, solver=COARSE, batch_size=4)
    np.testing.assert_allclose(D, pairwise_distances(manifold, z, solver=COARSE, batch_size=4), rtol=1e-12)


def test_progress_counts_every_pair_and_is_silent_unless_asked(
    generator: torch.Generator, capsys: pytest.CaptureFixture
):
    manifold, z = PullbackManifold(StereographicSphere(3)), sphere_points(generator, 4)
    pairwise_distances(manifold, z, solver=COARSE)
    assert capsys.readouterr() == ("", "")
    pairwise_distances(manifold, z, solver=COARSE, batch_size=3, progress=True)
    assert "6/6" in capsys.readouterr().err


def test_scikit_learn_takes_the_matrix(generator: torch.Generator):
    near, far = sphere_points(generator, 4) * 0.05, sphere_points(generator, 3) * 0.05 + 1
    D = pairwise_distances(PullbackManifold(StereographicSphere(3)), torch.cat([near, far]), solver=COARSE)
    labels = DBSCAN(eps=0.4, min_samples=2, metric="precomputed").fit_predict(D)
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.usefixtures("without_type_checks")
class TestErrors:
    manifold = PullbackManifold(StereographicSphere(2))

    @pytest.mark.parametrize("batch_size", [0, -3, 2.5, None])
    def test_batch_size(self, batch_size: object):
        with pytest.raises(OptionError, match="batch_size must be a whole number, at least 1"):
            pairwise_distances(self.manifold, torch.zeros(3, 2), batch_size=batch_size)

    def test_shape(self):
        with pytest.raises(ShapeError, match=r"z must have shape \(n, d\), got \(3,\)"):
            pairwise_distances(self.manifold, torch.zeros(3))

    def test_different_spaces(self):
        with pytest.raises(ShapeError, match=r"same number of columns, got \(3, 2\) and \(5, 7\)"):
            pairwise_distances(self.manifold, torch.zeros(3, 2), torch.zeros(5, 7))

    @pytest.mark.parametrize("which", ["z", "y"])
    def test_nan_names_the_row(self, which: str):
        points = {"z": torch.zeros(3, 2), "y": torch.zeros(5, 2)}
        points[which][2, 1] = torch.nan
        with pytest.raises(NonFiniteError, match=f"rows of {which} hold NaN or infinity, the first is row 2"):
            pairwise_distances(self.manifold, **points)
