"""Fisher informations of mixtures, against sums and quadratures with the densities of scipy."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch import distributions as td
from torch.nn.functional import softplus

from pullgeo import linearize
from pullgeo.errors import NonFiniteError, OptionError
from pullgeo.likelihood import MonteCarlo, TorchDistribution
from pullgeo.likelihood.mixture_nodes import Counted, Drawn, Listed, Panels, nodes_of
from pullgeo.testing import check_metric

B, K = 3, 2


def tail(s: Tensor) -> Tensor:
    return softplus(s) + 0.4


@dataclass(frozen=True)
class Case:
    """Mixtures over single numbers.

    Args:
        component: from two tensors ``(b, K)`` of any real numbers to the components.
        density: the same in scipy, from two rows of numpy and values ``(n, 1)`` to ``(n, K)``.
        values: where to sum, and with which weights.
    """

    component: Callable[[Tensor, Tensor], td.Distribution]
    density: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    values: Callable[[], tuple[np.ndarray, np.ndarray]]


def counts(n: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    return lambda: (np.arange(n, dtype=float), np.ones(n))


def line(onto: Callable[[np.ndarray], np.ndarray], ends: float, n: int = 40001) -> Any:
    """The trapezoidal rule in a coordinate on the whole line, whose slope is taken by differences of a few points."""

    def nodes() -> tuple[np.ndarray, np.ndarray]:
        t = np.linspace(-ends, ends, n)
        h = 1e-3
        slope = (8 * (onto(t + h) - onto(t - h)) - (onto(t + 2 * h) - onto(t - 2 * h))) / (12 * h)
        return onto(t), slope * (t[1] - t[0])

    return nodes


def panels(low: float, high: float, number: int, cuts: tuple[float, ...] = ()) -> Any:
    def nodes() -> tuple[np.ndarray, np.ndarray]:
        x, w = np.polynomial.legendre.leggauss(20)
        at = np.unique(np.concatenate([np.linspace(low, high, number + 1), cuts]))
        half = np.diff(at)[:, None] / 2
        return (at[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()

    return nodes


def positive(s: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, s) + 0.4


LOCS = (0.3, -1.1)

CASES = {
    "Normal": Case(
        lambda a, s: td.Normal(2 * a, tail(s)), lambda a, s, x: stats.norm.pdf(x, 2 * a, positive(s)), line(np.sinh, 6)
    ),
    "a narrow Normal": Case(
        lambda a, s: td.Normal(2 * a, torch.cat([tail(s[:, :1]), 0.03 * tail(s[:, 1:])], 1)),
        lambda a, s, x: stats.norm.pdf(x, 2 * a, positive(s) * np.array([1, 0.03])),
        panels(-40, 40, 4000),
    ),
    "Normal in events of one entry": Case(
        lambda a, s: td.Independent(td.Normal(2 * a.unsqueeze(2), tail(s).unsqueeze(2)), 1),
        lambda a, s, x: stats.norm.pdf(x, 2 * a, positive(s)),
        line(np.sinh, 6),
    ),
    "LogNormal": Case(
        lambda a, s: td.LogNormal(a, tail(s)), lambda a, s, x: stats.lognorm.pdf(x, positive(s), 0, np.exp(a)), None
    ),
    "HalfNormal": Case(
        lambda a, s: td.HalfNormal(tail(a + s)),
        lambda a, s, x: stats.halfnorm.pdf(x, 0, positive(a + s)),
        panels(0, 60, 200),
    ),
    "Laplace": Case(
        lambda a, s: td.Laplace(torch.tensor(LOCS, dtype=a.dtype) + 0 * a, tail(s + a)),
        lambda a, s, x: stats.laplace.pdf(x, np.array(LOCS), positive(s + a)),
        panels(-150, 150, 400, LOCS),
    ),
    "Gumbel": Case(
        lambda a, s: td.Gumbel(2 * a, tail(s)),
        lambda a, s, x: stats.gumbel_r.pdf(x, 2 * a, positive(s)),
        line(np.sinh, 6.5),
    ),
    "Cauchy": Case(
        lambda a, s: td.Cauchy(2 * a, tail(s)),
        lambda a, s, x: stats.cauchy.pdf(x, 2 * a, positive(s)),
        line(np.sinh, 24),
    ),
    "StudentT with free degrees": Case(
        lambda a, s: td.StudentT(1 + tail(a * s), 2 * a, tail(s)),
        lambda a, s, x: stats.t.pdf(x, 1 + positive(a * s), 2 * a, positive(s)),
        line(np.sinh, 24),
    ),
    "Exponential": Case(
        lambda a, s: td.Exponential(tail(a + s)), lambda a, s, x: stats.expon.pdf(x, 0, 1 / positive(a + s)), None
    ),
    "Gamma": Case(
        lambda a, s: td.Gamma(tail(a), tail(s)),
        lambda a, s, x: stats.gamma.pdf(x, positive(a), 0, 1 / positive(s)),
        None,
    ),
    "a sharp Gamma": Case(
        lambda a, s: td.Gamma(200 + a, 50 * tail(s)),
        lambda a, s, x: stats.gamma.pdf(x, 200 + a, 0, 1 / (50 * positive(s))),
        None,
    ),
    "Beta": Case(
        lambda a, s: td.Beta(1 + tail(a), 1 + tail(s)),
        lambda a, s, x: stats.beta.pdf(x, 1 + positive(a), 1 + positive(s)),
        line(lambda t: 1 / (1 + np.exp(-t)), 36),
    ),
    "ContinuousBernoulli": Case(
        lambda a, s: td.ContinuousBernoulli(logits=4 * a + s),
        lambda a, s, x: np.exp((4 * a + s) * x) * (4 * a + s) / np.expm1(4 * a + s),
        panels(0, 1, 60),
    ),
    "VonMises": Case(
        lambda a, s: td.VonMises(2 * a, tail(s)),
        lambda a, s, x: stats.vonmises.pdf(x, positive(s), 2 * a),
        panels(-math.pi, math.pi, 60),
    ),
    "Bernoulli": Case(
        lambda a, s: td.Bernoulli(logits=a + s), lambda a, s, x: stats.bernoulli.pmf(x, expit(a + s)), counts(2)
    ),
    "Binomial": Case(
        lambda a, s: td.Binomial(9, logits=a + s), lambda a, s, x: stats.binom.pmf(x, 9, expit(a + s)), counts(10)
    ),
    "Poisson": Case(
        lambda a, s: td.Poisson(3 * tail(a + s)), lambda a, s, x: stats.poisson.pmf(x, 3 * positive(a + s)), counts(200)
    ),
    "Geometric": Case(
        lambda a, s: td.Geometric(logits=a + s - 1),
        lambda a, s, x: stats.geom.pmf(x + 1, expit(a + s - 1)),
        counts(8000),
    ),
    "NegativeBinomial with free size": Case(
        lambda a, s: td.NegativeBinomial(tail(a), logits=s),
        lambda a, s, x: stats.nbinom.pmf(x, positive(a), expit(-s)),
        counts(4000),
    ),
    "Categorical": Case(
        lambda a, s: td.Categorical(logits=torch.stack([a, s, a * s], 2)),
        lambda a, s, x: softmax(np.stack([a, s, a * s]))[x.astype(int)[:, 0]],
        counts(3),
    ),
}


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def made(case: Case, eta: Tensor) -> td.Distribution:
    """A mixture with an output ``(b, 3 K)``: logits, and two numbers of each component."""
    logits, a, s = eta.chunk(3, 1)
    return td.MixtureSameFamily(td.Categorical(logits=logits), case.component(a, s), validate_args=False)


def outputs(b: int = B, k: int = K) -> Tensor:
    return torch.randn(b, 3 * k, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def information(case: Case, eta: Tensor) -> Tensor:
    """``E[∂ log p ∂ log pᵀ]`` with scipy's densities, differentiated by differences of sixth order."""
    with np.errstate(all="ignore"):  # densities far away are zero, and their logarithms infinite
        return torch.as_tensor(np.stack(list(_informations(case, eta))))


