"""Gaussian observations with fixed noise."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.plain_memory import hold_outside_inference
from pullgeo.errors import ShapeError
from pullgeo.likelihood.base import Likelihood, euclidean, per_sample, positive
from pullgeo.likelihood.embeddings import Whitening
from pullgeo.metric.structured import Diagonal


@dataclass(frozen=True, eq=False)
class Gaussian(Likelihood):
    """``N(η, σ²)`` for each output: the Fisher information is ``1/σ²``, the same everywhere.

    Args:
        sigma: standard deviation, in the unit of the targets: one number, or a tensor that broadcasts to the shape of
            one sample's output.

    Raises:
        OptionError: a standard deviation is not positive.

    Example:
        >>> gaussian = Gaussian(sigma=2.0)
        >>> eta = torch.tensor([[1.0, 2.0]])
        >>> gaussian.fisher(eta).diag()
        tensor([0.2500, 0.2500])
        >>> gaussian.distance(eta, torch.tensor([[4.0, 6.0]]))
        tensor([2.5000])
    """

    sigma: float | Float[Tensor, "..."] = 1.0

    def __post_init__(self) -> None:
        hold_outside_inference(self)
        positive("Gaussian: sigma", self.sigma)

    def fisher(self, eta: Float[Tensor, "b *out"]) -> Diagonal:
        """``diag(1/σ²)``, without a batch."""
        return Diagonal(self._sigma("fisher", eta).square().reciprocal().flatten())

    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Float[Tensor, "k b *out"]:
        """``η + σ ε``."""
        noise = torch.randn(count, *eta.shape, generator=generator, dtype=eta.dtype, device=eta.device)
        return eta + self._sigma("sample", eta) * noise

    @property
    def embedding(self) -> Whitening:
        """``η/σ``."""
        return Whitening(self.sigma)

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """``‖(η - η')/σ‖``."""
        self._check_pair(eta, other)
        return euclidean((eta - other) / self._sigma("distance", eta))

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        sigma = self._sigma("nll", eta)
        return per_sample(0.5 * ((target - eta) / sigma).square() + sigma.log() + 0.5 * math.log(2 * math.pi))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        return (eta - target) / self._sigma("gradient", eta).square()

    def _sigma(self, where: str, eta: Tensor) -> Tensor:
        self._check_eta(where, eta)
        sigma = torch.as_tensor(self.sigma, dtype=eta.dtype, device=eta.device)
        try:
            return sigma.expand(eta.shape[1:])
        except RuntimeError as error:
            raise ShapeError(
                f"Gaussian.{where}: sigma has shape {tuple(sigma.shape)}, which does not broadcast to the output of "
                f"one sample, {tuple(eta.shape[1:])}. It has no batch dimension."
            ) from error
