"""What a status says: what was seen, and no cause that was not."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, Newton, PullbackManifold, Status
from pullgeo.geodesic import CollocationBVP, Shooting, Solver, StraightLine
from pullgeo.geodesic.singular import singular_at

D = torch.float64


def collapsed(z: Tensor) -> Tensor:
    """The second latent does nothing."""
    return torch.cat([z[:, :1], z[:, :1] ** 2], 1)


def doubled() -> nn.Module:
    """Two latents that do the same, in a network of tanh: singular to rounding errors."""
    torch.manual_seed(0)
    sum_of_two = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        sum_of_two.weight.copy_(torch.tensor([[1.0, 0.3]]))
    return nn.Sequential(sum_of_two, nn.Linear(1, 17), nn.Tanh(), nn.Linear(17, 11)).double()


def flat_metric(z: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([1 + z[:, 0] ** 2, 0 * z[:, 0]], 1))


@pytest.mark.parametrize(
    "manifold",
    [PullbackManifold(collapsed), PullbackManifold(doubled()), MetricManifold(flat_metric)],
    ids=["ignored", "doubled", "metric"],
)
def test_collapsed_latents_have_no_geodesic_equation(manifold: PullbackManifold) -> None:
    x, y = torch.zeros(4, 2, dtype=D), torch.ones(4, 2, dtype=D)
    y[-1] = 0
    wanted = (Status.SINGULAR,) * 3 + (Status.COINCIDENT,)
    log = manifold.logarithm(x, y)
    assert log.status == wanted
    assert log.vector.isnan().any(1).tolist() == [True, True, True, False]
    for solver in (Shooting(), CollocationBVP()):
        with torch.no_grad():
            assert manifold.geodesic(x, y, solver).status == wanted
    # a curve needs no equation
    with torch.no_grad():
        assert bool(manifold.geodesic(x, y).converged.all())


def test_collapsed_latents_cost_no_search() -> None:
    calls = 0

    def counted(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return collapsed(z)

    manifold = PullbackManifold(counted)
    x, y = torch.zeros(7, 2, dtype=D), torch.ones(7, 2, dtype=D)
    with torch.no_grad():
        manifold.geodesic(x, y)
        once, calls = calls, 0
        manifold.logarithm(x, y)
    assert calls <= 3 * once + 20


def test_units_of_latents_make_no_metric_singular() -> None:
    scale = torch.tensor([1e-9, 1e9], dtype=D)
    manifold = PullbackManifold(lambda z: torch.cat([scale * z, (scale * z).square()], 1))
    z = torch.randn(3, 5, 2, dtype=D) / scale
    assert not bool(singular_at(manifold, z).any())
    regular = PullbackManifold(lambda z: torch.cat([z, z.square()], 1))
    assert regular.logarithm(torch.zeros(3, 2, dtype=D), torch.ones(3, 2, dtype=D)).status == (Status.CONVERGED,) * 3


@pytest.mark.parametrize("status", list(Status), ids=lambda status: status.name)
def test_no_text_blames_what_a_search_cannot_see(status: Status) -> None:
    assert "ReLU" not in status.value
    assert len(status.value) > 20


def test_ends_of_searches_on_a_smooth_network_and_on_a_metric() -> None:
    """Statuses that are not CONVERGED, where no kink is anywhere."""
    torch.manual_seed(0)
    tanh = nn.Sequential(nn.Linear(2, 19), nn.Tanh(), nn.Linear(19, 11)).double()
    z = 3 * torch.randn(2, 5, 2, dtype=D)
    short: Solver = Newton(max_steps=1, starts=(StraightLine(),))
    coarse: Solver = Newton(segments=2, max_segments=2, rtol=1e-9)

    def hill(z: Tensor) -> Tensor:
        return torch.eye(2, dtype=z.dtype) * (1 + 9 * (-z.square().sum(1)).exp())[:, None, None]

    for manifold in (PullbackManifold(tanh), MetricManifold(hill)):
        with torch.no_grad():
            ends = {*manifold.geodesic(z[0], z[1], short).status, *manifold.geodesic(z[0], z[1], coarse).status}
        assert ends & {Status.MAX_STEPS, Status.STALLED, Status.COARSE}
        assert not any("ReLU" in end.value or "kink" in end.value for end in ends)