def _informations(case: Case, eta: Tensor) -> Iterator[np.ndarray]:
    x, weights = (case.values or line(np.exp, 90))()
    for row in eta.numpy():

        def log_p(row: np.ndarray) -> np.ndarray:
            logits, a, s = np.split(row, 3)
            return np.log(case.density(a, s, x[:, None]) @ softmax(logits))

        h, scores = 5e-4, []
        for i in range(len(row)):
            step = np.eye(len(row))[i] * h
            d = [log_p(row + j * step) - log_p(row - j * step) for j in (1, 2, 3)]
            scores.append((45 * d[0] - 9 * d[1] + d[2]) / (60 * h))
        mass = weights * np.exp(log_p(row))
        assert abs(mass.sum() - 1) < 1e-8, "the values do not cover the distribution"
        score = np.where(mass > 1e-300, np.stack(scores), 0.0)
        score = np.where(np.isfinite(score), score, 0.0)
        yield np.einsum("n,in,jn->ij", mass, score, score)


@pytest.mark.quick(7)
@pytest.mark.parametrize("name", CASES)
def test_mixtures_over_numbers_have_the_information_of_an_independent_sum(name: str) -> None:
    case, eta = CASES[name], outputs()
    found = TorchDistribution(lambda e: made(case, e)).fisher(eta).dense()
    expected = information(case, eta)
    size = expected.diagonal(dim1=1, dim2=2).sqrt()
    # torch's own density of VonMises is right to 2e-7; finite differences of scipy's to about 1e-9
    tolerance = 2e-6 if name == "VonMises" else 1e-7
    assert float(((found - expected).abs() / (size[:, None] * size[:, :, None] + 1e-3)).max()) < tolerance


