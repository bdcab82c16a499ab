"""The average length of Gaussian vectors."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

STEP = 0.125
"""Of the trapezoidal rule: the integrand is analytic up to an imaginary part of π/4 or more, so that its error is
``exp(-2π (π/4) / STEP)``, less than 1e-17."""

LAST = 20.0
"""Where the integrand, which falls like ``exp(-2x)`` in one dimension and faster in more, has ended: 1e-17."""

TOGETHER = 24
"""Nodes of the rule that are evaluated together, as far as they go into NUMBERS numbers; few vectors need more."""

NUMBERS = 2**20


def expected_norm(mean: Float[Tensor, "*b D"], deviation: Float[Tensor, "*b D"]) -> Float[Tensor, "*b"]:
    """``E ‖m + s ∘ ε‖`` with standard normal ε: the average length of Gaussian vectors with independent entries.

    With ``Q = ‖m + s ∘ ε‖²``, ``√Q = 2/√π ∫₀^∞ Q exp(-u² Q) du``, and the average of ``Q exp(-t Q)`` is ``-M'(t)`` for

        ``M(t) = E exp(-t Q) = Π_i (1 + 2 t s_i²)^(-½) exp(-t m_i² / (1 + 2 t s_i²))``.

    The integral is taken by the trapezoidal rule in x, ``u = sinh(x)/√(E Q)``, which converges exponentially. If all s
    are the same it is ``s √2 Γ((D+1)/2)/Γ(D/2) ₁F₁(-½; D/2; -‖m‖²/(2s²))``, the mean of a non-central Nakagami
    variable. Differentiable as often as wanted; where m and s vanish all derivatives are zero.

    Args:
        mean: ``m``, in float64 for more than single precision.
        deviation: ``s``, of either sign.

    Cost: some ``20 D`` to ``160 D`` operations a vector: the more entries of the same size, the fewer.

    Example:
        >>> float(expected_norm(torch.zeros(2), torch.ones(2)))  # √(π/2)
        1.25331...
        >>> float(expected_norm(torch.tensor([3.0, 4.0]), torch.zeros(2)))
        5.0...
    """
    square = mean.square() + deviation.square()
    total = square.sum(-1, keepdim=True)
    scale = torch.where(total > 0, total, 1.0)
    a, b = mean.square() / scale, deviation.square() / scale
    a, b = a.unsqueeze(-1), b.unsqueeze(-1)
    least = torch.finfo(mean.dtype).eps / 16
    integral = torch.zeros_like(total.squeeze(-1))
    for x in _nodes(mean).split(min(TOGETHER, max(1, NUMBERS // max(1, mean.numel())))):
        t = x.sinh().square()
        stretch = 1 + 2 * t * b
        log_m = -(0.5 * torch.log1p(2 * t * b) + t * a / stretch).sum(-2)
        slope = ((b + a / stretch) / stretch).sum(-2)
        # half at the middle of a function that is the same on both sides
        weight = torch.where(x == 0, 0.5, x.cosh())
        terms = weight * log_m.exp() * slope
        integral = integral + terms.sum(-1)
        if float(x[-1]) > 1 and bool((terms[..., -1].detach() <= least * integral.detach()).all()):
            break
    return 2 / math.sqrt(math.pi) * STEP * integral * scale.squeeze(-1).sqrt()


def _nodes(like: Tensor) -> Float[Tensor, " k"]:
    return STEP * torch.arange(round(LAST / STEP) + 1, dtype=like.dtype, device=like.device)
