"""Discrete energies: gradient and Hessian against plain autograd, and the systems that they lead to."""

import geoopt
import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, Newton, PullbackManifold
from pullgeo.geodesic import DiscreteEnergy
from pullgeo.geodesic.energy.ambient_segment import AmbientSegmentEnergy
from pullgeo.geodesic.energy.chord import ChordEnergy
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.geodesic.energy.segment import SegmentEnergy
from pullgeo.manifold import Manifold, ProjectOnto
from pullgeo.metric import Dense
from pullgeo.numerics.banded import matrix
from pullgeo.numerics.banded.ldl import SideBySide
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.testing.charts import PoincareBall

P, T, D = 3, 5, 2


def decoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 5), nn.Softplus()).double()


def metric() -> Dense:
    root = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return Dense(root @ root.T + torch.eye(5, dtype=torch.float64))


SPACES = {
    "pullback": PullbackManifold(decoder()),
    "pullback of a constant metric": PullbackManifold(decoder(), metric()),
    "given metric": MetricManifold(PoincareBall(D)),
}


def curves() -> Tensor:
    return 0.2 * torch.randn(P, T + 1, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", list(SPACES))
def test_expansion_is_exact(name: str) -> None:
    space: Manifold = SPACES[name]
    nodes = curves()
    at = space.expand_energy(nodes)
    torch.testing.assert_close(at.energy, space.energy(nodes))
    for p in range(P):

        def energy(inner: Tensor, p: int = p) -> Tensor:
            return space.energy(torch.cat([nodes[p, :1], inner.view(T - 1, D), nodes[p, -1:]]).unsqueeze(0)).squeeze(0)

        inner = nodes[p, 1:-1].reshape(-1)
        gradient = torch.autograd.functional.jacobian(energy, inner)
        hessian = torch.autograd.functional.hessian(energy, inner)
        torch.testing.assert_close(at.gradient[p].reshape(-1), gradient, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(at.hessian.dense()[p], hessian, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [*SPACES, "in a ball"])
def test_slope_is_the_first_order(name: str) -> None:
    """Against autograd through the energy; also seen with every second node."""
    ball = geoopt.PoincareBall().double()
    space = SPACES.get(name, PullbackManifold(nn.Sequential(decoder(), ProjectOnto(ball)), ball))
    nodes = torch.cat([curves(), curves()[:, :3].flip(2)], 1)
    x = nodes.clone().requires_grad_()
    energy = space.energy(x)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    with torch.no_grad():
        at = slope(space, nodes)
    torch.testing.assert_close(at.energy, energy.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(at.gradient, gradient[:, 1:-1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(at.coarse_energy, space.energy(nodes[:, ::2]).detach(), rtol=1e-12, atol=0)
    assert not at.energy.requires_grad


def test_slope_of_a_decoder_that_detaches_is_zero() -> None:
    f = decoder()
    at = slope(PullbackManifold(lambda z: f(z).detach()), curves()[:, :5])
    assert bool((at.energy > 0).all())
    assert not at.gradient.any()


@pytest.mark.parametrize("root", [None, torch.randn(5, 7, generator=torch.Generator().manual_seed(4)).double()])
@pytest.mark.parametrize("same", [(), (0,), (0, -1)])
def test_chord_lengths_between_layers(same: tuple[int, ...], root: Tensor | None) -> None:
    """One by one; layers whose points are all the same may be decoded once."""
    f = decoder()
    layers = torch.randn(P, 5, 7, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    for i in same:
        layers[:, i] = layers[:, i, :1]
    with torch.no_grad():
        manifold = PullbackManifold(f, None if root is None else Dense(root @ root.T))
        found = manifold.discretise().chord_lengths(layers)
        values = f(layers.reshape(-1, D)).reshape(P, 5, 7, 5)
        values = values if root is None else values @ root
    for s in range(4):
        for j in range(7):
            for k in range(7):
                expected = (values[:, s, j] - values[:, s + 1, k]).norm(dim=1)
                torch.testing.assert_close(found[:, s, j, k], expected, rtol=1e-10, atol=1e-12)


def test_energy_is_the_chords_and_the_bends_between_them() -> None:
    f, nodes = decoder(), curves()
    expected = torch.zeros(P, dtype=torch.float64)
    for p in range(P):
        y = f(nodes[p]).detach()
        for i in range(T):
            expected[p] += T * (y[i + 1] - y[i]).square().sum()
        for i in range(1, T):
            weight = 1.5 if i in (1, T - 1) else 1.0
            expected[p] += T * weight / 12 * (y[i - 1] - 2 * y[i] + y[i + 1]).square().sum()
    torch.testing.assert_close(PullbackManifold(f).energy(nodes).detach(), expected)


@pytest.mark.parametrize(("name", "order"), [("pullback", 4), ("given metric", 2)])
def test_energy_of_a_curve_is_of_the_order_it_claims(name: str, order: int) -> None:
    space = SPACES[name]

    def energy(segments: int) -> float:
        t = torch.linspace(0, 1, segments + 1, dtype=torch.float64)
        return float(space.energy(torch.stack([0.5 * torch.sin(2 * t), 0.3 * t**2], 1).unsqueeze(0)).detach())

    exact = energy(4096)
    assert (energy(32) - exact) / (energy(64) - exact) == pytest.approx(2**order, rel=0.1)
    assert space.expand_energy(curves()).order == order


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_residual_changes_with_no_scale(scale: float) -> None:
    f = decoder()
    residual = PullbackManifold(f).expand_energy(curves()).residual
    scaled = PullbackManifold(lambda z: scale * f(z)).expand_energy(curves()).residual
    torch.testing.assert_close(scaled, residual)
    latent = PullbackManifold(lambda z: f(z / scale)).expand_energy(scale * curves()).residual
    torch.testing.assert_close(latent, residual)


def test_a_gradient_that_vanishes_with_the_jacobian_is_no_solution() -> None:
    """All inner nodes lie where the decoder is constant, so nothing pulls at them; but the curve jumps at its ends."""
    steps = PullbackManifold(lambda z: torch.relu(z.abs() - 1))
    nodes = torch.linspace(-0.9, 0.9, T + 1, dtype=torch.float64)[None, :, None].repeat(1, 1, D)
    nodes[:, 0], nodes[:, -1] = -2, 2
    assert float(steps.expand_energy(nodes).residual) == torch.inf


def test_rounding_is_seen_coming() -> None:
    """What moves the residual when outputs change by rounding errors is of the size that is announced."""
    f, nodes = decoder(), curves()[:, :1] + 1e-4 * torch.linspace(0, 1, T + 1, dtype=torch.float64)[None, :, None]
    space = PullbackManifold(lambda z: 1e3 + f(z))
    exact = PullbackManifold(f).expand_energy(nodes)
    rounded = space.expand_energy(nodes)
    noise = (rounded.gradient - exact.gradient).flatten(1).norm(dim=1) / exact.gradient.flatten(1).norm(dim=1)
    noise = noise * exact.residual
    assert bool((noise < 10 * rounded.rounding).all())
    assert bool((noise > rounded.rounding / 100).all())


@pytest.mark.parametrize(("limit", "many"), [(0, 100), (1000_000, 100), (0, 1)])
@pytest.mark.parametrize(("m", "d", "bands"), [(7, 3, 3), (8, 2, 3), (5, 3, 2), (1, 2, 3), (2, 3, 3), (6, 2, 1)])
def test_banded_systems(m: int, d: int, bands: int, limit: int, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By elimination, by dense factorisations and row by row; a system that is not positive definite is told."""
    monkeypatch.setattr(matrix, "DENSE_LIMIT", limit)
    monkeypatch.setattr(matrix, "MANY", many)
    generator = torch.Generator().manual_seed(0)
    blocks = [
        torch.randn(P, max(m - k, 0), d, d, dtype=torch.float64, generator=generator) / (k + 1) for k in range(bands)
    ]
    blocks[0] = blocks[0] @ blocks[0].mT + 8 * torch.eye(d, dtype=torch.float64)
    v = torch.randn(P, m, d, dtype=torch.float64, generator=generator)
    full = torch.zeros(P, m * d, m * d, dtype=torch.float64)
    for k, band in enumerate(blocks):
        for i in range(m - k):
            full[:, i * d : (i + 1) * d, (i + k) * d : (i + k + 1) * d] = band[:, i]
            full[:, (i + k) * d : (i + k + 1) * d, i * d : (i + 1) * d] = band[:, i].mT
    system = BlockBanded(tuple(blocks))
    torch.testing.assert_close(system.dense(), full)
    with torch.no_grad():
        factor = system.cholesky()
    assert isinstance(factor, SideBySide) == (many < P)
    assert bool(factor.good.all())
    torch.testing.assert_close(system.matvec(factor.solve(v)), v)
    torch.testing.assert_close(factor.solve(v).reshape(P, -1), torch.linalg.solve(full, v.reshape(P, -1)))
    shift = torch.zeros(P, m, d, dtype=torch.float64)
    shift[1, m // 2] -= 100
    with torch.no_grad():
        shifted = system.shifted(shift)
        factor = shifted.cholesky()
        assert factor.good.tolist() == [True, False, True]
        torch.testing.assert_close(shifted.matvec(factor.solve(v))[::2], v[::2])


def test_energies_are_objects() -> None:
    """Each kind of manifold has one, and solvers take it where no metric or connection is asked for."""
    f = decoder()
    curved = PullbackManifold(f, lambda y: torch.eye(5, dtype=y.dtype) * (2 + y[:, :1].sin()).unsqueeze(2))
    given = MetricManifold(lambda z: torch.eye(D, dtype=z.dtype) * (1 + z.square().sum(1))[:, None, None])
    nodes = curves()[:, :5]
    kinds = {
        ChordEnergy: PullbackManifold(f),
        AmbientSegmentEnergy: curved,
        SegmentEnergy: given,
    }
    for kind, manifold in kinds.items():
        energy = manifold.discretise()
        assert isinstance(energy, kind)
        assert isinstance(energy, DiscreteEnergy)
        torch.testing.assert_close(energy.energy(nodes), manifold.energy(nodes), rtol=0, atol=0)
        with torch.no_grad():
            model, first = energy.expand_energy(nodes), slope(energy, nodes)
        torch.testing.assert_close(model.energy, first.energy)
        torch.testing.assert_close(model.gradient, first.gradient, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(first.coarse_energy, energy.energy(nodes[:, ::2]).detach())
        with torch.no_grad():
            found = Newton(rtol=None).minimise(energy, energy, nodes[:, 0], nodes[:, -1])
            expected = manifold.geodesic(nodes[:, 0], nodes[:, -1], Newton(rtol=None))
        torch.testing.assert_close(found.energy, expected.energy, rtol=1e-9, atol=1e-12)
