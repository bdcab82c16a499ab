"""Maps of what a latent space has everywhere."""

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, viz
from pullgeo.errors import OptionError, ShapeError
from pullgeo.manifold import Ensemble, MeanAndDeviation

BOX = ((-1.0, 1.5), (-0.5, 2.0))
Z = torch.randn(11, 2, generator=torch.Generator().manual_seed(3)).double()


def saddle(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z, z[:, :1] * z[:, 1:]], 1)


def drawn(layer, manifold=None, z=Z, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nodes and the values that the map shows."""
    options = {"extent": BOX, "resolution": 7, **options}
    (trace,) = viz.layer_map(manifold or PullbackManifold(saddle), z, layer, **options).data
    x, y = np.meshgrid(trace.x, trace.y)
    return x, y, trace.customdata


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_saddle(dtype):
    """(x, y, xy): G = 1 + (y, x)(y, x)ᵀ, det G = 1 + x² + y², K = -1/(det G)²."""
    z = Z.to(dtype)
    x, y, volume = drawn("log_volume", z=z)
    det = 1 + x**2 + y**2
    assert (x.min(), x.max(), y.min(), y.max()) == (-1, 1.5, -0.5, 2)
    np.testing.assert_allclose(volume, np.log(det) / 2, atol=1e-9)
    np.testing.assert_allclose(drawn("condition", z=z)[2], np.log10(det), atol=1e-9)
    np.testing.assert_allclose(drawn("gauss", z=z)[2], -(det**-2), atol=1e-9)
    np.testing.assert_allclose(drawn("scalar", z=z)[2], -2 * det**-2, atol=1e-9)


def test_distances_on_a_plane_are_those_of_its_matrix():
    A = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, -1.0]]).double()
    manifold = PullbackManifold(lambda z: z @ A.T.to(z))
    x, y, values = drawn("distance", manifold, point=[0.5, -0.25], resolution=4)
    expected = np.linalg.norm(np.stack([x - 0.5, y + 0.25], -1) @ A.T.numpy(), axis=-1)
    np.testing.assert_allclose(values, expected, atol=1e-7)
    np.testing.assert_allclose(
        drawn("distance", manifold, point=2, resolution=3)[2],
        np.linalg.norm(
            (np.stack(drawn("distance", manifold, point=2, resolution=3)[:2], -1) - Z[2].numpy()) @ A.T.numpy(), axis=-1
        ),
        atol=1e-7,
    )


def test_distances_that_were_not_found_are_gaps():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()
    *_, values = drawn(
        "distance", PullbackManifold(net), point=[0, 0], resolution=4, solver=Newton(max_steps=1, tol=1e-15)
    )
    assert np.isnan(values).any()


def test_uncertainty_is_that_of_the_decoder():
    deviation = torch.nn.Linear(2, 3).double()
    manifold = PullbackManifold(MeanAndDeviation(saddle, lambda z: deviation(z).exp()))
    x, y, values = drawn("uncertainty", manifold)
    z = torch.from_numpy(np.stack([x, y], -1))
    np.testing.assert_allclose(values, deviation(z).exp().square().mean(-1).sqrt().detach(), rtol=1e-9)
    members = [lambda z: z @ torch.ones(2, 3).to(z), lambda z: -z @ torch.ones(2, 3).to(z)]
    x, y, values = drawn("uncertainty", PullbackManifold(Ensemble(members)))
    np.testing.assert_allclose(values, abs(x + y) * 2**0.5, atol=1e-9)


def test_density_sums_to_one():
    *_, values = drawn("density", z=torch.randn(300, 2).double(), extent=((-8, 8), (-8, 8)), resolution=81)
    assert values.sum() * (16 / 80) ** 2 == pytest.approx(1, abs=1e-3)


def test_a_function_of_points_is_a_layer_of_its_own():
    figure = viz.layer_map(
        PullbackManifold(saddle), Z, lambda z: z[:, 0] - z[:, 1], extent=BOX, resolution=5, label="x − y"
    )
    (trace,) = figure.data
    np.testing.assert_allclose(trace.customdata, np.subtract(*np.meshgrid(trace.x, trace.y)))
    assert trace.colorbar.title.text == "x − y"


def test_places_without_a_value_stay_empty():
    def half(z):
        return saddle(torch.where(z[:, :1] > 0, torch.nan, z))

    for layer in ("log_volume", "condition", "gauss"):
        x, _, values = drawn(layer, PullbackManifold(half))
        assert (np.isnan(values) == (x > 0)).all()
    *_, values = drawn("log_volume", PullbackManifold(lambda z: z[:, :1].repeat(1, 3)))
    assert np.isnan(values).all()


def test_a_plane_of_more_latents():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()
    z = torch.randn(7, 3).double()
    plane = viz.Slice.through(z[:3])
    manifold = PullbackManifold(net)
    x, y, values = drawn("log_volume", manifold, z=z, plane=plane)
    at = plane.lift(torch.from_numpy(np.stack([x, y], -1))).reshape(-1, 3)
    np.testing.assert_allclose(values.ravel(), manifold.log_volume(at).detach(), rtol=1e-9)
    *_, gauss = drawn("gauss", manifold, z=z, plane=plane)
    u, v = (axis.expand(49, 3) for axis in plane.axes)
    np.testing.assert_allclose(gauss.ravel(), manifold.sectional_curvature(at, u, v).detach(), rtol=1e-6)
    figure = viz.layer_map(manifold, z, plane=plane, resolution=3)
    assert figure.layout.xaxis.title.text == plane.names[0]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layer": "curvature"}, OptionError, "layer must be one of log_volume"),
        ({"layer": 3}, OptionError, "layer must be one of"),
        ({"layer": "distance"}, OptionError, "point="),
        ({"layer": "distance", "point": 11}, OptionError, "0 to 10"),
        ({"layer": "distance", "point": [0, 0, 0]}, ShapeError, "point must have shape"),
        ({"layer": "uncertainty"}, OptionError, "MeanAndDeviation"),
        ({"resolution": 1}, OptionError, "resolution"),
        ({"resolution": 2.5}, OptionError, "resolution"),
        ({"extent": ((1, 0), (0, 1))}, OptionError, "extent"),
        ({"layer": lambda z: z}, ShapeError, "a layer maps points"),
        ({"plane": viz.Slice.of_dims(torch.randn(4, 3))}, ShapeError, "plane lies in 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, error, words, without_type_checks):
    with pytest.raises(error, match=words):
        viz.layer_map(PullbackManifold(saddle), Z, **options)
    with pytest.raises(OptionError, match="no density"):
        viz.layer_map(PullbackManifold(saddle), Z[:2], "density")
