"""The closed forms against independent derivatives, lengths and integrators."""

import pytest
import torch

from pullgeo.errors import OptionError, ShapeError
from pullgeo.testing import charts, oracles


def points(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


PLANE = points([0.3, 0.7], [0.5, 0.2], [1.1, 0.4])
W = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype=torch.float64)

MAPS = [
    charts.StereographicSphere(2, 1.5),
    charts.AngularSphere(2.0),
    charts.LinearChart(W, torch.tensor([1.0, 2.0, 3.0]).double()),
    charts.SwissRoll(0.7),
    charts.Paraboloid(1.3),
    charts.Torus(3.0, 2.0),
    charts.Ellipsoid(3.0, 2.0, 1.0),
    charts.BernoulliFisherRao(),
    charts.PoissonFisherRao(),
    charts.CategoricalFisherRao(2),
]
SPACE_FORMS = [
    charts.StereographicSphere(2, 1.5),
    charts.AngularSphere(2.0),
    charts.PoincareBall(2, 0.8),
    charts.HalfPlane(1.2),
]


def name(chart: torch.nn.Module) -> str:
    return type(chart).__name__


@pytest.mark.parametrize("chart", MAPS, ids=name)
def test_the_stated_metric_is_the_pulled_back_one(chart):
    x = PLANE * (0.5 if isinstance(chart, charts.BernoulliFisherRao | charts.CategoricalFisherRao) else 1.0)
    J = oracles.dense_jacobian_fd(chart, x, step=1e-3)
    torch.testing.assert_close(chart.metric(x), oracles.jTmjp(J, None), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "surface", [charts.Paraboloid(1.3), charts.Torus(3.0, 2.0), charts.Ellipsoid(3.0, 2.0, 1.0)], ids=name
)
def test_gaussian_curvature_is_half_the_scalar_curvature(surface):
    expected = oracles.scalar_curvature(surface.metric, PLANE) / 2
    torch.testing.assert_close(surface.gaussian_curvature(PLANE), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    "surface", [charts.Paraboloid(1.3), charts.Torus(3.0, 2.0), charts.Ellipsoid(3.0, 2.0, 1.0)], ids=name
)
def test_stated_invariants_are_constant_along_geodesics(surface):
    velocity = points([0.3, -0.2], [-0.1, 0.5], [0.4, 0.4])
    position, speed = oracles.geodesic_ivp(surface.metric, PLANE, velocity)
    invariant = surface.joachimsthal if isinstance(surface, charts.Ellipsoid) else surface.clairaut
    torch.testing.assert_close(invariant(position[:, 0], speed[:, 0]), invariant(PLANE, velocity), rtol=1e-9, atol=1e-9)
    assert (invariant(position[:, 0], velocity) - invariant(PLANE, velocity)).abs().max() > 1e-3


