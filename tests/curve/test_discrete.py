"""Curves through nodes: interpolation, velocity, resampling."""

import pytest
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from pullgeo.curve import DiscreteCurve, straight_line
from pullgeo.errors import OptionError, ShapeError

B, D = 3, 2


def random_nodes(n: int) -> Tensor:
    return torch.randn(B, n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 12])
def test_it_is_the_not_a_knot_spline(n: int) -> None:
    nodes, t = random_nodes(n), torch.linspace(0, 1, 29, dtype=torch.float64)
    curve = DiscreteCurve(nodes)
    reference = CubicSpline(torch.linspace(0, 1, n, dtype=torch.float64).numpy(), nodes.numpy(), axis=1)
    torch.testing.assert_close(curve(t), torch.from_numpy(reference(t.numpy())))
    torch.testing.assert_close(curve.velocity(t), torch.from_numpy(reference(t.numpy(), 1)))


def test_interpolation_is_of_fourth_order() -> None:
    t = torch.linspace(0, 1, 301, dtype=torch.float64)

    def error(n: int) -> float:
        s = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        nodes = torch.stack([torch.sin(3 * s), torch.exp(s)], 1).unsqueeze(0)
        exact = torch.stack([torch.sin(3 * t), torch.exp(t)], 1)
        return float((DiscreteCurve(nodes)(t)[0] - exact).abs().max())

    assert 12 < error(16) / error(32) < 26  # 16, and a little more from the ends


def test_it_differentiates_in_times_and_nodes() -> None:
    t = torch.tensor([0.03, 0.41, 0.88], dtype=torch.float64, requires_grad=True)
    nodes = random_nodes(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda nodes, t: DiscreteCurve(nodes)(t), (nodes, t))
    velocity = torch.stack([torch.autograd.grad(DiscreteCurve(nodes)(t)[0, :, i].sum(), t)[0] for i in range(D)], 1)
    torch.testing.assert_close(DiscreteCurve(nodes).velocity(t)[0], velocity)


def test_resampling_keeps_end_points_and_cubics() -> None:
    s = torch.linspace(0, 1, 6, dtype=torch.float64)
    cubic = torch.stack([s**3 - s, 2 * s**2], 1).unsqueeze(0)
    fine = DiscreteCurve(cubic).resample(10)
    s = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(fine.nodes[0], torch.stack([s**3 - s, 2 * s**2], 1))
    assert torch.equal(fine.begin, cubic[:, 0])
    assert torch.equal(fine.end, cubic[:, -1])
    assert fine.segments == 10


def test_batches_are_indexed() -> None:
    curve = DiscreteCurve(random_nodes(4))
    assert len(curve) == B
    assert torch.equal(curve[1].nodes, curve.nodes[1:2])
    assert torch.equal(curve[[2, 0]].nodes, curve.nodes[[2, 0]])


def test_length_of_a_line_and_of_its_image() -> None:
    z0, z1 = torch.zeros(B, D), torch.tensor([[3.0, 4.0]]).expand(B, D)
    line = straight_line(z0, z1, 7)
    torch.testing.assert_close(line.length(), torch.full((B,), 5.0))
    torch.testing.assert_close(line.length(lambda z: 2 * z), torch.full((B,), 10.0))


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"\(b, T \+ 1, d\)"):
        DiscreteCurve(torch.zeros(B, 1, D))
    with pytest.raises(OptionError, match="segments"):
        straight_line(torch.zeros(B, D), torch.ones(B, D), 0)
    with pytest.raises(ShapeError, match="times"):
        DiscreteCurve(random_nodes(4))(torch.zeros(2, 2))
