"""Likelihoods, each with what torch.distributions says of the same output, and expectations over its targets."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td

from pullgeo.likelihood import (
    Bernoulli,
    BernoulliProbability,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    LogStd,
    LogVariance,
    Poisson,
    Std,
    TorchDistribution,
    Variance,
)

B = 3
SIGMA = torch.tensor([[0.5, 2.0, 3.0], [0.7, 1.5, 1.1]], dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def positive(*shape: int) -> Tensor:
    return normal(*shape).abs() + 0.3


def mean_and(scale: Callable[[Tensor], Tensor]) -> Callable[[Tensor], td.Distribution]:
    return lambda eta: td.Normal(eta.chunk(2, 1)[0], scale(eta.chunk(2, 1)[1]))


def with_positive_scale(*shape: int) -> Tensor:
    return torch.cat([normal(B, *shape), positive(B, *shape)], 1)


def classes_last(eta: Tensor) -> td.Distribution:
    return td.Categorical(logits=eta.movedim(1, -1))


@dataclass(frozen=True, eq=False)
class Case:
    """A likelihood at an output.

    Args:
        likelihood: what is tested.
        truth: the same distribution.
        eta: a batch of outputs.
        support: all targets of one entry, or quadrature nodes and their weights (`continuous`).
    """

    likelihood: Likelihood
    truth: Callable[[Tensor], td.Distribution]
    eta: Tensor
    support: Callable[[], tuple[Tensor, Tensor]]

    def targets(self) -> Tensor:
        torch.manual_seed(1)
        return self.truth(self.eta).sample()


def count(n: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (torch.arange(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))


def continuous(*ends: float, panels: int = 80) -> Callable[[], tuple[Tensor, Tensor]]:
    """Gauss-Legendre nodes in panels between ends at which an integrand may have kinks."""

    def nodes() -> tuple[Tensor, Tensor]:
        x, w = np.polynomial.legendre.leggauss(16)
        cuts = np.concatenate([np.linspace(a, b, panels + 1)[:-1] for a, b in itertools.pairwise(ends)] + [[ends[-1]]])
        half = np.diff(cuts) / 2
        at = (cuts[:-1, None] + half[:, None] * (1 + x)).ravel()
        return torch.as_tensor(at), torch.as_tensor((half[:, None] * w).ravel())

    return nodes


REAL = continuous(-60.0, 60.0, panels=200)

NAMED = {
    "gaussian": Case(Gaussian(0.7), lambda eta: td.Normal(eta, 0.7), normal(B, 2, 3), REAL),
    "gaussian per output": Case(Gaussian(SIGMA), lambda eta: td.Normal(eta, SIGMA), normal(B, 2, 3), REAL),
    "std": Case(HeteroscedasticGaussian(Std()), mean_and(lambda s: s), with_positive_scale(2, 5), REAL),
    "log std": Case(HeteroscedasticGaussian(LogStd()), mean_and(torch.exp), normal(B, 4), REAL),
    "variance": Case(HeteroscedasticGaussian(Variance()), mean_and(torch.sqrt), with_positive_scale(2), REAL),
    "log variance": Case(
        HeteroscedasticGaussian(LogVariance()), mean_and(lambda s: (s / 2).exp()), normal(B, 2, 3), REAL
    ),
    "bernoulli": Case(Bernoulli(), lambda eta: td.Bernoulli(logits=eta), 3 * normal(B, 2, 3), count(2)),
    "probability": Case(
        BernoulliProbability(), lambda eta: td.Bernoulli(probs=eta), torch.sigmoid(normal(B, 5)), count(2)
    ),
    "poisson": Case(Poisson(), lambda eta: td.Poisson(eta.exp()), normal(B, 2, 3), count(60)),
    "categorical": Case(Categorical(), classes_last, 3 * normal(B, 5), count(5)),
    "spatial categorical": Case(Categorical(), classes_last, 3 * normal(B, 5, 2, 3), count(5)),
}


def adapted(
    make: Callable[[Tensor], td.Distribution], eta: Tensor, support: Callable[[], tuple[Tensor, Tensor]]
) -> Case:
    return Case(TorchDistribution(make), make, eta, support)


def both(make: Callable[[Tensor, Tensor], td.Distribution]) -> Callable[[Tensor], td.Distribution]:
    """A distribution of two positive parameters, the softplus of the halves of an output."""
    return lambda eta: make(*torch.nn.functional.softplus(eta).chunk(2, 1))


ADAPTED = {
    "Normal": adapted(lambda eta: td.Normal(eta[:, :2], eta[:, 2:].exp()), normal(B, 4), REAL),
    "Independent": adapted(lambda eta: td.Independent(td.Normal(eta, 0.5 + eta.square()), 1), normal(B, 3), REAL),
    "LogNormal": adapted(
        lambda eta: td.LogNormal(eta[:, :1], 0.5 * torch.sigmoid(eta[:, 1:])),
        normal(B, 2),
        continuous(1e-12, 1, 100, 2000, panels=300),
    ),
    "HalfNormal": adapted(lambda eta: td.HalfNormal(eta.exp()), normal(B, 2), continuous(0, 100, panels=300)),
    "Laplace": adapted(lambda eta: td.Laplace(0.5, eta.exp()), normal(B, 2), continuous(-300, 0.5, 300, panels=300)),
    "StudentT": adapted(
        lambda eta: td.StudentT(9.0, eta[:, :1], eta[:, 1:].exp()),
        normal(B, 2),
        continuous(-3000, -30, 30, 3000, panels=300),
    ),
    "ContinuousBernoulli": adapted(
        lambda eta: td.ContinuousBernoulli(logits=3 * eta), normal(B, 2), continuous(0, 1, panels=20)
    ),
    "ContinuousBernoulli near its centre": adapted(
        lambda eta: td.ContinuousBernoulli(logits=0.08 * eta.tanh()), normal(B, 2), continuous(0, 1, panels=20)
    ),
    "Bernoulli": adapted(lambda eta: td.Bernoulli(logits=2 * eta), normal(B, 2), count(2)),
    "Bernoulli of probabilities": adapted(lambda eta: td.Bernoulli(probs=eta.sigmoid()), normal(B, 2), count(2)),
    "Binomial": adapted(lambda eta: td.Binomial(7, logits=eta), normal(B, 2), count(8)),
    "Geometric": adapted(lambda eta: td.Geometric(logits=eta), normal(B, 2), count(400)),
    "NegativeBinomial": adapted(lambda eta: td.NegativeBinomial(3.5, logits=eta - 1), normal(B, 2), count(400)),
    "NegativeBinomial of probabilities": adapted(
        lambda eta: td.NegativeBinomial(3.5, probs=0.8 * eta.sigmoid()), normal(B, 2), count(400)
    ),
    "Poisson": adapted(lambda eta: td.Poisson(torch.nn.functional.softplus(eta)), normal(B, 2), count(60)),
    "Exponential": adapted(lambda eta: td.Exponential(1 + eta.exp()), normal(B, 2), continuous(0, 50, panels=200)),
    "Gamma": adapted(both(lambda a, b: td.Gamma(2 + a, b)), normal(B, 4), continuous(0, 5, 200, panels=200)),
    "Beta": adapted(both(lambda a, b: td.Beta(2 + a, 3 + b)), normal(B, 4), continuous(0, 1, panels=200)),
    "Gumbel": adapted(both(td.Gumbel), normal(B, 2), continuous(-10, 10, 200, panels=300)),
    "VonMises": adapted(both(td.VonMises), normal(B, 2), continuous(-np.pi, np.pi)),
    "Categorical": adapted(classes_last, normal(B, 5, 2), count(5)),
    "Categorical of probabilities": adapted(
        lambda eta: td.Categorical(probs=eta.square() + 0.1), normal(B, 5), count(5)
    ),
}


def entries(case: Case, eta: Tensor, target: Tensor) -> Tensor:
    """``log p`` of every entry, for outputs that differ along the batch."""
    distribution = case.truth(eta)
    while isinstance(distribution, td.Independent):
        distribution = distribution.base_dist
    return distribution.log_prob(target.reshape(-1, *[1] * (len(distribution.batch_shape) - 1)))


def expected_information(case: Case) -> Tensor:
    """``E[∇ log p ∇ log pᵀ]`` of every sample: entries are independent, so their informations add up."""
    nodes, weights = case.support()
    return torch.stack(list(_informations(case, nodes, weights)))


def _informations(case: Case, nodes: Tensor, weights: Tensor) -> Iterator[Tensor]:
    for row in case.eta:
        eta = row.expand(len(nodes), *row.shape).clone().requires_grad_()
        log_p = entries(case, eta, nodes).reshape(len(nodes), -1)
        total = torch.zeros(row.numel(), row.numel(), dtype=torch.float64)
        for entry in log_p.T:
            score = torch.autograd.grad(entry.sum(), eta, retain_graph=True)[0].reshape(len(nodes), -1)
            mass = weights * entry.detach().exp()
            assert abs(float(mass.sum()) - 1) < 1e-9, "the nodes do not cover the distribution"
            total += torch.einsum("n,ni,nj->ij", mass, score, score)
        yield total
