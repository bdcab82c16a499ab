"""Curves, connection, curvature, geodesics and transport against closed forms."""

import pytest
import torch

from pullgeo.errors import NonFiniteError, ShapeError
from pullgeo.testing import charts, oracles


def points(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_christoffel_symbols_of_the_half_plane():
    z = points([0.3, 0.7], [-1.0, 2.0], [5.0, 1.3])
    gamma = oracles.christoffel(charts.HalfPlane(), z)
    expected = torch.zeros(3, 2, 2, 2, dtype=torch.float64)
    expected[:, 0, 0, 1] = expected[:, 0, 1, 0] = expected[:, 1, 1, 1] = -1 / z[:, 1]
    expected[:, 1, 0, 0] = 1 / z[:, 1]
    torch.testing.assert_close(gamma, expected, rtol=1e-9, atol=1e-9)


def test_christoffel_symbols_keep_the_metric_parallel():
    # ∂_k G_ij = G_il Γ^l_kj + G_jl Γ^l_ki distinguishes every index of Γ.
    def metric(z):
        root = torch.stack(
            [torch.stack([1 + z[:, 0] ** 2, z[:, 1]], -1), torch.stack([z[:, 0].sin(), 2 + z[:, 1] ** 2], -1)], 1
        )
        return root @ root.mT

    z = points([0.3, 0.7], [-0.4, 0.2], [1.0, -0.3])
    gamma, G = oracles.christoffel(metric, z), metric(z)
    dG = torch.stack([oracles.central_difference(lambda p: metric(p[None])[0], p) for p in z])
    lowered = torch.einsum("bil,blkj->bijk", G, gamma)
    torch.testing.assert_close(lowered + lowered.transpose(1, 2), dG, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_curvature_of_space_forms(radius):
    x = points([0.3, 0.1, -0.4], [0.0, 0.2, 0.5])
    u, v = points([1.0, 0.2, 0.0], [0.3, 1.0, -2.0]), points([0.0, 1.0, 0.5], [1.0, 1.0, 1.0])
    for chart in (charts.StereographicSphere(3, radius), charts.PoincareBall(3, radius)):
        K = oracles.sectional_curvature(chart.metric, x, u, v)
        torch.testing.assert_close(K, torch.full_like(K, chart.curvature), rtol=1e-7, atol=1e-7)
        S = oracles.scalar_curvature(chart.metric, x)
        torch.testing.assert_close(S, torch.full_like(S, 6 * chart.curvature), rtol=1e-7, atol=1e-7)
        ricci = oracles.ricci_tensor(chart.metric, x)
        torch.testing.assert_close(ricci, 2 * chart.curvature * chart.metric(x), rtol=1e-7, atol=1e-7)


def test_riemann_tensor_of_a_sphere_in_every_component():
    # R(X, Y)Z = K (⟨Y, Z⟩X - ⟨X, Z⟩Y)
    chart, x = charts.StereographicSphere(3), points([0.3, 0.1, -0.4])
    G, eye = chart.metric(x), torch.eye(3, dtype=torch.float64)
    expected = torch.einsum("li,bjk->blijk", eye, G) - torch.einsum("lj,bik->blijk", eye, G)
    torch.testing.assert_close(oracles.riemann_tensor(chart.metric, x), expected, rtol=1e-7, atol=1e-7)


def test_empty_batches():
    none = torch.zeros(0, 2)
    assert oracles.christoffel(charts.HalfPlane(), none).shape == (0, 2, 2, 2)
    assert oracles.riemann_tensor(charts.HalfPlane(), none).shape == (0, 2, 2, 2, 2)
    assert oracles.scalar_curvature(charts.HalfPlane(), none).shape == (0,)
    assert oracles.sectional_curvature(charts.HalfPlane(), none, none, none).shape == (0,)


def test_geodesics_and_transport_of_space_forms():
    x, v, w = points([0.3, 0.7], [0.5, 0.4]), points([0.3, -0.2], [-0.25, 0.1]), points([1.0, 2.0], [0.3, -1.0])
    for chart in (charts.StereographicSphere(2), charts.PoincareBall(2), charts.HalfPlane(3.0), charts.AngularSphere()):
        y = chart.expmap(x, v)
        position, velocity = oracles.geodesic_ivp(chart.metric, x, v, rtol=1e-11)
        torch.testing.assert_close(position[:, 0], y, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(velocity[:, 0], chart.transp(x, y, v), rtol=1e-9, atol=1e-9)
        moved = oracles.transport_along_geodesic(chart.metric, x, v, w, rtol=1e-11)
        torch.testing.assert_close(moved, chart.transp(x, y, w), rtol=1e-9, atol=1e-9)


def test_geodesics_at_several_times():
    chart, x, v = charts.HalfPlane(), points([0.0, 1.0]), points([0.0, 1.0])
    t = torch.tensor([0.0, 0.5, 1.0])
    position, _ = oracles.geodesic_ivp(chart, x, v, t)
    expected = torch.stack([torch.zeros(3), t.exp()], dim=-1).double()[None]
    torch.testing.assert_close(position, expected, rtol=1e-7, atol=1e-7)


def test_transport_around_a_circle_of_latitude_turns_by_its_solid_angle():
    theta = 1.0
    chart = charts.AngularSphere()
    moved = oracles.parallel_transport(
        chart.metric, lambda t: points([theta, 2 * torch.pi * t])[0], torch.tensor([1.0, 0.0])
    )
    angle = torch.tensor(2 * torch.pi * torch.cos(torch.tensor(theta)).item())
    # In the orthonormal frame (∂θ, ∂φ/sin θ) the vector turns by -2π cos θ.
    turned = torch.stack([angle.cos(), -angle.sin() / torch.tensor(theta).sin()]).double()
    torch.testing.assert_close(moved, turned, rtol=1e-6, atol=1e-6)


def test_transport_along_any_curve_agrees_with_transport_along_the_geodesic():
    chart, x, v, w = charts.HalfPlane(), points([0.3, 0.7]), points([0.3, -0.2]), points([1.0, 2.0])
    curve = lambda t: chart.expmap(x, t * v)[0]  # noqa: E731
    moved = oracles.parallel_transport(chart, curve, w[0], rtol=1e-7)
    torch.testing.assert_close(moved, chart.transp(x, chart.expmap(x, v), w)[0], rtol=1e-6, atol=1e-6)


def test_a_geodesic_that_leaves_its_chart_is_an_error():
    metric = lambda z: torch.where(z.abs() < 1, torch.ones_like(z), torch.nan)[:, :, None]  # noqa: E731
    with pytest.raises(NonFiniteError, match="leave the chart"):
        oracles.geodesic_ivp(metric, points([0.0]), points([3.0]), rtol=1e-6)


def test_energy_and_length_of_polygons():
    nodes = points([0.0, 0.0], [3.0, 4.0], [3.0, 5.0])[None]
    identity = torch.nn.Identity()
    assert oracles.discrete_energy(identity, nodes).item() == pytest.approx(2 * (25 + 1))
    assert oracles.fine_length(identity, nodes).item() == pytest.approx(6)
    euclid = lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2)  # noqa: E731
    assert oracles.metric_length(euclid, nodes, 10).item() == pytest.approx(6)
    with pytest.raises(ShapeError, match="n >= 2"):
        oracles.fine_length(identity, nodes[:, :1])


def test_length_of_curves_converges_to_the_distance():
    chart = charts.StereographicSphere(2)
    x, v = points([0.3, 0.7], [0.1, 0.4]), points([0.3, -0.2], [-0.25, 0.1])
    curve = lambda t: chart.expmap(x[:, None].expand(2, len(t), 2), t[:, None] * v[:, None])  # noqa: E731
    expected = chart.distance(x, chart.expmap(x, v))
    torch.testing.assert_close(oracles.fine_length(chart, curve, 512), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(oracles.metric_length(chart.metric, curve, 512), expected, rtol=1e-6, atol=0)
    errors = [(oracles.fine_length(chart, curve, n) - expected).abs().max() for n in (8, 16)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    # T times the sum of squares of T equal chords is the square of their sum.
    nodes = curve(torch.linspace(0, 1, 9, dtype=torch.float64))
    polygon = (chart(nodes[:, 1:]) - chart(nodes[:, :-1])).norm(dim=-1).sum(1)
    torch.testing.assert_close(oracles.discrete_energy(chart, nodes), polygon**2)
