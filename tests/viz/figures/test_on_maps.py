"""What is drawn on maps, on a linear map, where all is known: geodesics are straight and G = AᵀA."""

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, viz
from pullgeo.errors import NonFiniteError, OptionError, ShapeError

A = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, -1.0]]).double()
LINEAR = PullbackManifold(lambda z: z @ A.T.to(z))
Z = torch.randn(7, 2, generator=torch.Generator().manual_seed(3)).double()


def pieces(trace) -> list[np.ndarray]:
    """The curves of a trace, between its gaps."""
    xy = np.stack([trace.x, trace.y], -1)
    ends = np.flatnonzero(np.isnan(xy).any(1))
    return [part[~np.isnan(part).any(1)] for part in np.split(xy, ends) if (~np.isnan(part).any(1)).any()]


def length(u: np.ndarray) -> np.ndarray:
    return np.linalg.norm(u @ A.numpy().T, axis=-1)


def test_unit_balls_have_one_length_everywhere():
    (trace,) = viz.indicatrices(LINEAR, Z, count=4, extent=((0, 4), (0, 3))).data
    balls = pieces(trace)
    assert len(balls) == 12
    scale = float(trace.name.rsplit(" ", 1)[1])
    for ball in balls:
        radii = length(ball - ball[:-1].mean(0))
        np.testing.assert_allclose(radii, radii[0], rtol=1e-9)
        assert radii[0] == pytest.approx(scale, rel=1e-2)


def test_there_are_no_balls_where_the_metric_is_singular():
    flat = PullbackManifold(lambda z: torch.cat([z, z[:, :1].relu() + z[:, 1:]], 1) * (z[:, :1] > 0))
    (trace,) = viz.indicatrices(flat, Z, count=4, extent=((-2, 2), (-2, 2))).data
    assert len(pieces(trace)) == 8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rims_of_a_fan_are_at_equal_lengths(dtype):
    centre = torch.tensor([0.5, -1.0], dtype=dtype)
    figure = viz.geodesic_fan(LINEAR, centre, 1.5, directions=7, balls=3)
    curves, rims = pieces(figure.data[0]), pieces(figure.data[1])
    assert (len(curves), len(rims)) == (7, 3)
    for k, rim in enumerate(rims):
        assert len(rim) == 8
        np.testing.assert_allclose(length(rim - [0.5, -1]), (k + 1) / 2, rtol=1e-6)
    unit = np.stack([curve[-1] for curve in curves]) - [0.5, -1]
    cosine = (unit @ (A.T @ A).numpy() * np.roll(unit, 1, 0)).sum(1) / 1.5**2
    np.testing.assert_allclose(cosine, np.cos(2 * np.pi / 7), atol=1e-6)


def test_a_fan_on_a_sphere_closes_where_geodesics_leave_the_chart():
    """Stereographic projection: balls around the south pole are circles of radius 2 tan(r/2)."""

    def sphere(z):
        s = z.square().sum(1, keepdim=True) / 4
        return torch.cat([z, 1 - s], 1) / (1 + s)

    figure = viz.geodesic_fan(PullbackManifold(sphere), [0.0, 0.0], 2.0, directions=5, balls=2)
    for rim, r in zip(pieces(figure.data[1]), (1.0, 2.0), strict=True):
        np.testing.assert_allclose(np.linalg.norm(rim, axis=1), 2 * np.tan(r / 2), rtol=1e-6)


class Bounded(PullbackManifold):
    """Geodesics end at x = 0.5, with the library's error."""

    def in_double(self) -> PullbackManifold:
        return self

    def expmap_transp(self, x, u, v):
        if bool((x[:, 0] + u[:, 0] > 0.5).any()):
            raise NonFiniteError("left")
        return x + u, v


def test_a_geodesic_that_leaves_is_left_out_from_there_on():
    figure = viz.geodesic_fan(Bounded(lambda z: z.repeat(1, 2)), [0.0, 0.0], 2.0, directions=4, balls=2)
    curves = pieces(figure.data[0])
    assert [len(curve) for curve in curves] == [6, 17, 17, 17]
    assert curves[0][-1] == pytest.approx([5 / 16 * 2**0.5, 0])
    assert [len(rim) for rim in pieces(figure.data[1])] == [3, 3]


