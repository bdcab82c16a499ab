"""geoopt's contract: shapes that broadcast, and points of a decoder's manifold that train."""

import geoopt
import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold

D = 2


def manifold() -> PullbackManifold:
    torch.manual_seed(0)
    return PullbackManifold(nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 5)).double())


def randn(*shape: int, seed: int = 0) -> Tensor:
    return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("x_shape", "u_shape"), [((D,), (D,)), ((D,), (5, D)), ((3, D), (D,)), ((3, 1, D), (5, D))])
def test_points_and_tangents_broadcast(x_shape: tuple[int, ...], u_shape: tuple[int, ...]) -> None:
    space = manifold()
    x, u, v = randn(*x_shape), randn(*u_shape, seed=1), randn(*u_shape, seed=2)
    wide = torch.broadcast_shapes(x_shape, u_shape)
    rows_x, rows_u, rows_v = (t.expand(wide).reshape(-1, D) for t in (x, u, v))
    lead = wide[:-1]
    with torch.no_grad():
        for name, given, rows in (
            ("inner", (x, u, v), (rows_x, rows_u, rows_v)),
            ("norm", (x, u), (rows_x, rows_u)),
            ("component_inner", (x, u, v), (rows_x, rows_u, rows_v)),
            ("egrad2rgrad", (x, u), (rows_x, rows_u)),
            ("retr", (x, u), (rows_x, rows_u)),
            ("expmap", (x, u), (rows_x, rows_u)),
            ("sectional_curvature", (x, u, v), (rows_x, rows_u, rows_v)),
            ("second_fundamental_form", (x, u, v), (rows_x, rows_u, rows_v)),
        ):
            value, expected = getattr(space, name)(*given), getattr(space, name)(*rows)
            assert value.shape == (*lead, *expected.shape[1:]), name
            torch.testing.assert_close(value.reshape(expected.shape), expected, msg=name)
        for name in ("inner", "norm"):
            assert getattr(space, name)(x, u, keepdim=True).shape == (*lead, 1)


def test_distances_logarithms_and_transport_broadcast() -> None:
    space = manifold()
    x, v = randn(D), randn(3, D, seed=2)
    y = x + 0.2 * randn(3, D, seed=1)
    with torch.no_grad():
        for name, given, rows in (
            ("dist2", (x, y), (x.expand(3, -1), y)),
            ("logmap", (x, y.reshape(3, 1, D)), (x.expand(3, -1), y)),
            ("transp", (x, y, v), (x.expand(3, -1), y, v)),
        ):
            value, expected = getattr(space, name)(*given), getattr(space, name)(*rows)
            torch.testing.assert_close(value.reshape(expected.shape), expected, rtol=1e-7, atol=1e-9, msg=name)
        assert space.dist(x, y, keepdim=True).shape == space.dist2(x, y, keepdim=True).shape == (3, 1)
        torch.testing.assert_close(space.dist2(x, y), space.dist(x, y) ** 2)
    # geoopt's own tests of a point and a tangent
    assert space.check_point_on_manifold(x)
    assert space.check_vector_on_tangent(x, v[0])
    assert not space.check_point_on_manifold(torch.full((D,), torch.nan))


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_point_trains_towards_another_by_geodesic_distance(kind: str) -> None:
    space = manifold()
    target, begin = torch.tensor([[[0.8, -0.6]], [[-0.7, 0.9]]], dtype=torch.float64)
    z = geoopt.ManifoldParameter(begin, manifold=space)
    # Adam's steps are as long as the learning rate, in the manifold's metric, whatever the gradient
    optimiser = {"adam": geoopt.optim.RiemannianAdam, "sgd": geoopt.optim.RiemannianSGD}[kind]
    optimiser = optimiser([z], lr=0.05 if kind == "adam" else 0.4)
    distances = []
    for _ in range(15):
        optimiser.zero_grad()
        distance = space.dist(z, target)
        distance.square().sum().backward()
        optimiser.step()
        distances.append(float(distance.detach()))
    assert distances[-1] < (0.4 if kind == "adam" else 1e-4) * distances[0]


def test_riemannian_descent_does_not_depend_on_the_chart() -> None:
    # one step of gradient descent through a linear change of the latent space ends at the same point to first order
    space = manifold()
    A = torch.tensor([[3.0, 0.4], [-0.2, 0.1]], dtype=torch.float64)
    change = nn.Linear(D, D, bias=False).double()
    with torch.no_grad():
        change.weight.copy_(A)
    other = PullbackManifold(nn.Sequential(change, space.decoder))
    goal = space.decode(randn(1, D, seed=3)).detach()
    ends = []
    for chart, z0 in ((space, randn(1, D) @ A.mT), (other, randn(1, D))):
        z = geoopt.ManifoldParameter(z0, manifold=chart)
        optimiser = geoopt.optim.RiemannianSGD([z], lr=0.05)
        (chart.decode(z) - goal).square().sum().backward()
        optimiser.step()
        ends.append(z.detach())
    torch.testing.assert_close(ends[0], ends[1] @ A.mT)


def test_a_factor_of_geoopt_s_product() -> None:
    space, sphere = manifold(), geoopt.Sphere()
    product = geoopt.ProductManifold((space, D), (geoopt.Euclidean(), 3), (sphere, 3))
    x = product.projx(randn(5, D + 6))
    u = 0.2 * product.proju(x, randn(5, D + 6, seed=1))
    y = product.expmap(x, u).detach()
    torch.testing.assert_close(y[:, :D], space.expmap(x[:, :D], u[:, :D]))
    torch.testing.assert_close(product.logmap(x, y), u, rtol=1e-7, atol=1e-9)
    parts = [space.dist(x[:, :D], y[:, :D]), u[:, D : D + 3].norm(dim=1), sphere.dist(x[:, -3:], y[:, -3:])]
    torch.testing.assert_close(product.dist(x, y), torch.stack(parts).norm(dim=0), rtol=1e-5, atol=0)
    torch.testing.assert_close(product.inner(x, u, u), torch.stack(parts).square().sum(0), rtol=1e-5, atol=0)
    point = geoopt.ManifoldParameter(x.clone(), manifold=product)
    optimiser = geoopt.optim.RiemannianAdam([point], lr=0.05)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = product.dist(point, y).square().sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_rows_of_a_table_train_by_themselves() -> None:
    space, table = manifold(), randn(7, D)
    sparse = nn.Embedding(7, D, sparse=True).double()
    sparse.weight = geoopt.ManifoldParameter(table.clone(), manifold=space)
    rows = torch.tensor([1, 4, 5])
    dense = geoopt.ManifoldParameter(table[rows], manifold=space)
    for values, optimiser in (
        (lambda: sparse(rows), geoopt.optim.SparseRiemannianAdam([sparse.weight], lr=0.1)),
        (lambda: dense, geoopt.optim.RiemannianAdam([dense], lr=0.1)),
    ):
        space.decode(values()).square().sum().backward()
        optimiser.step()
    others = torch.tensor([0, 2, 3, 6])
    torch.testing.assert_close(sparse.weight[others].detach(), table[others], rtol=0, atol=0)
    torch.testing.assert_close(sparse.weight[rows].detach(), dense.detach())
    assert bool((dense.detach() != table[rows]).any(1).all())
