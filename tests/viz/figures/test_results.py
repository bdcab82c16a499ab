"""Figures of results: profiles, convergence, distances, and the surface."""

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, viz
from pullgeo.errors import OptionError, ShapeError

Z = torch.randn(13, 2, generator=torch.Generator().manual_seed(3)).double()


def saddle(z: torch.Tensor) -> torch.Tensor:
    return torch.cat([z, z[:, :1] * z[:, 1:]], 1)


SADDLE = PullbackManifold(saddle)
SOLUTION = SADDLE.geodesic(Z[:5], Z[5:10])


def named(figure, name: str):
    return next(trace for trace in figure.data if trace.name == name)


def test_profiles_along_a_line_and_a_geodesic():
    figure = viz.speed_profile(SADDLE, SOLUTION, pair=2)
    line, geodesic = figure.data
    ends = Z[[2, 7]].numpy()
    u = ends[1] - ends[0]
    at = ends[0] + np.asarray(line.x)[:, None] * u
    expected = np.sqrt(u @ u + (at[:, 1] * u[0] + at[:, 0] * u[1]) ** 2)
    np.testing.assert_allclose(line.y, expected, rtol=1e-3)
    np.testing.assert_allclose(geodesic.y, float(SOLUTION.length[2]), rtol=2e-3)
    lengths = viz.speed_profile(SADDLE, SOLUTION, "length", pair=2).data
    energies = viz.speed_profile(SADDLE, SOLUTION, "energy", pair=2).data
    assert lengths[1].y[-1] == pytest.approx(float(SOLUTION.length[2]), rel=1e-4)
    assert energies[1].y[-1] == pytest.approx(float(SOLUTION.length[2]) ** 2, rel=1e-3)
    assert lengths[0].y[-1] > lengths[1].y[-1]
    assert energies[0].y[-1] > energies[1].y[-1]
    assert (lengths[0].y[0], lengths[0].x[0], lengths[0].x[-1]) == (0, 0, 1)
    assert line.line.dash != geodesic.line.dash


def test_a_curve_that_did_not_converge_is_called_so():
    unfinished = SADDLE.geodesic(Z[:3], Z[5:8], Newton(max_steps=1, tol=1e-15))
    assert not unfinished.converged.all()
    k = int((~unfinished.converged).nonzero()[0])
    trace = viz.speed_profile(SADDLE, unfinished, pair=k).data[1]
    assert trace.name == "not converged"
    assert trace.line.dash not in (None, "solid")


def test_shares_of_pairs_solved():
    rough = SADDLE.geodesic(Z[:5], Z[5:10], Newton(max_steps=2, tol=1e-15))
    figure = viz.convergence({"whole": SOLUTION, "<b>rough</b>": rough})
    whole, other = figure.data
    for steps in range(20):
        share = float((SOLUTION.converged & (SOLUTION.iterations <= steps)).double().mean())
        below = np.asarray(whole.y)[np.asarray(whole.x) <= steps]
        assert (below.max() if len(below) else 0) == pytest.approx(share)
    assert whole.name == "whole, 5 of 5"
    assert other.name.startswith("&lt;b&gt;rough")
    assert max(other.y, default=0) == pytest.approx(float(rough.converged.double().mean()))
    assert whole.line.dash != other.line.dash
    residuals = viz.convergence(SOLUTION, "residual")
    assert residuals.layout.xaxis.type == "log"
    assert max(residuals.data[0].x) == pytest.approx(float(SOLUTION.residual.max()))
    errors = viz.convergence(SOLUTION, "error").data[0]
    assert max(errors.x) == pytest.approx(float((SOLUTION.error_estimate / SOLUTION.length).max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_matrix_is_ordered_by_class_and_nearness(dtype):
    where = torch.tensor([0.0, 50, 3, 51, 1, 2, 53, 52, 4], dtype=dtype)[:, None]
    D = torch.cdist(where, where)
    D[0, 1] = D[1, 0] = torch.nan
    labels = ["one", "two", "one", "two", "one", "one", "two", "two", "<i>"]
    figure = viz.distance_matrix(D, labels)
    heat = named(figure, "distance")
    order = heat.customdata[0, :, 0]
    assert sorted(order.tolist()) == list(range(9))
    assert [labels[i] for i in order] == ["<i>"] + ["one"] * 4 + ["two"] * 4
    inside = where[order[1:5].tolist(), 0].tolist()
    assert inside in ([0, 1, 2, 3], [3, 2, 1, 0])
    np.testing.assert_allclose(np.asarray(heat.z), D[order.tolist()][:, order.tolist()].numpy(), equal_nan=True)
    assert list(figure.layout.xaxis.ticktext) == ["&lt;i&gt;", "one", "two"]
    assert list(figure.layout.yaxis.tickvals) == [0.5, 3, 7]
    assert len([t for t in figure.data if t.type == "scatter" and t.fill == "toself"]) == 6
    alone = viz.distance_matrix(D[1:, 1:].tolist())
    assert len(alone.data) == 1


def test_intervals_over_members():
    values = np.random.default_rng(0).random((7, 5)) + np.array([3, 1, 4, 2, 5])
    values[2, 1] = np.nan
    values[:, 4] = np.nan
    figure = viz.distance_uncertainty(values, ["a", "b", "c", "d", "<b>"], level=0.5, reference=np.arange(5.0))
    middle = named(figure, "median")
    order = middle.customdata.tolist()
    assert order == [1, 3, 0, 2, 4]
    for at, pair in enumerate(order[:4]):
        known = values[np.isfinite(values[:, pair]), pair]
        assert middle.y[at] == pytest.approx(np.median(known))
        assert middle.y[at] + middle.error_y.array[at] == pytest.approx(np.quantile(known, 0.75))
        assert middle.y[at] - middle.error_y.arrayminus[at] == pytest.approx(np.quantile(known, 0.25))
    assert np.isnan(middle.y[4])
    assert named(figure, "reference").y.tolist() == [1, 3, 0, 2, 4]
    assert list(figure.layout.xaxis.ticktext) == ["b", "d", "a", "c", "&lt;b&gt;"]
    assert len(named(figure, "members").y) == 35
    assert not any(t.name == "members" for t in viz.distance_uncertainty(np.ones((41, 3))).data)


def test_a_surface_in_space_is_itself():
    figure = viz.embedded_surface(SADDLE, Z, SOLUTION, extent=((-1, 1), (-2, 2)), resolution=5)
    surface, curves = figure.data
    x, y = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-2, 2, 5))
    np.testing.assert_allclose(surface.x, x, atol=1e-12)
    np.testing.assert_allclose(surface.z, x * y, atol=1e-12)
    np.testing.assert_allclose(surface.surfacecolor, np.log(1 + x**2 + y**2) / 2, atol=1e-9)
    x, y, z = (np.asarray(getattr(curves, k)) for k in "xyz")
    np.testing.assert_allclose(z, x * y, atol=1e-9, equal_nan=True)
    assert np.isnan(x).sum() == 5


