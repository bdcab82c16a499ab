"""Exact answers to what a page asks."""

import json
import math

import pytest
import torch
from torch import nn

from pullgeo import Newton, PullbackManifold, frechet_mean
from pullgeo.errors import NonFiniteError, OptionError, PullgeoError, ShapeError
from pullgeo.viz.explore.exact import MAX_ROWS, Exact, refusal
from pullgeo.viz.explore.slice import Slice


class Raises:
    """The str() of such an error fails as well."""

    class Error(Exception):
        def __str__(self) -> str:
            raise KeyError("no text")

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        raise self.Error


def decoder(d: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(d, 11), nn.Tanh(), nn.Linear(11, 7))
    return net.to(dtype).requires_grad_(False)


def exact(d: int = 3, decode=None, dtype: torch.dtype = torch.float64) -> Exact:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(13, d, generator=generator).to(dtype)
    origin = torch.linspace(0.1, 0.4, d)
    axes = torch.randn(2, d, generator=generator)
    plane = Slice(origin.double(), axes.double(), ("x", "y"), "points", None)
    return Exact(PullbackManifold(decode or decoder(d, dtype)), plane, z)


def leading(d: int) -> Slice:
    """The first two coordinates; the others are 0."""
    return Slice.of_dims(torch.zeros(3, d))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_geodesic_is_the_librarys_and_is_projected_onto_the_page(dtype):
    asked = exact(dtype=dtype)
    answer = asked.task({"kind": "geodesic", "a": [0.25, -0.5], "b": [-1, 0.75]})()
    ends = torch.stack(
        [
            asked.plane.origin + 0.25 * asked.plane.axes[0] - 0.5 * asked.plane.axes[1],
            asked.plane.origin - asked.plane.axes[0],
        ]
    )
    ends[1] += 0.75 * asked.plane.axes[1]
    own = asked.manifold.geodesic(ends[:1], ends[1:], Newton())
    assert answer["status"] == "CONVERGED"
    assert answer["converged"] is True
    assert answer["length"] == pytest.approx(float(own.length), rel=1e-9)
    assert answer["error"] == pytest.approx(float(own.error_estimate), rel=1e-3, abs=1e-12)
    full, flat = torch.tensor(answer["full"]), torch.tensor(answer["nodes"])
    assert full[[0, -1]].double().numpy() == pytest.approx(ends.numpy(), abs=1e-6)
    assert flat[0].tolist() == pytest.approx([0.25, -0.5], abs=1e-6)
    assert flat[-1].tolist() == pytest.approx([-1, 0.75], abs=1e-6)
    # what is left out by the projection stands at right angles to the page
    away = full.double() - asked.plane.origin - flat.double() @ asked.plane.axes
    assert float((away @ asked.plane.axes.T).abs().max()) < 1e-5
    assert float(away.abs().max()) > 1e-3


def test_ends_may_be_latents():
    asked = exact()
    z0, z1 = asked.latents[:2].tolist()
    answer = asked.task({"kind": "geodesic", "z0": z0, "z1": z1})()
    assert answer["full"][0] == pytest.approx(z0)
    assert answer["length"] == pytest.approx(float(asked.manifold.dist(asked.latents[0], asked.latents[1])), rel=1e-9)


def test_an_exponential_ends_where_the_librarys_does():
    asked = exact()
    answer = asked.task({"kind": "exponential", "a": [0.5, 0.25], "v": [0.75, -0.5]})()
    begin = asked.plane.origin + 0.5 * asked.plane.axes[0] + 0.25 * asked.plane.axes[1]
    velocity = 0.75 * asked.plane.axes[0] - 0.5 * asked.plane.axes[1]
    end = asked.manifold.expmap(begin[None], velocity[None])[0]
    assert answer["full"][-1] == pytest.approx(end.tolist(), rel=1e-6)
    assert answer["full"][0] == pytest.approx(begin.tolist())
    assert answer["length"] == pytest.approx(float(asked.manifold.norm(begin[None], velocity[None])), rel=1e-9)


