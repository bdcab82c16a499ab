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
