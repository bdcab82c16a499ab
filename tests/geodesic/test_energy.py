"""Discrete energies: gradient and Hessian against plain autograd, and the systems that they lead to."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.geodesic import block_tridiagonal
from pullgeo.geodesic.block_tridiagonal import BlockTridiagonal
from pullgeo.manifold import Manifold
from pullgeo.metric import Dense
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
    n = (T - 1) * D
    for p in range(P):

        def energy(inner: Tensor, p: int = p) -> Tensor:
            return space.energy(torch.cat([nodes[p, :1], inner.view(T - 1, D), nodes[p, -1:]]).unsqueeze(0)).squeeze(0)

        inner = nodes[p, 1:-1].reshape(-1)
        gradient = torch.autograd.functional.jacobian(energy, inner)
        hessian = torch.autograd.functional.hessian(energy, inner)
        torch.testing.assert_close(at.gradient[p].reshape(-1), gradient, rtol=1e-9, atol=1e-11)
        full = torch.zeros(n, n, dtype=torch.float64)
        for i in range(T - 1):
            full[i * D : (i + 1) * D, i * D : (i + 1) * D] = at.diagonal[p, i]
            if i + 1 < T - 1:
                full[i * D : (i + 1) * D, (i + 1) * D : (i + 2) * D] = at.off_diagonal[p, i]
                full[(i + 1) * D : (i + 2) * D, i * D : (i + 1) * D] = at.off_diagonal[p, i].T
        torch.testing.assert_close(full, hessian, rtol=1e-9, atol=1e-10)


def test_energy_is_the_chords() -> None:
    f, nodes = decoder(), curves()
    expected = torch.zeros(P, dtype=torch.float64)
    for p in range(P):
        for i in range(T):
            expected[p] += T * (f(nodes[p, i + 1]) - f(nodes[p, i])).square().sum().detach()
    torch.testing.assert_close(PullbackManifold(f).energy(nodes).detach(), expected)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_residual_changes_with_no_scale(scale: float) -> None:
    f = decoder()
    residual = PullbackManifold(f).expand_energy(curves()).residual
    scaled = PullbackManifold(lambda z: scale * f(z)).expand_energy(curves()).residual
    torch.testing.assert_close(scaled, residual)
    latent = PullbackManifold(lambda z: f(z / scale)).expand_energy(scale * curves()).residual
    torch.testing.assert_close(latent, residual)


@pytest.mark.parametrize("limit", [0, 1000])
def test_block_tridiagonal_systems(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By block elimination and by one dense factorisation; a system that is not positive definite is told."""
    monkeypatch.setattr(block_tridiagonal, "DENSE_LIMIT", limit)
    generator = torch.Generator().manual_seed(0)
    m, d = 5, 3
    diagonal = torch.randn(P, m, d, d, dtype=torch.float64, generator=generator)
    diagonal = diagonal @ diagonal.mT + 4 * torch.eye(d, dtype=torch.float64)
    off = 0.5 * torch.randn(P, m - 1, d, d, dtype=torch.float64, generator=generator)
    v = torch.randn(P, m, d, dtype=torch.float64, generator=generator)
    system = BlockTridiagonal(diagonal, off)
    x, good = system.cholesky_solve(v)
    assert bool(good.all())
    torch.testing.assert_close(system.matvec(x), v)
    full = torch.zeros(P, m * d, m * d, dtype=torch.float64)
    for i in range(m):
        full[:, i * d : (i + 1) * d, i * d : (i + 1) * d] = diagonal[:, i]
        if i + 1 < m:
            full[:, i * d : (i + 1) * d, (i + 1) * d : (i + 2) * d] = off[:, i]
            full[:, (i + 1) * d : (i + 2) * d, i * d : (i + 1) * d] = off[:, i].mT
    torch.testing.assert_close(x.reshape(P, -1), torch.linalg.solve(full, v.reshape(P, -1)))
    broken = diagonal.clone()
    broken[1, 2] -= 100 * torch.eye(d, dtype=torch.float64)
    assert BlockTridiagonal(broken, off).cholesky_solve(v)[1].tolist() == [True, False, True]
