"""Manifolds of one's own."""

import pytest
import torch
from torch import Tensor

from pullgeo import MetricManifold
from pullgeo.geodesic import DiscreteEnergy, QuadraticModel
from pullgeo.geodesic.energy.segment import SegmentEnergy
from pullgeo.manifold import Manifold
from pullgeo.metric import Dense, Metric


def half_plane(z: Tensor) -> Tensor:
    return torch.eye(2, dtype=z.dtype) / z[:, 1].square()[:, None, None]


GIVEN = MetricManifold(half_plane)


def squared_length(a: Tensor, b: Tensor) -> Tensor:
    return (b - a).square().sum(1) / (a[:, 1] * b[:, 1])


class HalfPlane(Manifold):
    """All that a manifold states besides its energy."""

    name = "half-plane"

    def metric(self, z: Tensor) -> Metric:
        return Dense(half_plane(z))

    def connection(self, z: Tensor, u: Tensor, w: Tensor) -> Tensor:
        return GIVEN.connection(z, u, w)

    def in_double(self) -> "HalfPlane":
        return self


def pairs() -> tuple[Tensor, Tensor]:
    z = torch.rand(2, 3, 2, dtype=torch.float64) + torch.tensor([0.0, 0.5])
    return z[0], z[1]


def distance(x: Tensor, y: Tensor) -> Tensor:
    return torch.acosh(1 + (y - x).square().sum(1) / (2 * x[:, 1] * y[:, 1]))


def test_a_manifold_states_its_energy_by_an_object() -> None:
    class Stated(HalfPlane):
        def discretise(self) -> DiscreteEnergy:
            return SegmentEnergy(squared_length)

    x, y = pairs()
    torch.testing.assert_close(Stated().dist(x, y), distance(x, y), rtol=1e-6, atol=0)


@pytest.mark.parametrize("slope", [False, True])
def test_methods_instead_of_the_object_warn_and_work(slope: bool) -> None:
    called = []
    with pytest.warns(DeprecationWarning, match="Old: a manifold now states its discrete energy by discretise"):

        class Old(HalfPlane):
            def energy(self, nodes: Tensor) -> Tensor:
                return SegmentEnergy(squared_length).energy(nodes)

            def expand_energy(self, nodes: Tensor) -> QuadraticModel:
                return SegmentEnergy(squared_length).expand_energy(nodes)

            def chord_lengths(self, layers: Tensor) -> Tensor:
                return SegmentEnergy(squared_length).chord_lengths(layers)

    class Sloped(Old):
        def slope(self, nodes: Tensor):
            called.append(len(nodes))
            return super().slope(nodes)

    x, y = pairs()
    manifold = Sloped() if slope else Old()
    torch.testing.assert_close(manifold.dist(x, y), distance(x, y), rtol=1e-6, atol=0)
    assert bool(called) == slope
    energy = manifold.discretise()
    nodes = torch.stack([x, (x + y) / 2, y], 1)
    torch.testing.assert_close(energy.energy(nodes), manifold.energy(nodes))
    torch.testing.assert_close(energy.chord_lengths(nodes.unsqueeze(2)), manifold.chord_lengths(nodes.unsqueeze(2)))


def test_a_manifold_without_an_energy() -> None:
    with pytest.raises(TypeError, match="discretise"):
        HalfPlane()
