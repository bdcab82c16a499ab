"""Curvature against surfaces and spaces whose curvature is known, and against finite differences."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.errors import GeometryError, ShapeError
from pullgeo.manifold import Manifold
from pullgeo.metric import Dense
from pullgeo.testing import oracles
from pullgeo.testing.charts import (
    AngularSphere,
    CategoricalFisherRao,
    Ellipsoid,
    GaussianFisherRao,
    HalfPlane,
    Paraboloid,
    PoincareBall,
    StereographicSphere,
    SwissRoll,
    Torus,
)

B = 3


def sample(d: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z, u, v = torch.randn(3, B, d, dtype=torch.float64, generator=generator)
    return 0.2 * z, u, v


def decoder(d: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(d, 7), nn.Tanh(), nn.Linear(7, 5)).double()


def spd_metric(z: Tensor) -> Tensor:
    """The affine-invariant metric ``tr(P⁻¹ dP P⁻¹ dP)`` in the entries ``(p₁₁, p₁₂, p₂₂)`` of 2 x 2 matrices P."""
    basis = torch.tensor([[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]], dtype=z.dtype)
    turned = torch.linalg.solve(torch.einsum("bk,kij->bij", z, basis).unsqueeze(1), basis)
    return torch.einsum("bkij,blji->bkl", turned, turned)


# manifold, dimension, a shift into the chart, and the curvature of every plane
CONSTANT: dict[str, tuple[Manifold, int, list[float], float]] = {
    "sphere": (PullbackManifold(StereographicSphere(2, 2.0)), 2, [0.0, 0.0], 0.25),
    "sphere 3": (PullbackManifold(StereographicSphere(3)), 3, [0.0, 0.0, 0.0], 1.0),
    "sphere in angles": (PullbackManifold(AngularSphere(3.0)), 2, [1.0, 0.0], 1 / 9),
    "sphere by its metric": (MetricManifold(StereographicSphere(3).metric), 3, [0.0, 0.0, 0.0], 1.0),
    "Poincare ball": (MetricManifold(PoincareBall(3)), 3, [0.0, 0.0, 0.0], -1.0),
    "half-plane": (MetricManifold(HalfPlane()), 2, [0.0, 1.5], -1.0),
    "normal distributions": (MetricManifold(GaussianFisherRao(1)), 2, [0.0, 1.5], -0.5),
    "categorical distributions": (PullbackManifold(CategoricalFisherRao(2)), 2, [0.4, 0.4], 0.25),
    "rolled plane": (PullbackManifold(SwissRoll()), 2, [2.0, 0.0], 0.0),
}


@pytest.mark.parametrize("name", list(CONSTANT))
def test_spaces_of_constant_curvature(name: str) -> None:
    manifold, d, shift, K = CONSTANT[name]
    z, u, v = sample(d)
    z = (0.3 if name == "categorical distributions" else 1) * z + torch.tensor(shift).double()
    G = manifold.metric(z).dense().detach()
    eye = torch.eye(d, dtype=torch.float64)
    riemann = K * (torch.einsum("bjk,li->blijk", G, eye) - torch.einsum("bik,lj->blijk", G, eye))
    close = {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(manifold.sectional_curvature(z, u, v), torch.full((B,), K).double(), **close)
    torch.testing.assert_close(manifold.riemann_tensor(z), riemann, **close)
    torch.testing.assert_close(manifold.ricci(z), (d - 1) * K * G, **close)
    torch.testing.assert_close(manifold.scalar_curvature(z), torch.full((B,), d * (d - 1) * K).double(), **close)


@pytest.mark.parametrize(("chart", "shift"), [(Paraboloid(0.7), 0.5), (Torus(3.0, 2.0), 0.5), (Ellipsoid(), 1.2)])
def test_surfaces_of_varying_curvature(chart: Paraboloid | Torus | Ellipsoid, shift: float) -> None:
    z, u, v = sample(2)
    z = z + shift
    exact = chart.gaussian_curvature(z)
    for manifold in (PullbackManifold(chart), MetricManifold(chart.metric)):
        torch.testing.assert_close(manifold.sectional_curvature(z, u, v), exact, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(manifold.scalar_curvature(z), 2 * exact, rtol=1e-8, atol=1e-10)


def test_torus_at_one_radian() -> None:
    point, axes = torch.tensor([1.0, 0.3]).double(), torch.eye(2).double()
    curvature = PullbackManifold(Torus(3.0, 2.0)).sectional_curvature(point, axes[0], axes[1])
    assert abs(float(curvature) - 0.06620370720483) < 1e-13


def test_positive_definite_matrices() -> None:
    # -¼ tr([X, Y]²) / area for tangents at the identity (Bridson, Haefliger, II.10), carried elsewhere by an isometry
    manifold = MetricManifold(spd_metric)
    identity = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    u = torch.tensor([[1.0, 0.0, -1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([-0.5, 0.0, -0.25], dtype=torch.float64)
    torch.testing.assert_close(manifold.sectional_curvature(identity, u, v), expected, rtol=1e-8, atol=1e-9)
    A = torch.tensor([[1.0, 0.5], [-0.3, 2.0]], dtype=torch.float64)

    def carry(p: Tensor) -> Tensor:
        moved = A @ torch.stack([p[:, :2], p[:, 1:]], 1) @ A.mT
        return torch.stack([moved[:, 0, 0], moved[:, 0, 1], moved[:, 1, 1]], 1)

    there = manifold.sectional_curvature(carry(identity), carry(u), carry(v))
    torch.testing.assert_close(there, expected, rtol=1e-8, atol=1e-9)


def test_decoder_against_finite_differences_of_its_metric() -> None:
    ambient = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    manifold = PullbackManifold(decoder(), Dense(ambient @ ambient.mT + torch.eye(5).double()))
    z, u, v = sample(3)

    def G(p: Tensor) -> Tensor:
        return manifold.metric(p).dense()

    close = {"rtol": 1e-7, "atol": 1e-7}
    with torch.no_grad():
        tensor = manifold.riemann_tensor(z)
        torch.testing.assert_close(tensor, oracles.riemann_tensor(G, z), **close)
        torch.testing.assert_close(manifold.ricci(z), oracles.ricci_tensor(G, z), **close)
        torch.testing.assert_close(manifold.scalar_curvature(z), oracles.scalar_curvature(G, z), **close)
        K = manifold.sectional_curvature(z, u, v)
        torch.testing.assert_close(K, oracles.sectional_curvature(G, z, u, v), **close)
        # symmetries: R_lijk = -R_ljik, the pairs (l, k) and (i, j) exchange, and the first Bianchi identity
        lowered = torch.einsum("bml,blijk->bmijk", G(z), tensor)
        torch.testing.assert_close(lowered, -lowered.transpose(2, 3))
        torch.testing.assert_close(lowered, lowered.permute(0, 2, 1, 4, 3))
        cyclic = tensor + tensor.permute(0, 1, 3, 4, 2) + tensor.permute(0, 1, 4, 2, 3)
        torch.testing.assert_close(cyclic, torch.zeros_like(cyclic))


def test_both_ways_agree_and_ignore_the_pair_that_spans_a_plane() -> None:
    bent = PullbackManifold(decoder())
    given = MetricManifold(lambda z: bent.metric(z).dense())
    z, u, v = sample(3)
    K = bent.sectional_curvature(z, u, v)
    torch.testing.assert_close(given.sectional_curvature(z, u, v), K, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(given.riemann_tensor(z), bent.riemann_tensor(z), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(bent.sectional_curvature(z, 2 * u - v, u + 1e-3 * v), K, rtol=1e-8, atol=1e-10)
    assert bool(torch.isnan(bent.sectional_curvature(z, u, -2 * u)).all())


def test_second_fundamental_form() -> None:
    # on a sphere of radius r, II(u, v) = -⟨u, v⟩ p / r²
    chart = StereographicSphere(3, 2.0)
    manifold = PullbackManifold(chart)
    z, u, v = sample(3)
    expected = -manifold.inner(z, u, v, keepdim=True) * chart(z) / 4
    torch.testing.assert_close(manifold.second_fundamental_form(z, u, v), expected)
    normal = PullbackManifold(decoder()).second_fundamental_form(z, u, v)
    J = oracles.dense_jacobian(decoder(), z)
    torch.testing.assert_close(oracles.vjp(J, normal), torch.zeros(B, 3).double(), rtol=0, atol=1e-13)
    with pytest.raises(GeometryError, match="expected a manifold immersed in a flat space"):
        MetricManifold(HalfPlane()).second_fundamental_form(*(t[:, :2] for t in (z, u, v)))


def test_curvature_scales_and_broadcasts() -> None:
    manifold = PullbackManifold(decoder())
    z, u, v = sample(3)
    scaled = PullbackManifold(decoder(), Dense(4 * torch.eye(5, dtype=torch.float64)))
    torch.testing.assert_close(scaled.sectional_curvature(z, u, v), manifold.sectional_curvature(z, u, v) / 4)
    one = manifold.sectional_curvature(z[0], u, v)
    torch.testing.assert_close(one, manifold.sectional_curvature(z[:1].expand(B, -1), u, v))
    for name in ("riemann_tensor", "ricci", "scalar_curvature", "christoffel"):
        rows = getattr(manifold, name)(z)
        grid = getattr(manifold, name)(z.reshape(1, B, 3))
        torch.testing.assert_close(grid, rows.unsqueeze(0))
        torch.testing.assert_close(getattr(manifold, name)(z[0]), rows[0])
    with pytest.raises(ShapeError, match="tangents must have the points' last dimension"):
        manifold.sectional_curvature(z, u[:, :2], v[:, :2])


@pytest.mark.parametrize("kind", ["immersed", "given"])
def test_curvature_differentiates_to_points_and_weights(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3, bias=False)).double()
    immersed = PullbackManifold(net)
    manifold = immersed if kind == "immersed" else MetricManifold(lambda z: immersed.metric(z).dense())
    z, u, v = (t[:1].requires_grad_() for t in sample(2))

    def curvature(z: Tensor, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        return manifold.sectional_curvature(z, u, v) + manifold.scalar_curvature(z)

    assert torch.autograd.gradcheck(curvature, (z, u, v, net[2].weight))
