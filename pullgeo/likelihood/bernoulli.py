"""Binary observations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pullgeo.likelihood.base import Likelihood, euclidean, per_sample
from pullgeo.likelihood.embeddings import BernoulliAngle, ProbabilityAngle
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Diagonal


@dataclass(frozen=True, eq=False)
class Bernoulli(Likelihood):
    """Zeros and ones with logits ``η = log p/(1 - p)``, one for each output: the Fisher information is ``p (1 - p)``.

    Targets may lie between zero and one, as grey values do. Everything is finite for logits of any size.

    Example:
        >>> Bernoulli().fisher(torch.tensor([[0.0, 1e4]])).diag()
        tensor([[0.2500, 0.0000]])
    """

    def fisher(self, eta: Float[Tensor, "b *out"]) -> Diagonal:
        """``diag(p (1 - p))``."""
        self._check_eta("fisher", eta)
        values = torch.sigmoid(eta) * torch.sigmoid(-eta)
        return Diagonal(values.reshape(len(eta), eta.shape[1:].numel()))

    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Float[Tensor, "k b *out"]:
        """Zeros and ones."""
        self._check_eta("sample", eta)
        return torch.bernoulli(torch.sigmoid(eta).expand(count, *eta.shape), generator=generator)

    @property
    def embedding(self) -> BernoulliAngle:
        """``2 arcsin √p``."""
        return BernoulliAngle()

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """``‖2 arcsin √p - 2 arcsin √p'‖``."""
        self._check_pair(eta, other)
        return euclidean(self.embedding(eta) - self.embedding(other))

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        return per_sample(-target * F.logsigmoid(eta) - (1 - target) * F.logsigmoid(-eta))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        return torch.sigmoid(eta) - target

    def _checked(self, where: str, eta: Tensor, target: Tensor) -> Tensor:
        target = super()._checked(where, eta, target)
        self._require(where, (target >= 0) & (target <= 1), "between 0 and 1")
        return target


@dataclass(frozen=True, eq=False)
class BernoulliProbability(Likelihood):
    """Zeros and ones whose probabilities ``η`` the network puts out itself, behind a sigmoid for instance.

    The Fisher information ``1/(p (1 - p))`` is infinite at 0 and 1, which a sigmoid reaches by rounding: with logits at
    hand use `Bernoulli`.

    Example:
        >>> BernoulliProbability().distance(torch.tensor([[0.2]]), torch.tensor([[0.8]]))
        tensor([1.2870])
    """

    def fisher(self, eta: Float[Tensor, "b *out"]) -> Diagonal:
        """``diag 1/(p (1 - p))``."""
        self._check_eta("fisher", eta)
        return Diagonal((eta * (1 - eta)).reciprocal().reshape(len(eta), eta.shape[1:].numel()))

    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Float[Tensor, "k b *out"]:
        """Zeros and ones."""
        self._check_eta("sample", eta)
        return torch.bernoulli(eta.expand(count, *eta.shape), generator=generator)

    @property
    def embedding(self) -> ProbabilityAngle:
        """``2 arcsin √p``."""
        return ProbabilityAngle()

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """``‖2 arcsin √p - 2 arcsin √p'‖``."""
        self._check_pair(eta, other)
        return euclidean(self.embedding(eta) - self.embedding(other))

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        return per_sample(-torch.xlogy(target, eta) - torch.special.xlog1py(1 - target, -eta))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        return (eta - target) / (eta * (1 - eta))

    def _hessian(self, eta: Tensor, target: Tensor) -> Metric:
        values = target / eta.square() + (1 - target) / (1 - eta).square()
        return Diagonal(values.reshape(len(eta), eta.shape[1:].numel()))

    def _checked(self, where: str, eta: Tensor, target: Tensor) -> Tensor:
        target = super()._checked(where, eta, target)
        self._require(where, (target >= 0) & (target <= 1), "between 0 and 1")
        return target
