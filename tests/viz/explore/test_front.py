"""The page's JavaScript against Python, on the same surfaces."""

import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import MetricManifold, Newton
from pullgeo.viz.explore.solver import page_geodesics
from pullgeo.viz.explore.surface import Surface, sample_surface
from tests.viz.explore.conftest import FRONT
from tests.viz.explore.decoders import KINDS

BOX = ((-2.2, 2.2), (-2.1, 2.3))
InFront = Callable[[dict[str, Any]], dict[str, Any]]


def sampled(kind: str) -> Surface:
    return sample_surface(KINDS[kind](), *BOX, side=48)


def places(n: int, generator: torch.Generator, size: float = 2.1) -> Tensor:
    return (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1) * size


def test_the_front_ends_own_tests_pass(node: str) -> None:
    files = [str(file) for file in sorted(FRONT.glob("*.test.mjs"))]
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("kind", ["tanh", "relu", "tiny", "huge", "disc", "metric"])
def test_metric_and_outputs_are_those_of_the_surface(kind: str, in_front: InFront, generator: torch.Generator) -> None:
    surface = sampled(kind)
    xy = places(1000, generator)
    work = {"surface": surface.payload(), "places": xy.tolist()}
    if surface.components:
        work["decode"] = surface.decode_payload()
    found = in_front(work)
    inside = surface.inside(xy)
    assert found["inside"] == inside.tolist()
    assert (kind == "disc") == (not inside.all())
    G = surface.manifold.metric(xy[inside]).dense()
    expected = torch.stack([G[:, 0, 0], G[:, 0, 1], G[:, 1, 1]], 1)
    got = torch.tensor([row for row, good in zip(found["metric"], inside, strict=True) if good], dtype=torch.float64)
    assert bool(((got - expected).norm(dim=1) <= 1e-6 * G.flatten(1).norm(dim=1)).all())
    outside = [row for row, good in zip(found["metric"], inside, strict=True) if not good]
    assert all(row == [None, None, None] for row in outside)
    if surface.components:
        shown = [i for i in range(50) if inside[i]]
        decoded = torch.tensor([found["decoded"][i] for i in shown], dtype=torch.float64)
        direct = surface.decode(xy[shown])
        # the components' entries are rounded, and results are in single precision
        assert float((decoded - direct).abs().max() / direct.abs().max()) < 1e-3


@pytest.mark.quick(2)
@pytest.mark.parametrize("kind", ["tanh", "tiny", "metric"])
def test_curvature_is_that_of_the_surface(kind: str, in_front: InFront, generator: torch.Generator) -> None:
    surface = sampled(kind)
    xy = places(101, generator)
    found = torch.tensor(
        in_front({"surface": surface.payload(), "places": xy.tolist()})["curvature"], dtype=torch.float64
    )
    # of the metric by itself, with automatic derivatives: another formula on another description
    manifold = surface.manifold
    given = MetricManifold(lambda z: manifold.metric(z).dense())
    expected = given.scalar_curvature(xy) / 2
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().median()))