def test_more_outputs_are_seen_along_their_principal_components():
    turn = torch.linalg.qr(torch.randn(7, 7).double()).Q[:, :3]
    figure = viz.embedded_surface(PullbackManifold(lambda z: saddle(z) @ turn.T + 3), Z, resolution=6)
    (surface,) = figure.data
    got = np.stack([surface.x, surface.y, surface.z], -1).reshape(-1, 3)
    (plain,) = viz.embedded_surface(SADDLE, Z, resolution=6).data
    own = np.stack([plain.x, plain.y, plain.z], -1).reshape(-1, 3)
    # the same up to a motion: all distances agree
    np.testing.assert_allclose(torch.pdist(torch.from_numpy(got)), torch.pdist(torch.from_numpy(own)), rtol=1e-9)
    spread = got.std(0)
    assert spread[0] > spread[1] > spread[2]


def test_a_surface_has_holes_where_the_decoder_is_not_finite():
    holed = PullbackManifold(lambda z: torch.where(z[:, :1] > 0, torch.nan, saddle(z)))
    (surface,) = viz.embedded_surface(holed, Z, extent=((-1, 1), (-1, 1)), resolution=4).data
    assert np.isnan(np.asarray(surface.z)).mean() == 0.5
    with pytest.raises(OptionError, match="finite nowhere"):
        viz.embedded_surface(PullbackManifold(lambda z: saddle(z) * torch.nan), Z)


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda: viz.speed_profile(SADDLE, SOLUTION, "velocity"), OptionError, "quantity"),
        (lambda: viz.speed_profile(SADDLE, SOLUTION, pair=5), OptionError, "0 to 4"),
        (lambda: viz.convergence(SOLUTION, "time"), OptionError, "quantity"),
        (lambda: viz.convergence({}), OptionError, "expected a Solution"),
        (lambda: viz.convergence([SOLUTION]), OptionError, "expected a Solution"),
        (lambda: viz.convergence({"none": SOLUTION[[]]}), OptionError, "no pairs"),
        (lambda: viz.distance_matrix(torch.rand(3, 4)), ShapeError, "square"),
        (lambda: viz.distance_matrix(torch.tensor([[0, 1], [2, 0]])), ShapeError, "symmetric"),
        (lambda: viz.distance_matrix(-torch.ones(2, 2)), ShapeError, "negative"),
        (lambda: viz.distance_matrix([["a"]]), ShapeError, "numbers"),
        (lambda: viz.distance_matrix(torch.ones(3, 3), ["a"]), ShapeError, "labels"),
        (lambda: viz.distance_uncertainty(torch.ones(3)), ShapeError, "members, pairs"),
        (lambda: viz.distance_uncertainty(torch.ones(3, 2), ["a"]), ShapeError, "names"),
        (lambda: viz.distance_uncertainty(torch.ones(3, 2), level=0), OptionError, "level"),
        (lambda: viz.distance_uncertainty(torch.ones(3, 2), reference=[1]), ShapeError, "reference"),
        (lambda: viz.embedded_surface(PullbackManifold(lambda z: z), Z), ShapeError, "needs 3"),
        (lambda: viz.embedded_surface(SADDLE, Z, resolution=1), OptionError, "resolution"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, error, words, without_type_checks):
    with pytest.raises(error, match=words):
        draw()
