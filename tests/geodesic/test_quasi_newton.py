"""Steps towards geodesics by gradients alone, against dense quasi-Newton matrices and great circles."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pullgeo import PullbackManifold
from pullgeo.curve.discrete import straight_line
from pullgeo.geodesic.descent.quasi_newton import approach
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.testing.charts import StereographicSphere

SPHERE = StereographicSphere(3)
SPACE = PullbackManifold(SPHERE)


def pairs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    metric = (SPACE.metric(a).dense() + SPACE.metric(b).dense()) / 2
    return straight_line(a, b, 6).nodes, metric


def dense_bfgs(nodes: Tensor, metric: Tensor, steps: int) -> np.ndarray:
    """One curve, with the matrix of the inverse Hessian written out, scaled anew at every step."""

    def energy(inner: Tensor) -> Tensor:
        return SPACE.energy(torch.cat([nodes[:1], inner.reshape(-1, 3), nodes[-1:]])[None])[0]

    def gradient(x: np.ndarray) -> np.ndarray:
        at = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(energy(at), at)[0].numpy()

    T = len(nodes) - 1
    K = 2 * np.eye(T - 1) - np.eye(T - 1, k=1) - np.eye(T - 1, k=-1)
    G = (metric + 1e-6 * metric.diagonal().mean() * torch.eye(3)).numpy()
    chords = nodes.diff(dim=0).numpy()
    x = nodes[1:-1].flatten().numpy()
    unit = float(energy(torch.tensor(x))) / (T * np.einsum("ti,ij,tj->", chords, G, chords))
    P = np.linalg.inv(2 * T * np.kron(K, G) * unit)
    known: list[tuple[np.ndarray, np.ndarray]] = []
    length = 1.0
    for _ in range(steps):
        H = P.copy()
        if known:
            H *= known[-1][0] @ known[-1][1] / (known[-1][1] @ P @ known[-1][1])
        for s, y in known:
            left = np.eye(len(x)) - np.outer(s, y) / (s @ y)
            H = left @ H @ left.T + np.outer(s, s) / (s @ y)
        g = gradient(x)
        new = x - length * H @ g
        if energy(torch.tensor(new)) < energy(torch.tensor(x)):
            known.append((new - x, gradient(new) - g))
            x, length = new, 1.0
        else:
            length /= 4
    return x.reshape(-1, 3)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_are_those_of_the_dense_method(generator: torch.Generator, steps: int):
    nodes, metric = pairs(generator)
    found = approach(SPACE, nodes, slope(SPACE, nodes), metric, steps)
    for curve, begin, G in zip(found, nodes, metric, strict=True):
        np.testing.assert_allclose(curve[1:-1], dense_bfgs(begin, G, steps), rtol=1e-8, atol=1e-10)
    assert bool((found[:, [0, -1]] == nodes[:, [0, -1]]).all())


def test_it_ends_at_great_circles(generator: torch.Generator):
    nodes, metric = pairs(generator)
    begun = slope(SPACE, nodes)
    found = approach(SPACE, nodes, begun, metric, 30)
    chord = (SPHERE(nodes[:, 0]) - SPHERE(nodes[:, -1])).norm(dim=1)
    exact = 2 * torch.asin(chord / 2)
    torch.testing.assert_close(SPACE.energy(found).sqrt(), exact, rtol=1e-2, atol=0)
    assert bool((SPACE.energy(found) <= begun.energy).all())


def test_a_metric_that_is_none_is_not_asked(generator: torch.Generator):
    nodes, metric = pairs(generator)
    at = slope(SPACE, nodes)
    bad = torch.stack([metric[0], metric[1] * torch.nan, -metric[2], metric[3] * torch.inf, 0 * metric[4]])
    found = approach(SPACE, nodes, at, bad, 4)
    identity = torch.eye(3, dtype=torch.float64).expand(5, 3, 3)
    expected = approach(SPACE, nodes, at, identity, 4)
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-5, atol=1e-6)
    assert bool((SPACE.energy(found) < at.energy).all())


def test_points_and_lines_that_are_geodesics_stay():
    plane = PullbackManifold(torch.nn.Linear(2, 3, dtype=torch.float64))
    nodes = straight_line(
        torch.zeros(3, 2, dtype=torch.float64), torch.tensor([[0.0, 0.0], [1, 2], [-3, 1]]).double(), 4
    )
    metric = plane.metric(nodes.begin).dense().expand(3, 2, 2)
    found = approach(plane, nodes.nodes, slope(plane, nodes.nodes), metric, 3)
    torch.testing.assert_close(found, nodes.nodes, rtol=1e-12, atol=1e-12)