def test_a_mean_is_the_librarys():
    asked = exact()
    answer = asked.task({"kind": "mean", "rows": [2, 3, 5, 11]})()
    own = frechet_mean(asked.manifold, asked.latents[[2, 3, 5, 11]])
    assert answer["status"] == "CONVERGED"
    assert answer["full"] == pytest.approx(own.point[0].tolist(), rel=1e-6)
    middle = torch.tensor(answer["euclidean"], dtype=torch.float64) @ asked.plane.axes + asked.plane.origin
    left = asked.latents[[2, 3, 5, 11]].mean(0) - middle
    assert float((asked.plane.axes @ left).abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ("geodesic", OptionError, "object"),
        (None, OptionError, "object"),
        ([1], OptionError, "object"),
        ({}, OptionError, "kind must be"),
        ({"kind": ["geodesic"]}, OptionError, "kind must be"),
        ({"kind": "x" * 5000}, OptionError, "kind must be"),
        ({"kind": "geodesic"}, OptionError, "one of a and z0"),
        ({"kind": "geodesic", "a": [0, 1]}, OptionError, "one of b and z1"),
        ({"kind": "geodesic", "a": [0, 1], "z0": [0, 1, 2], "b": [0, 1]}, OptionError, "one of a and z0"),
        ({"kind": "geodesic", "a": "01", "b": [0, 1]}, OptionError, "a must be a list of 2 numbers"),
        ({"kind": "geodesic", "a": ["0", "1"], "b": [0, 1]}, OptionError, "a must be a list of 2 numbers"),
        ({"kind": "geodesic", "a": [True, 1], "b": [0, 1]}, OptionError, "a must be a list of 2 numbers"),
        ({"kind": "geodesic", "a": [None, 1], "b": [0, 1]}, OptionError, "a must be a list of 2 numbers"),
        ({"kind": "geodesic", "a": [[0], [1]], "b": [0, 1]}, OptionError, "a must be a list of 2 numbers"),
        ({"kind": "geodesic", "a": [0, 1, 2], "b": [0, 1]}, ShapeError, "a must have 2 coordinates, got 3"),
        ({"kind": "geodesic", "a": [0, 1], "b": []}, ShapeError, "b must have 2 coordinates, got 0"),
        ({"kind": "geodesic", "z0": [0, 1], "z1": [0, 1]}, ShapeError, "z0 must have 3 coordinates, got 2"),
        ({"kind": "geodesic", "a": [0, math.nan], "b": [0, 1]}, NonFiniteError, "a holds NaN"),
        ({"kind": "geodesic", "a": [0, 1], "b": [math.inf, 1]}, NonFiniteError, "b holds NaN or infinity"),
        ({"kind": "geodesic", "a": [0, 1], "b": [10**400, 1]}, NonFiniteError, "b has a coordinate beyond"),
        ({"kind": "exponential", "a": [0, 1]}, OptionError, "one of v and u"),
        ({"kind": "exponential", "a": [0, 1], "v": [-math.inf, 0]}, NonFiniteError, "v holds"),
        ({"kind": "mean"}, OptionError, "rows must be a list"),
        ({"kind": "mean", "rows": []}, OptionError, "1 to 500"),
        ({"kind": "mean", "rows": [0.5]}, OptionError, "whole numbers"),
        ({"kind": "mean", "rows": [True]}, OptionError, "whole numbers"),
        ({"kind": "mean", "rows": [13]}, OptionError, "between 0 and 12, got 13"),
        ({"kind": "mean", "rows": [-1]}, OptionError, "between 0 and 12, got -1"),
        ({"kind": "mean", "rows": [0] * (MAX_ROWS + 1)}, OptionError, "Choose fewer"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(message, error, words):
    with pytest.raises(error, match=words) as raised:
        exact().task(message)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("kind", ["geodesic", "exponential", "mean"])
@pytest.mark.parametrize("decode", [Raises(), lambda z: z / 0, lambda z: exit(3), lambda z: "text"])
def test_a_decoder_that_fails_is_told_and_not_raised(kind, decode):
    asked = Exact(PullbackManifold(decode), leading(3), torch.randn(5, 3).double())
    answer = asked.task(
        {"kind": kind, "a": [0, 1], **({"v": [1, 1]} if kind == "exponential" else {"b": [1, 1]}), "rows": [0, 3]}
    )()
    assert answer["converged"] is False
    assert answer["text"]
    json.dumps(answer, allow_nan=False)


def test_what_does_not_converge_says_so_and_still_shows_its_curve():
    asked = Exact(exact().manifold, leading(3), torch.zeros(2, 3), Newton(max_steps=1, tol=1e-14))
    answer = asked.task({"kind": "geodesic", "a": [-2, 0], "b": [2, 1]})()
    assert (answer["status"], answer["converged"]) == ("MAX_STEPS", False)
    assert "step limit" in answer["text"]
    assert len(answer["nodes"]) == len(answer["full"]) > 2


def test_numbers_that_json_lacks_are_null():
    def undefined(z):
        return torch.where(z[:, :1] > 0, torch.nan, z)

    asked = Exact(PullbackManifold(undefined), leading(2), torch.randn(3, 2))
    answer = asked.task({"kind": "geodesic", "a": [-1, 0], "b": [1, 0]})()
    assert answer["converged"] is False
    json.dumps(answer, allow_nan=False)


def test_latents_of_another_space_are_refused():
    with pytest.raises(ShapeError, match="as the plane's"):
        Exact(exact().manifold, leading(2), torch.zeros(5, 3))


def test_a_refusal_explains_every_error():
    assert refusal(OptionError("use  another"))["text"] == "use another"
    assert refusal(ZeroDivisionError("division by zero"))["text"] == "ZeroDivisionError: division by zero"
    assert "Error" in refusal(Raises.Error())["text"]
    assert len(refusal(PullgeoError("x" * 10_000))["text"]) == 2000


def test_a_question_about_another_plane_is_answered_on_it():
    asked = exact()
    plane = Slice.named(asked.latents, "latents:4,0,7")
    answer = asked.task({"kind": "geodesic", "a": [0.25, -0.5], "b": [-1, 0.75], "plane": "latents:4,0,7"})()
    ends = plane.lift(torch.tensor([[0.25, -0.5], [-1, 0.75]]))
    assert answer["length"] == pytest.approx(float(asked.manifold.dist(*ends)), rel=1e-9)
    assert answer["nodes"][-1] == pytest.approx([-1, 0.75])
    # one that has no name is meant by questions that name none
    assert asked.task({"kind": "mean", "rows": [1, 2], "plane": None})()["converged"]
    for wrong in (3, "rows", "dims:0,9"):
        with pytest.raises(OptionError, match=r"plane|from 0 to 2"):
            asked.task({"kind": "geodesic", "a": [0, 0], "b": [1, 1], "plane": wrong})


def test_maps_of_other_planes_are_drawn_where_something_draws():
    asked = exact()
    with pytest.raises(OptionError, match="kind must be"):
        asked.task({"kind": "map", "plane": "dims:0,2"})
    drawing = Exact(asked.manifold, asked.plane, asked.latents, draw=lambda plane: {"names": list(plane.names)})
    answer = drawing.task({"kind": "map", "plane": "dims:0,2"})()
    assert (answer["status"], answer["payload"]) == ("DRAWN", {"names": ["z0", "z2"]})

    def fails(plane: Slice) -> dict:
        raise ShapeError("nowhere finite")

    refused = Exact(asked.manifold, asked.plane, asked.latents, draw=fails).task({"kind": "map"})()
    assert (refused["status"], refused["text"]) == ("FAILED", "nowhere finite")
