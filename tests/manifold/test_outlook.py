"""How geodesics go on behind a stretch, where that is known in closed form."""

import torch
from torch import Tensor

from pullgeo.manifold.bvp.outlook import Outlook
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.numerics.ode.gauss_legendre import gauss

STAGES = 16


def acceleration(t: Tensor, pole: complex, power: float) -> Tensor:
    """``Re`` and ``Im`` of a vector times ``(1 - t/p)⁻ᵏ``."""
    value = (0.3 + 0.4j) * (1 - t / pole) ** -power
    return torch.stack([value.real, value.imag], -1)


def piece(h: Tensor, accelerations: Tensor) -> Pieces:
    """One piece of each curve, from rest."""
    zero = torch.zeros(len(h), 2, dtype=torch.float64)
    at_rest = zero.unsqueeze(1)
    return Pieces(torch.stack([0 * h, h], 1), zero, at_rest, at_rest, accelerations.unsqueeze(1), zero)


def test_circles_through_infinity_go_on_as_they_must() -> None:
    poles = [1.5 + 0.5j, -0.7 + 0.1j, 0.5 + 2j]
    h = torch.tensor([0.25, 0.125, 0.5], dtype=torch.float64)
    t = h.unsqueeze(1) * torch.as_tensor(gauss(STAGES).points)
    values = torch.stack([acceleration(t[i], pole, 3.0) for i, pole in enumerate(poles)])
    outlook = Outlook.behind(piece(h, values))
    left = torch.tensor([p - float(d) for p, d in zip(poles, h, strict=True)], dtype=torch.complex128)
    found = 1 / outlook.inverse
    # either side of a plane may be up
    torch.testing.assert_close(torch.complex(found.real, found.imag.abs()), left, rtol=1e-6, atol=0)
    ahead = 0.5 * outlook.longest
    times = h.unsqueeze(1) + ahead.unsqueeze(1) * torch.as_tensor(gauss(6).points)
    exact = torch.stack([acceleration(times[i], pole, 3.0) for i, pole in enumerate(poles)])
    torch.testing.assert_close(outlook.accelerations(ahead, 6), exact, rtol=1e-5, atol=1e-7)
    # in an ellipse around a stretch that polynomials converge on
    sums = left.abs() + (left - outlook.longest).abs()
    assert bool((sums > 2.2 * outlook.longest).all())


def test_exponential_growth_and_straight_lines() -> None:
    start = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    outlook = Outlook.ahead(start, -3.0 * start)
    assert bool(torch.isfinite(outlook.accelerations(torch.full((2,), 0.3, dtype=torch.float64), 6)).all())
    assert float(outlook.longest[1]) > 1e3
    h = torch.tensor([0.5], dtype=torch.float64)
    t = h.unsqueeze(1) * torch.as_tensor(gauss(STAGES).points)
    values = torch.exp(-2 * t).unsqueeze(2) * start[:1].unsqueeze(1)
    decay = Outlook.behind(piece(h, values))
    times = h.unsqueeze(1) + 0.7 * torch.as_tensor(gauss(6).points)
    exact = torch.exp(-2 * times).unsqueeze(2) * start[:1].unsqueeze(1)
    torch.testing.assert_close(
        decay.accelerations(torch.tensor([0.7], dtype=torch.float64), 6), exact, rtol=0.02, atol=0
    )
