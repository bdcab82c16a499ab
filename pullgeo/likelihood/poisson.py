"""Counts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.likelihood.base import Likelihood, euclidean, per_sample
from pullgeo.likelihood.embeddings import PoissonRoot
from pullgeo.metric.structured import Diagonal


@dataclass(frozen=True, eq=False)
class Poisson(Likelihood):
    """Counts with rates ``λ = exp η``, one for each output: the Fisher information is ``λ``.

    Targets are not negative; they need not be whole, as normalised counts are not.

    Example:
        >>> Poisson().distance(torch.tensor([[1.0]]).log(), torch.tensor([[4.0]]).log())
        tensor([2.])
    """

    def fisher(self, eta: Float[Tensor, "b *out"]) -> Diagonal:
        """``diag λ``."""
        self._check_eta("fisher", eta)
        return Diagonal(eta.exp().reshape(len(eta), eta.shape[1:].numel()))

    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Float[Tensor, "k b *out"]:
        """Whole numbers."""
        self._check_eta("sample", eta)
        return torch.poisson(eta.exp().expand(count, *eta.shape), generator=generator)

    @property
    def embedding(self) -> PoissonRoot:
        """``2 √λ``."""
        return PoissonRoot()

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """``‖2 √λ - 2 √λ'‖``."""
        self._check_pair(eta, other)
        return euclidean(self.embedding(eta) - self.embedding(other))

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        return per_sample(eta.exp() - target * eta + torch.lgamma(target + 1))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        return eta.exp() - target

    def _checked(self, where: str, eta: Tensor, target: Tensor) -> Tensor:
        target = super()._checked(where, eta, target)
        self._require(where, target >= 0, "zero or more")
        return target
