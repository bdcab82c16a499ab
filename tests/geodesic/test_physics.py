"""What geodesics conserve, and what they teach a decoder."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold
from pullgeo.geodesic import InitialCurve, StraightLine
from pullgeo.testing.charts import Torus


def test_clairauts_constant_and_speed_along_geodesics_of_a_torus() -> None:
    torus = Torus(3.0, 1.0)
    x = torch.tensor([[0.1, 0.0], [-1.0, 0.3], [2.0, -0.5]]).double()
    y = torch.tensor([[1.3, 1.1], [0.8, 1.2], [3.3, 0.4]]).double()
    with torch.no_grad():
        solution = PullbackManifold(torus).geodesic(x, y, Newton(segments=64))
    t = torch.linspace(0, 1, 17, dtype=torch.float64)
    points, velocities = solution.curve(t), solution.curve.velocity(t)
    constant = torus.clairaut(points, velocities)
    G = torus.metric(points)
    speed = torch.einsum("bti,btij,btj->bt", velocities, G, velocities).sqrt()
    torch.testing.assert_close(constant, constant.mean(1, keepdim=True).expand_as(constant), rtol=1e-4, atol=0)
    torch.testing.assert_close(speed, solution.length.unsqueeze(1).expand_as(speed), rtol=5e-4, atol=0)
    assert bool((constant.abs() > 0.1).all())


def test_refinement_is_of_fourth_order() -> None:
    torus = Torus(3.0, 1.0)
    manifold = PullbackManifold(torus)
    x, y = torch.tensor([[-1.0, 0.3]]).double(), torch.tensor([[0.8, 1.2]]).double()
    with torch.no_grad():
        exact = manifold.geodesic(x, y, Newton(segments=128)).length
        errors = [float((manifold.geodesic(x, y, Newton(segments=n)).energy.sqrt() - exact).abs()) for n in (8, 16, 32)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.2)


def test_a_decoder_learns_distances() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    z = torch.randn(2, 6, 2, dtype=torch.float64)
    target = 0.2 + (z[1] - z[0]).norm(dim=1) / 2
    optimizer = torch.optim.Adam(decoder.parameters(), lr=2e-2)
    manifold, solver = PullbackManifold(decoder), Newton(segments=8, starts=(StraightLine(),))
    losses = []
    for _ in range(50):
        loss = (manifold.geodesic(z[0], z[1], solver).length - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 10


@pytest.mark.heavy
def test_curves_are_differentiable() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    z = torch.randn(2, 3, 2, dtype=torch.float64)
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)

    def curve(z0: Tensor, z1: Tensor, *weights: Tensor) -> Tensor:
        solver = Newton(segments=4, starts=(StraightLine(),), tol=1e-12)
        return PullbackManifold(decoder).geodesic(z0, z1, solver).curve(t)

    assert torch.autograd.gradcheck(curve, (z[0].requires_grad_(), z[1].requires_grad_(), *decoder.parameters()))


def test_memory_does_not_depend_on_the_number_of_steps() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 7)).double()
    manifold = PullbackManifold(decoder)
    z0, z1 = (2 * torch.randn(2, 3, 2, dtype=torch.float64)).unbind(0)
    z1.requires_grad_()

    def kept(solver: Newton) -> tuple[int, int]:
        size = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            solution = manifold.geodesic(z0, z1, solver)
        return size, int(solution.iterations.sum())

    solution = manifold.geodesic(z0, z1, Newton(starts=(StraightLine(),)))
    many = kept(Newton(starts=(StraightLine(),)))
    few = kept(Newton(starts=(InitialCurve(solution.curve),)))
    assert few[1] < many[1]
    assert few[0] == many[0]