def test_a_frame_does_not_turn_on_a_plane():
    solution = LINEAR.geodesic(Z[:2], Z[2:4])
    figure = viz.transported_frame(LINEAR, solution, pair=1, frame=[[1, 0], [0, 2]], count=3)
    curve, first, second = figure.data
    assert pieces(curve)[0][[0, -1]] == pytest.approx(Z[[1, 3]].numpy(), abs=1e-6)
    for trace, direction in ((first, [0.5, 0]), (second, [0, 1])):
        shafts = np.stack([arrow[1] - arrow[0] for arrow in pieces(trace)])
        assert len(shafts) == 3
        long = 0.12 * max(np.ptp(pieces(curve)[0], axis=0)) * 1.12  # the extent has a margin of 6 % at each side
        np.testing.assert_allclose(shafts, np.tile(direction, (3, 1)) * long, atol=1e-6)


def test_a_frame_turns_on_a_sphere_by_what_transport_says():
    def sphere(z):
        return torch.stack([z[:, 0].sin() * z[:, 1].cos(), z[:, 0].sin() * z[:, 1].sin(), z[:, 0].cos()], 1)

    manifold = PullbackManifold(sphere)
    solution = manifold.geodesic(torch.tensor([[0.7, 0.2]]).double(), torch.tensor([[1.1, 1.5]]).double())
    (end,) = manifold.parallel_transport(solution.curve, torch.tensor([1.0, 0.0]).double())
    figure = viz.transported_frame(manifold, solution, frame=[[1, 0], [0, 1]], count=4)
    arrow = pieces(figure.data[1])[-1]
    direction = arrow[1] - arrow[0]
    np.testing.assert_allclose(direction / np.linalg.norm(direction), (end / end.norm()).numpy(), atol=1e-6)


def test_latents_stand_in_their_class():
    labels = ["b", "a", "<b>c</b>", "a", "b", "b", "a"]
    figure = viz.latent_points(Z, labels)
    assert [t.name for t in figure.data] == ["&lt;b&gt;c&lt;/b&gt;", "a", "b"]
    for trace, rows in zip(figure.data, ([2], [1, 3, 6], [0, 4, 5]), strict=True):
        assert trace.customdata.tolist() == rows
        np.testing.assert_allclose(np.stack([trace.x, trace.y], 1), Z[rows])
    assert len({t.marker.symbol for t in figure.data}) == 3


def test_curves_say_whether_they_converged():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Tanh(), torch.nn.Linear(9, 5)).double()
    manifold = PullbackManifold(net)
    z1 = Z[3:6].clone()
    z1[1] = Z[1]
    solution = manifold.geodesic(Z[:3], z1, Newton(max_steps=1, tol=1e-14))
    traces = {t.name: t for t in viz.geodesics(solution).data if t.name}
    assert len(pieces(traces["not converged"])) == 2
    assert traces["not converged"].line.dash != "solid"
    assert len(pieces(traces["geodesic"])) == 1
    assert "straight line" not in {t.name for t in viz.geodesics(solution, straight=False).data}


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda: viz.indicatrices(LINEAR, Z, count=0), OptionError, "count"),
        (lambda: viz.indicatrices(LINEAR, Z, extent=1), OptionError, "extent"),
        (lambda: viz.geodesic_fan(LINEAR, [0], 1.0), ShapeError, "point"),
        (lambda: viz.geodesic_fan(LINEAR, [0, 0], 0.0), OptionError, "radius"),
        (lambda: viz.geodesic_fan(LINEAR, [0, 0], float("inf")), OptionError, "radius"),
        (lambda: viz.geodesic_fan(LINEAR, [0, 0], 1.0, directions=2), OptionError, "directions"),
        (lambda: viz.geodesic_fan(LINEAR, [0, 0], 1.0, balls=0), OptionError, "balls"),
        (lambda: viz.transported_frame(LINEAR, LINEAR.geodesic(Z[:2], Z[2:4]), pair=2), OptionError, "0 to 1"),
        (lambda: viz.transported_frame(LINEAR, LINEAR.geodesic(Z[:2], Z[2:4]), count=1), OptionError, "count"),
        (lambda: viz.transported_frame(LINEAR, LINEAR.geodesic(Z[:2], Z[2:4]), size=2), OptionError, "size"),
        (lambda: viz.transported_frame(LINEAR, LINEAR.geodesic(Z[:2], Z[2:4]), frame=[1, 0]), ShapeError, "frame"),
        (lambda: viz.latent_points(Z, ["a"]), ShapeError, "labels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, error, words, without_type_checks):
    with pytest.raises(error, match=words):
        draw()