@pytest.mark.parametrize("name", ["Normal", "LogNormal", "HalfNormal", "Laplace", "Gumbel", "Cauchy", "Exponential"])
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_agree_with_quadrature_within_three_standard_errors(name: str, seed: int) -> None:
    case, eta = CASES[name], outputs()
    draws = MonteCarlo(4000, torch.Generator().manual_seed(seed))
    exact, drawn = (TorchDistribution(lambda e: made(case, e), draws=how).fisher(eta) for how in (None, draws))
    nodes = drawn.M.nodes
    assert isinstance(nodes, Drawn)
    columns = torch.eye(3 * K, dtype=torch.float64).unsqueeze(1).expand(-1, B, -1)
    pushed = linearize(lambda e: nodes.layout.pack(made(case, e)), eta)[1].push(columns)
    squares = drawn.M.squares(pushed.flatten(2)).squeeze(3).unflatten(1, (-1, K))
    error = (squares.var(1) * squares.shape[1]).sum(1).sqrt().mT
    away = (drawn.diag() - exact.diag()).abs()
    assert bool((away <= 3 * error + 1e-12).all())
    assert bool((away > 1e-9).any())


def test_how_expectations_are_taken() -> None:
    def mixture(component: td.Distribution) -> td.MixtureSameFamily:
        return td.MixtureSameFamily(td.Categorical(torch.ones(5, 3)), component)

    ones = torch.ones(5, 3, 4)
    kinds = {
        Panels: td.Normal(ones[..., 0], 1.0),
        Listed: td.Independent(td.Bernoulli(ones / 2), 1),
        Counted: td.Poisson(ones[..., 0]),
        Drawn: td.Independent(td.Normal(ones, 1.0), 1),
    }
    words = ["quadrature", "all 16 values", "sums over counts", "512 draws of each component, seed 0"]
    for (kind, component), text in zip(kinds.items(), words, strict=True):
        nodes = nodes_of(mixture(component), None)
        assert type(nodes) is kind
        assert str(nodes) == text
    assert str(nodes_of(mixture(td.Normal(ones[..., 0], 1.0)), MonteCarlo(7, seed=5))).startswith("7 draws")


