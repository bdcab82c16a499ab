"""Planes of a latent space."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.viz.explore.slice import Slice


@pytest.fixture
def latents(generator: torch.Generator) -> Tensor:
    return torch.randn(23, 5, generator=generator) * torch.tensor([1.0, 5.0, 0.2, 3.0, 0.5])


def planes(z: Tensor) -> list[Slice]:
    return [
        Slice.of_dims(z, (3, 1)),
        Slice.of_components(z),
        Slice.through(z[:3]),
        Slice.of_dims(z, (0, 4), anchor=z[2]),
    ]


def test_there_and_back(latents: Tensor, generator: torch.Generator) -> None:
    xy = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    for plane in planes(latents):
        assert plane.lift(xy).shape == (7, 5)
        assert np.allclose(plane.project(plane.lift(xy)), xy, atol=1e-12)
        assert np.allclose(plane.distance(plane.lift(xy)), 0, atol=1e-12)
        # projections are the nearest points
        off = latents.double() - plane.lift(torch.from_numpy(plane.project(latents)))
        assert float((off @ plane.axes.T).abs().max()) < 1e-10
        assert np.allclose(plane.distance(latents), off.norm(dim=1))
        assert plane.payload()["words"] == plane.words
        assert "never shorter than the true ones in all 5 dimensions" in plane.words


def test_each_plane_is_the_one_that_it_says(latents: Tensor) -> None:
    z = latents.double()
    dims = Slice.of_dims(latents, (3, 1))
    assert np.allclose(dims.project(latents), z[:, [3, 1]])
    assert torch.allclose(dims.lift(torch.zeros(1, 2))[0, [0, 2, 4]], z.mean(0)[[0, 2, 4]])
    assert dims.names == ("z3", "z1")
    components = Slice.of_components(latents)
    # dimensions 1 and 3 vary most
    assert [int(axis.abs().argmax()) for axis in components.axes] == [1, 3]
    assert torch.allclose(components.axes @ components.axes.T, torch.eye(2, dtype=torch.float64))
    through = Slice.through(latents[:3])
    assert np.allclose(through.distance(latents[:3]), 0, atol=1e-6)
    assert np.allclose(through.project(latents[:2]), [[0, 0], [float((z[1] - z[0]).norm()), 0]], atol=1e-6)


def test_two_latents_are_everything(latents: Tensor) -> None:
    plane = Slice.of_dims(latents[:, :2])
    assert (plane.kind, plane.words) == ("everything", None)
    net = nn.Linear(2, 3).double()
    manifold = PullbackManifold(net)
    assert plane.restrict(manifold).decoder is net
    assert Slice.of_components(latents[:, :2]).words is None


def test_the_restriction_has_the_metric_of_the_plane(latents: Tensor, generator: torch.Generator) -> None:
    net = nn.Sequential(nn.Linear(5, 11), nn.Tanh(), nn.Linear(11, 7))
    xy = torch.randn(13, 2, generator=generator, dtype=torch.float64)

    def weight(z: Tensor) -> Tensor:
        return torch.eye(5, dtype=z.dtype) * (1 + z.square().sum(1))[:, None, None]

    manifolds = [
        PullbackManifold(net),
        PullbackManifold(lambda z: net(z)),
        PullbackManifold(net.forward),
        MetricManifold(weight),
    ]
    for plane in planes(latents):
        for manifold in manifolds:
            whole = manifold.in_double().metric(plane.lift(xy)).dense()
            own = plane.restrict(manifold).metric(xy).dense()
            assert torch.allclose(own, plane.axes @ whole @ plane.axes.T, rtol=1e-9, atol=1e-12)


def test_the_restriction_of_a_distribution_keeps_its_fisher_rao_metric(latents: Tensor) -> None:
    net = nn.Sequential(nn.Linear(5, 11), nn.Tanh(), nn.Linear(11, 7)).double()
    manifold = PullbackManifold(lambda z: td.Bernoulli(logits=net(z)))
    xy = torch.tensor([[0.1, -0.2], [0.4, 0.3], [-0.5, 0.2]], dtype=torch.float64)
    for plane in planes(latents):
        whole = manifold.metric(plane.lift(xy)).dense()  # what the decoder returns is known then
        own = plane.restrict(manifold).metric(xy).dense()
        torch.testing.assert_close(own, plane.axes @ whole @ plane.axes.T)


def test_what_is_no_plane_is_refused(latents: Tensor) -> None:
    with pytest.raises(OptionError, match="two different whole numbers from 0 to 4"):
        Slice.of_dims(latents, (1, 1))
    with pytest.raises(OptionError, match=r"got \(0, 5\)"):
        Slice.of_dims(latents, (0, 5))
    with pytest.raises(ShapeError, match="at least 2 dimensions"):
        Slice.of_dims(latents[:, :1])
    with pytest.raises(ShapeError, match=r"anchor must be one point of shape \(5,\)"):
        Slice.of_dims(latents, (0, 1), anchor=[0.0, 1.0])
    with pytest.raises(NonFiniteError, match="anchor holds NaN"):
        Slice.of_dims(latents, (0, 1), anchor=[float("nan")] * 5)
    with pytest.raises(OptionError, match="lie on a line"):
        Slice.through(torch.stack([latents[0], latents[1], 2 * latents[1] - latents[0]]).double())
    with pytest.raises(OptionError, match="lie on a line"):
        Slice.through(latents[[0, 0, 1]])
    with pytest.raises(ShapeError, match="three points"):
        Slice.through(latents[:2])
    with pytest.raises(ShapeError, match="more than 2 latents"):
        Slice.of_components(latents[:2])
    with pytest.raises(OptionError, match="two different whole numbers"):
        Slice.of_components(latents, (0, 7))
    with pytest.raises(NonFiniteError, match="hold NaN"):
        Slice.of_components(torch.full((5, 3), float("nan")))


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("components", lambda z: Slice.of_components(z)),
        ("components: 2, 0", lambda z: Slice.of_components(z, (2, 0))),
        ("dims:3,1", lambda z: Slice.of_dims(z, (3, 1))),
        ("latents:4,0,6", lambda z: Slice.through(z[[4, 0, 6]])),
    ],
)
def test_names_of_planes(latents: Tensor, name: str, same: Callable[[Tensor], Slice]) -> None:
    plane, expected = Slice.named(latents, name), same(latents)
    assert torch.equal(plane.origin, expected.origin)
    assert torch.equal(plane.axes, expected.axes)
    again = Slice.named(latents, plane.name)
    assert (again.name, again.words) == (plane.name, plane.words)
    assert torch.equal(again.axes, plane.axes)
    assert plane.payload()["dimensions"] == 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "got ''"), ("rows", "plane must be"), ("dims", "plane must be"), ("dims:1", "plane must be"),
        ("dims:1,2,3", "plane must be"), ("dims:-1,2", "plane must be"), ("dims:1,1", "two different"),
        ("dims:0,99", "from 0 to 4"), ("components:0,5", "from 0 to 4"), ("latents:0,1,99", "the number 99"),
        ("latents:1,1,2", "lie on a line"), ("dims:٣,1", "plane must be"), ("dims:0," + "9" * 5000, "from 0 to 4"),
    ],
)  # fmt: skip
def test_names_of_no_plane(latents: Tensor, name: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Slice.named(latents, name)


def test_planes_given_by_numbers_have_no_name(latents: Tensor) -> None:
    assert Slice.through(latents[:3]).name is None
    assert Slice.of_dims(latents, anchor=latents[0]).name is None


@pytest.mark.parametrize("name", ["latents:0,1,2", "dims:0,7", "components:1,1"])
def test_a_plane_that_is_named_is_refused_by_its_name(name: str) -> None:
    line = torch.arange(5.0)[:, None] * torch.ones(3)
    with pytest.raises(OptionError, match=f"^plane {name}: "):
        Slice.named(line, name)