@pytest.mark.quick(2)
@pytest.mark.parametrize("kind", ["tanh", "relu", "huge", "metric"])
def test_energy_gradient_and_hessian(kind: str, in_front: InFront, generator: torch.Generator) -> None:
    surface = sampled(kind)
    T = 11
    count = 91 if kind == "tanh" else 13
    curves = places(count * (T + 1), generator).unflatten(0, (count, T + 1))
    coordinates, rest = surface.coordinates, surface.rest_map

    def energy(nodes: Tensor) -> Tensor:
        step = nodes.diff(dim=0)
        total = coordinates(nodes).diff(dim=0).square().sum() if surface.components else nodes.new_zeros(())
        if rest is not None:
            total = total + torch.einsum("sa,sab,sb->", step, rest((nodes[1:] + nodes[:-1]) / 2), step)
        return T * total

    found = in_front({"surface": surface.payload(), "places": [], "curves": curves.tolist()})["energies"]
    gradients = torch.func.vmap(torch.func.grad(energy))(curves)
    hessians = torch.func.vmap(torch.func.hessian(energy), chunk_size=13)(curves)
    for nodes, case, gradient, hessian in zip(curves, found, gradients, hessians, strict=True):
        value, gradient, hessian = energy(nodes), gradient[1:-1], hessian[1:-1, :, 1:-1]
        assert abs(case["energy"] / float(value) - 1) < 1e-6
        got = torch.tensor(case["gradient"], dtype=torch.float64).reshape(T + 1, 2)
        assert float((got[1:-1] - gradient).norm() / gradient.norm()) < 1e-6
        assert not got[[0, -1]].any()
        xx, xy, yy = torch.tensor(case["diagonal"], dtype=torch.float64).reshape(T + 1, 3)[1:-1].T
        off = torch.tensor(case["off"], dtype=torch.float64).reshape(T + 1, 2, 2)[1:-2]
        whole = torch.zeros_like(hessian)
        index = torch.arange(T - 1)
        whole[index, :, index] = torch.stack([xx, xy, xy, yy], 1).unflatten(1, (2, 2))
        whole[index[:-1], :, index[1:]] = off
        whole[index[1:], :, index[:-1]] = off.mT
        assert float((whole - hessian).norm() / hessian.norm()) < 1e-6


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("kind", "pairs"),
    [("tanh", 256), *((kind, 11) for kind in ("relu", "huge", "metric", "tiny", "method", "function"))],
)
def test_geodesics_are_those_of_the_library_on_the_surface(
    kind: str, pairs: int, in_front: InFront, generator: torch.Generator
) -> None:
    surface = sampled(kind)
    a, b = places(pairs, generator, 1.8), places(pairs, generator, 1.8)
    found = in_front({"surface": surface.payload(), "places": [], "pairs": torch.stack([a, b], 1).tolist()})[
        "geodesics"
    ]
    solved = sum(case["status"] == "CONVERGED" for case in found)
    assert solved >= (0.9 if kind == "relu" else 1.0) * pairs
    length = torch.tensor([case["length"] for case in found], dtype=torch.float64)
    exact = surface.manifold.geodesic(a, b, Newton(segments=64))
    # a pair may have two minimisers, and each solver may find the longer one; on hardly any, though
    tolerance = 2e-3 if kind == "relu" else 1e-4  # at kinks, segments resolve no curve better than this
    shorter = exact.length < length * (1 - tolerance)
    longer = exact.length > length * (1 + tolerance)
    assert int((exact.converged & shorter).sum()) <= 0.02 * pairs
    assert int((exact.converged & longer).sum()) <= 0.04 * pairs
    assert int((~exact.converged).sum()) <= 0.04 * pairs
    # each node of the curve is on the surface, and its ends are the pair
    nodes = torch.tensor([case["nodes"] for case in found], dtype=torch.float64).unflatten(1, (-1, 2))
    assert torch.equal(nodes[:, 0], a)
    assert torch.equal(nodes[:, -1], b)
    twin = page_geodesics(surface, a, b)
    assert float(((twin.length - length).abs() / length).quantile(0.95)) < 1e-6


def test_curves_that_meet_empty_places_say_so(in_front: InFront, generator: torch.Generator) -> None:
    surface = sampled("disc")
    pairs = [[[-1.4, 0.2], [1.4, 0.1]], [[-2.1, -2.0], [1.0, 0.0]], [[0.0, 0.0], [9.0, 0.0]]]
    found = in_front({"surface": surface.payload(), "places": [], "pairs": pairs})["geodesics"]
    assert found[0]["status"] in ("CONVERGED", "OUTSIDE")
    assert np.isfinite(found[0]["length"])
    assert found[1]["status"] == "OUTSIDE"
    assert "no finite numbers" in found[1]["text"]
    assert found[2]["status"] == "OUTSIDE"
    assert "outside the map" in found[2]["text"]