@pytest.mark.parametrize("each", [3, 1])
def test_finite_supports_are_summed_over_exactly(each: int) -> None:
    """All events, by loops."""
    p = torch.rand(B, K, each, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def make(eta: Tensor) -> td.Distribution:
        bernoulli = td.Independent(td.Bernoulli(logits=eta[:, K:].unflatten(1, (K, each))), 1)
        return td.MixtureSameFamily(td.Categorical(logits=eta[:, :K]), bernoulli, validate_args=False)

    eta = torch.cat([p.sum(2), torch.logit(p).flatten(1)], 1)
    found = TorchDistribution(make).fisher(eta).dense()
    for row in range(B):
        total = torch.zeros(eta.shape[1], eta.shape[1], dtype=torch.float64)
        for event in itertools.product((0.0, 1.0), repeat=each):
            leaf = eta[row].clone().requires_grad_()
            weights = torch.softmax(leaf[:K], 0)
            inside = [
                weights[k]
                * torch.stack(
                    [q if e else 1 - q for q, e in zip(torch.sigmoid(leaf[K + k * each :][:each]), event, strict=True)]
                ).prod()
                for k in range(K)
            ]
            likelihood = torch.stack(inside).sum()
            score = torch.autograd.grad(likelihood.log(), leaf)[0]
            total += likelihood.detach() * torch.outer(score, score)
        torch.testing.assert_close(found[row], total)


def test_scores_are_a_metric() -> None:
    case, eta = CASES["Normal"], outputs()

    def make(eta: Tensor) -> td.Distribution:
        logits, a, s = eta.chunk(3, 1)
        components = td.Independent(td.Normal(a.unflatten(1, (K, 1)) * torch.ones(4), tail(s).unsqueeze(2)), 1)
        return td.MixtureSameFamily(td.Categorical(logits=logits), components, validate_args=False)

    for how in (lambda e: made(case, e), make):
        M = TorchDistribution(how, draws=MonteCarlo(30)).fisher(eta).M
        check_metric(M)
        assert bool((torch.linalg.eigvalsh(M.dense()) > -1e-12).all())


def test_draws_are_reproducible_and_follow_the_generator() -> None:
    def seeded(seed: int) -> MonteCarlo:
        return MonteCarlo(50, torch.Generator().manual_seed(seed))

    assert repr(MonteCarlo()) == "MonteCarlo(samples=512, seed=0)"
    assert seeded(1).seed == seeded(1).seed != seeded(2).seed
    generator = torch.Generator().manual_seed(1)
    assert MonteCarlo(50, generator).seed != MonteCarlo(50, generator).seed
    case, eta = CASES["Normal"], outputs()
    found = [TorchDistribution(lambda e: made(case, e), draws=seeded(s)).fisher(eta).dense() for s in (1, 1, 2)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not torch.allclose(found[0], found[2])


def nested(component: Callable[[Tensor], td.Distribution]) -> Callable[[Tensor], td.Distribution]:
    return lambda e: td.MixtureSameFamily(td.Categorical(logits=e[:, :K]), component(e), validate_args=False)


@pytest.mark.parametrize(
    ("make", "draws", "error", "words"),
    [
        (nested(lambda e: td.Pareto(tail(e[:, :K]), 3.0)), None, OptionError, "mixture of Pareto.*output='mean'"),
        (
            nested(lambda e: td.Independent(td.Poisson(tail(e[:, :K, None]).expand(-1, -1, 2)), 1)),
            None,
            OptionError,
            r"mixture of 2 independent Poisson: events of shape \(2,\) are counts.*mixture of its own",
        ),
        (
            nested(lambda e: td.Independent(td.Bernoulli(logits=e[:, :K, None].expand(-1, -1, 13)), 1)),
            None,
            OptionError,
            "more than 4096 values to list",
        ),
        (
            nested(lambda e: td.Independent(td.Gamma(tail(e[:, :K, None]).expand(-1, -1, 3), 1.0), 1)),
            None,
            OptionError,
            "no draws that are a smooth function",
        ),
        (
            nested(lambda e: td.Gamma(tail(e[:, :K]), 1.0)),
            MonteCarlo(9),
            OptionError,
            "MonteCarlo: draws of Gamma.*Leave MonteCarlo out",
        ),
        (
            nested(lambda e: td.Binomial(torch.tensor([3.0, 4.0]), logits=e[:, :K])),
            None,
            OptionError,
            "total_count must be one number",
        ),
        (nested(lambda e: td.Poisson(1e6 * tail(e[:, :K]))), None, OptionError, "at most 32768 are summed over"),
        (nested(lambda e: td.StudentT(0.05 + 0 * e[:, :K], 0.0, 1.0)), None, NonFiniteError, "miss a part"),
    ],
)
def test_what_has_no_expectation_is_refused_by_name(
    make: Callable[[Tensor], td.Distribution], draws: MonteCarlo | None, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        TorchDistribution(make, draws=draws).fisher(outputs()).dense()


def test_samples_are_counted() -> None:
    with pytest.raises(OptionError, match="at least 2, got 1"):
        MonteCarlo(1)
