"""Several locally shortest curves between the same points, and lengths between nodes."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, Status
from pullgeo.curve import straight_line
from pullgeo.errors import OptionError
from pullgeo.geodesic import StraightLine, Waves
from pullgeo.testing.oracles import fine_length

D = torch.float64


def hill(z: Tensor) -> Tensor:
    """A hill a little above the middle: the way below it is the shorter one."""
    middle = torch.zeros_like(z)
    middle[:, 1] = 0.05
    return torch.cat([z, 2 * (-6 * (z - middle).square().sum(1, keepdim=True)).exp()], 1)


def test_a_thorough_search_counts_the_ways_around_a_hill() -> None:
    z0 = torch.tensor([[-1.0, 0.0], [-1.0, 3.0], [0.5, 0.5]], dtype=D)
    z1 = torch.tensor([[1.0, 0.0], [1.0, 3.0], [0.5, 0.5]], dtype=D)
    manifold = PullbackManifold(hill)
    with torch.no_grad():
        quick, thorough = manifold.geodesic(z0, z1), manifold.geodesic(z0, z1, Newton(search="thorough"))
    assert bool(thorough.converged.all())
    assert thorough.minima[0] >= 2
    assert thorough.minima[1:].tolist() == [1, 1]
    assert quick.minima.tolist() == [1, 1, 1]
    assert float(thorough.curve.nodes[0, 16, 1]) < 0
    assert bool((thorough.length <= quick.length * (1 + 1e-6)).all())


@pytest.mark.parametrize("d", [1, 2, 3])
def test_thorough_searches_in_every_dimension_and_precision(d: int) -> None:
    torch.manual_seed(d)
    decoder = nn.Sequential(nn.Linear(d, 17), nn.Tanh(), nn.Linear(17, 7))
    with torch.no_grad():
        decoder[0].weight.mul_(3)
    z = torch.randn(2, 3, d)
    manifold = PullbackManifold(decoder)
    solver = Newton(search="thorough")
    with torch.no_grad():
        quick, thorough = manifold.geodesic(z[0], z[1]), manifold.geodesic(z[0], z[1], solver)
    assert bool(thorough.converged.all())
    assert bool((thorough.length <= quick.length + 2 * quick.error_estimate).all())


def test_what_is_no_search_is_refused() -> None:
    with pytest.raises(OptionError, match="search must be one of 'quick', 'thorough', got 'deep'"):
        Newton(search="deep")
    with pytest.raises(OptionError, match="count >= 1"):
        Waves(count=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_curve_is_longer_than_the_line_between_its_nodes(seed: int) -> None:
    """Three latents of which a wild decoder sees two: nodes find ways to hop that no curve has."""
    torch.manual_seed(seed)
    decoder = nn.Sequential(
        nn.Linear(3, 2, bias=False), nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 7)
    ).double()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(3 if weight.ndim == 2 else 1)
    z = 2 * torch.randn(2, 5, 3, dtype=D)
    for solver in (Newton(starts=(StraightLine(),), segments=8, max_segments=16), Newton(rtol=None)):
        with torch.no_grad():
            solution = PullbackManifold(decoder).geodesic(z[0], z[1], solver)
        assert set(solution.status) <= {Status.CONVERGED, Status.COARSE, Status.MAX_STEPS}
        good = solution.converged.nonzero().squeeze(1).tolist()
        found = fine_length(decoder, solution.curve.nodes[good], 2048)
        lines = fine_length(decoder, straight_line(z[0], z[1], 2).nodes[good], 2048)
        assert bool((found <= (1 + 1e-3) * lines).all())