@pytest.mark.parametrize("chart", SPACE_FORMS, ids=name)
def test_exp_log_distance_and_transport_belong_together(chart):
    x, y = points([0.3, 0.7], [0.2, 0.4], [0.2, 0.6]), points([0.1, 0.2], [0.3, 0.5], [0.2, 0.6])
    v = chart.logmap(x, y)
    torch.testing.assert_close(chart.expmap(x, v), y, rtol=1e-10, atol=1e-10)
    norm = torch.einsum("bi,bij,bj->b", v, chart.metric(x), v).sqrt()
    torch.testing.assert_close(norm, chart.distance(x, y), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(chart.distance(x, y), chart.distance(y, x))
    position, _ = oracles.geodesic_ivp(chart.metric, x, v)
    torch.testing.assert_close(position[:, 0], y, rtol=1e-9, atol=1e-9)
    back = chart.transp(y, x, chart.transp(x, y, v + 1))
    torch.testing.assert_close(back, v + 1, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chart", SPACE_FORMS, ids=name)
def test_embedding_and_its_inverse(chart):
    x = points([0.3, 0.7], [0.1, -0.4 if chart.kappa > 0 else 0.4], [0.2, 0.6])
    torch.testing.assert_close(chart.unembed(chart.embed(x)), x)
    assert chart.curvature == pytest.approx(chart.kappa / chart.radius**2)


def test_known_numbers():
    ball, plane = charts.PoincareBall(2), charts.HalfPlane()
    assert ball.distance(points([0.0, 0.0]), points([0.5, 0.5])).item() == pytest.approx(1.7627471740, abs=1e-10)
    assert plane.distance(points([3.0, 1.0]), points([3.0, 2.0])).item() == pytest.approx(0.6931471806, abs=1e-10)
    assert torch.linalg.det(charts.Paraboloid().metric(points([-2.0, -2.0]))).item() == pytest.approx(33)
    torus = charts.Torus(3.0, 2.0)
    assert torus.gaussian_curvature(points([1.0, 0.3])).item() == pytest.approx(0.06620370720483, abs=1e-14)
    assert charts.BernoulliFisherRao()(points([0.5])).item() == pytest.approx(torch.pi / 2)
    bernoulli = charts.BernoulliFisherRao().distance(points([0.2]), points([0.8])).item()
    assert bernoulli == pytest.approx(1.2870022176, abs=1e-10)
    assert charts.PoissonFisherRao().distance(points([1.0]), points([4.0])).item() == pytest.approx(2)
    normal = charts.GaussianFisherRao()
    e = torch.tensor(1.0, dtype=torch.float64).exp().item()
    assert normal.distance(points([0.0, 1.0]), points([0.0, e])).item() == pytest.approx(2**0.5, abs=1e-12)
    start, end = -torch.linspace(0, 1, 100, dtype=torch.float64)[None], torch.full((1, 100), 0.5, dtype=torch.float64)
    assert charts.StereographicSphere(100).distance(start, end).item() == pytest.approx(0.7104, abs=1e-4)


def test_distance_on_the_sphere_is_accurate_near_and_far():
    chart, origin = charts.StereographicSphere(2), points([0.0, 0.0])
    assert chart.distance(origin, points([1e-9, 0.0])).item() == pytest.approx(2e-9, rel=1e-12)
    far = chart.distance(points([1.0, 0.0]), points([-1.0, 1e-9])).item()
    assert torch.pi - far == pytest.approx(1e-9, rel=1e-6)
    family = charts.CategoricalFisherRao(1)
    near = family.distance(points([0.5]), points([0.5 + 1e-9])).item()
    assert near == pytest.approx(2e-9, rel=1e-6)


@pytest.mark.parametrize("case", ["swiss", "gauss", "categorical", "bernoulli"])
def test_distances_of_the_other_charts_are_lengths_of_integrated_geodesics(case):
    chart, x, v = {
        "swiss": (charts.SwissRoll(0.7), points([1.3, 0.7], [2.0, -1.0]), points([0.3, -0.5], [-0.5, 0.4])),
        "gauss": (charts.GaussianFisherRao(2), points([0.3, 0.7, 1.0, 2.0]), points([0.3, -0.5, 0.2, 0.4])),
        "categorical": (
            charts.CategoricalFisherRao(2),
            points([0.3, 0.4], [0.2, 0.2]),
            points([0.1, -0.2], [0.1, 0.1]),
        ),
        "bernoulli": (charts.BernoulliFisherRao(), points([0.3, 0.4], [0.2, 0.7]), points([0.1, -0.2], [0.1, 0.1])),
    }[case]
    end, _ = oracles.geodesic_ivp(chart.metric, x, v)
    speed = torch.einsum("bi,bij,bj->b", v, chart.metric(x), v).sqrt()
    torch.testing.assert_close(chart.distance(x, end[:, 0]), speed, rtol=1e-8, atol=1e-8)


def test_distances_along_known_curves():
    paraboloid, r = charts.Paraboloid(1.3), torch.tensor([0.2, 1.5], dtype=torch.float64)
    ray = points([0.12, 0.16], [0.9, 1.2])[None]
    expected = paraboloid.ray_distance(r[:1], r[1:])
    torch.testing.assert_close(oracles.fine_length(paraboloid, ray), expected, rtol=1e-6, atol=0)
    torus = charts.Torus(3.0, 2.0)
    meridian = points([0.2, 1.0], [-1.5, 1.0])[None]
    expected = torus.meridian_distance(meridian[:, 0, 0], meridian[:, 1, 0])
    torch.testing.assert_close(oracles.fine_length(torus, meridian), expected, rtol=1e-6, atol=0)
    ellipsoid = charts.Ellipsoid(3.0, 2.0, 1.0)
    equator = points([torch.pi / 2, 0.3], [torch.pi / 2, 2.1])[None]
    length = oracles.fine_length(ellipsoid, equator).item()
    assert ellipsoid.equator_length(0.3, 2.1) == pytest.approx(length, rel=1e-6)
    torch.testing.assert_close(
        charts.LinearChart(W).distance(PLANE, PLANE + 1),
        oracles.fine_length(charts.LinearChart(W), torch.stack([PLANE, PLANE + 1], 1), 4),
    )


def test_area_of_the_torus_is_the_integral_of_its_volume():
    torus = charts.Torus(3.0, 2.0)
    theta = torch.arange(64, dtype=torch.float64) * 2 * torch.pi / 64
    volume = torch.linalg.det(torus.metric(torch.stack([theta, theta], -1))).sqrt()
    assert (volume.mean() * 4 * torch.pi**2).item() == pytest.approx(torus.area)
    total = (volume * torus.gaussian_curvature(torch.stack([theta, theta], -1))).mean().item()
    assert total == pytest.approx(0, abs=1e-12)


def test_outside_their_domain_metrics_are_nan():
    assert charts.PoincareBall(2)(points([1.0, 0.1])).isnan().any()
    assert charts.HalfPlane()(points([1.0, -0.1])).isnan().any()
    assert charts.GaussianFisherRao()(points([1.0, -0.1])).isnan().any()
    assert charts.BernoulliFisherRao()(points([1.2])).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chart", [*MAPS[:2], *MAPS[3:], *SPACE_FORMS[2:], charts.GaussianFisherRao()], ids=name)
def test_dtype_and_leading_axes_are_kept(chart, dtype):
    x = (PLANE * 0.4).to(dtype)
    y = chart(x.expand(5, 3, 2))
    assert y.dtype == dtype
    assert y.shape[:2] == (5, 3)
    torch.testing.assert_close(y[2], chart(x))
    assert chart.metric(x).dtype == dtype
    if hasattr(chart, "distance"):
        assert chart.distance(x, x.flip(0)).dtype == dtype


@pytest.mark.parametrize(
    "build",
    [
        lambda: charts.StereographicSphere(0),
        lambda: charts.StereographicSphere(2, -1.0),
        lambda: charts.AngularSphere(0.0),
        lambda: charts.PoincareBall(2, float("nan")),
        lambda: charts.HalfPlane(float("inf")),
        lambda: charts.SwissRoll(-1.0),
        lambda: charts.Paraboloid(0.0),
        lambda: charts.Torus(1.0, 2.0),
        lambda: charts.Ellipsoid(1.0, 0.0, 1.0),
        lambda: charts.CategoricalFisherRao(0),
        lambda: charts.GaussianFisherRao(0),
    ],
)
def test_constructors_name_what_is_wrong(build):
    with pytest.raises(OptionError, match=r"got|must"):
        build()


@pytest.mark.usefixtures("without_type_checks")
def test_shapes_are_named():
    with pytest.raises(ShapeError, match="matrix"):
        charts.LinearChart(torch.ones(3))
    with pytest.raises(ShapeError, match="rows of W"):
        charts.LinearChart(W, torch.ones(2).double())
    for chart in (*MAPS[:7], charts.CategoricalFisherRao(2), *SPACE_FORMS[2:], charts.GaussianFisherRao()):
        with pytest.raises(ShapeError, match=r"\(\*batch, 2\)"):
            chart(torch.zeros(4, 3, dtype=torch.float64))
