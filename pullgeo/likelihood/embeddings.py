"""Isometries from the parameters of a family into a Euclidean space, as modules to put behind a decoder."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo._torch.plain_memory import outside_inference


class Whitening(nn.Module):
    """``μ/σ``: Gaussians with fixed standard deviations.

    Args:
        sigma: the standard deviations, one number or one for each output.
    """

    sigma: Tensor

    def __init__(self, sigma: float | Tensor) -> None:
        super().__init__()
        self.register_buffer("sigma", outside_inference(torch.as_tensor(sigma)), persistent=False)

    def forward(self, eta: Float[Tensor, "b *out"]) -> Float[Tensor, "b *out"]:
        """``μ/σ``."""
        return eta / self.sigma.to(eta.dtype)


class BernoulliAngle(nn.Module):
    """``2 arcsin √p = 2 arctan exp(η/2)`` of the logits ``η``, whose slope is ``√(p (1 - p))``.

    Example:
        >>> BernoulliAngle()(torch.tensor([[0.0, 1e4]]))
        tensor([[1.5708, 3.1416]])
    """

    def forward(self, eta: Float[Tensor, "b *out"]) -> Float[Tensor, "b *out"]:
        """``2 arctan exp(η/2)``."""
        # exp(η) must not overflow in the slope; where it would, the slope is less than any number of this precision
        largest = 0.98 * math.log(torch.finfo(eta.dtype).max)
        return 2 * torch.atan(torch.exp(0.5 * eta.clamp(max=largest)))


class ProbabilityAngle(nn.Module):
    """``2 arcsin √p`` of probabilities, whose slope is ``1/√(p (1 - p))``."""

    def forward(self, eta: Float[Tensor, "b *out"]) -> Float[Tensor, "b *out"]:
        """``2 arcsin √p``."""
        return 2 * torch.asin(torch.sqrt(eta))


class CategoricalSphere(nn.Module):
    """``2 √p`` with ``p`` the softmax of the logits over axis 1: a sphere of radius 2 at each location."""

    def forward(self, eta: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """``2 exp(½ log softmax η)``."""
        return 2 * torch.exp(0.5 * torch.log_softmax(eta, 1))


class PoissonRoot(nn.Module):
    """``2 √λ`` of logarithms of rates."""

    def forward(self, eta: Float[Tensor, "b *out"]) -> Float[Tensor, "b *out"]:
        """``2 exp(η/2)``."""
        return 2 * torch.exp(0.5 * eta)
