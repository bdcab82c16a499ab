"""Decoders and end points that ask for trouble: a right answer or a clear status, never a line sold as a geodesic."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, Status
from pullgeo.curve import straight_line
from pullgeo.geodesic import Solution, StraightLine
from pullgeo.testing.oracles import fine_length

B = 5


def decoder(activation: nn.Module, d: int = 2) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(d, 19), activation, nn.Linear(19, 11)).double()


def pairs(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    z = scale * torch.randn(2, B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


def honest(solution: Solution) -> None:
    """What every solution of the default solver must be."""
    for status, length, residual, error in zip(
        solution.status,
        solution.length.tolist(),
        solution.residual.tolist(),
        solution.error_estimate.tolist(),
        strict=True,
    ):
        if status in (Status.CONVERGED, Status.COINCIDENT):
            assert residual <= 1e-8
        if status.converged:
            assert length == length
            assert error == error
            assert length >= 0
            assert error >= 0
    assert bool(torch.isfinite(solution.curve.nodes[solution.converged]).all())


def no_longer_than_lines(f: nn.Module, solution: Solution, z0: Tensor, z1: Tensor) -> None:
    with torch.no_grad():
        line = straight_line(z0, z1).length(f, 2048)
        found = solution.curve.length(f, 2048)
    error = solution.error_estimate.detach()
    assert bool((found <= line * (1 + 1e-6) + 2 * error)[solution.converged].all())


def test_relu_decoders() -> None:
    f, (z0, z1) = decoder(nn.ReLU()), pairs(2.0)
    with torch.no_grad():
        solution = PullbackManifold(f).geodesic(z0, z1)
    honest(solution)
    assert bool(torch.isfinite(solution.length).all())
    no_longer_than_lines(f, solution, z0, z1)
    # a smoothed decoder is the fix that the status names
    with torch.no_grad():
        smooth = PullbackManifold(decoder(nn.Softplus(beta=20.0))).geodesic(z0, z1)
    assert bool(smooth.converged.all())
    torch.testing.assert_close(smooth.length, solution.length, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SELU(), nn.ELU()], ids=str)
def test_error_estimates_see_kinks_between_nodes(activation: nn.Module) -> None:
    # float32: differences of its outputs do not resolve the few kinks of a nearly straight curve
    torch.manual_seed(1)
    f = nn.Sequential(nn.Linear(2, 64), activation, nn.Linear(64, 128), activation, nn.Linear(128, 64))
    z = torch.randn(2, 13, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(101))
    with torch.no_grad():
        solution = PullbackManifold(f).geodesic(z[0], z[1])
    done = solution.converged
    assert int(done.sum()) > 10
    error = (solution.length - fine_length(f.double(), solution.curve, 2048)).abs()[done]
    estimate = solution.error_estimate[done]
    assert float((error <= estimate).double().mean()) > 0.9
    assert bool((error <= 2 * estimate).all())
    # honest, but not at any price
    assert float((estimate / solution.length[done]).median()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_latents_that_do_the_same(dtype: torch.dtype) -> None:
    one = decoder(nn.Tanh(), 1).to(dtype)

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = one

        def forward(self, z: Tensor) -> Tensor:
            return self.one(z.sum(1, keepdim=True))

    z0, z1 = (z.to(dtype) for z in pairs())
    z1 = torch.cat([z1[:-1], z0[-1:] + torch.tensor([[1.0, -1.0]], dtype=dtype)])
    with torch.no_grad():
        solution = PullbackManifold(Doubled()).geodesic(z0, z1)
        single = PullbackManifold(one).geodesic(z0.sum(1, keepdim=True), z1.sum(1, keepdim=True))
    honest(solution)
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.length[:-1], single.length[:-1], rtol=1e-5, atol=1e-6)
    # the last pair differs in what the decoder does not see
    assert float(solution.length[-1]) < 1e-6
    assert solution.status[-1] in (Status.DEGENERATE, Status.ROUNDING, Status.CONVERGED)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scales_of_outputs(scale: float, dtype: torch.dtype) -> None:
    f = decoder(nn.Tanh()).to(dtype)
    scaled = nn.Sequential(f, nn.Linear(11, 11, bias=False))
    with torch.no_grad():
        scaled[1].weight.copy_(scale * torch.eye(11))
    scaled = scaled.to(dtype)
    z0, z1 = (z.to(dtype) for z in pairs())
    with torch.no_grad():
        plain, solution = PullbackManifold(f).geodesic(z0, z1), PullbackManifold(scaled).geodesic(z0, z1)
    honest(solution)
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.length / scale, plain.length, rtol=1e-5, atol=0)
    torch.testing.assert_close(solution.curve.nodes, plain.curve.nodes, rtol=0, atol=1e-4)


def test_end_points_that_coincide_or_nearly_do() -> None:
    f, (z0, _) = decoder(nn.Tanh()), pairs()
    away = torch.tensor([0.0, 1e-14, 1e-9, 1e-4, 1e-1], dtype=torch.float64)[:, None]
    with torch.no_grad():
        solution = PullbackManifold(f).geodesic(z0, z0 + away)
    honest(solution)
    assert bool(solution.converged.all())
    assert solution.status[0] is Status.COINCIDENT
    assert float(solution.length[0]) == 0
    with torch.no_grad():
        chord = (f(z0 + away) - f(z0)).norm(dim=1)
    torch.testing.assert_close(solution.length[2:4], chord[2:4], rtol=1e-5, atol=0)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Softplus(), nn.Sigmoid()], ids=str)
def test_end_points_far_outside_the_data(activation: nn.Module) -> None:
    f = decoder(activation)
    z0, z1 = pairs(300.0)
    with torch.no_grad():
        solution = PullbackManifold(f).geodesic(z0, z1, Newton(max_steps=60))
    honest(solution)
    assert bool(torch.isfinite(solution.length).all())
    no_longer_than_lines(f, solution, z0, z1)


def test_a_line_is_no_geodesic() -> None:
    """Where descent cannot even begin the line comes back, and is not called a geodesic."""
    f, (z0, z1) = decoder(nn.Tanh()), pairs()
    with torch.no_grad():
        solution = PullbackManifold(f).geodesic(z0, z1, Newton(max_steps=1, tol=1e-12, starts=(StraightLine(),)))
        steps = PullbackManifold(lambda z: torch.round(3 * z) + 0 * z).geodesic(z0, z1, Newton(max_steps=20))
    assert not bool(solution.converged.any())
    assert bool((solution.error_estimate > 0).all())
    # a staircase has no derivative to descend by: all its slopes are zero, and yet it rises
    assert not bool(steps.converged[steps.length > 0].any())
