"""Every likelihood against torch.distributions, automatic differentiation and expectations over targets."""

import math

import pytest
import torch
from torch import Tensor
from torch import distributions as td

from pullgeo.errors import OptionError, ShapeError, TargetError
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
from pullgeo.testing import charts, check_metric, oracles
from tests.likelihood.cases import ADAPTED, NAMED, B, Case, expected_information, normal

CASES = NAMED | ADAPTED
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_named_case = pytest.mark.parametrize("case", NAMED.values(), ids=NAMED)


def true_nll(case: Case, eta: Tensor, target: Tensor) -> Tensor:
    return -case.truth(eta).log_prob(target).reshape(len(eta), -1).sum(1)


@every_case
def test_nll_is_the_negative_logarithm_of_the_density(case: Case) -> None:
    target = case.targets()
    torch.testing.assert_close(case.likelihood.nll(case.eta, target), true_nll(case, case.eta, target))


@every_case
def test_gradient_and_hessian_are_derivatives_of_nll(case: Case) -> None:
    target = case.targets()
    eta = case.eta.clone().requires_grad_()
    (expected,) = torch.autograd.grad(true_nll(case, eta, target).sum(), eta)
    torch.testing.assert_close(case.likelihood.gradient(case.eta, target), expected)
    if isinstance(case.truth(case.eta), td.Laplace):
        return  # has no second derivative
    n = case.eta[0].numel()
    hessian = [
        torch.autograd.functional.hessian(lambda e, t=t: true_nll(case, e[None], t[None]).sum(), e).reshape(n, n)
        for e, t in zip(case.eta, target, strict=True)
    ]
    torch.testing.assert_close(case.likelihood.hessian(case.eta, target).dense().expand(B, n, n), torch.stack(hessian))


@pytest.mark.parametrize("name", sorted(set(CASES) - {"VonMises"}))  # torch knows its normalisation to 1e-7 only
def test_fisher_is_the_expected_outer_product_of_scores(name: str) -> None:
    case = CASES[name]
    expected = expected_information(case)
    found = case.likelihood.fisher(case.eta).dense().expand_as(expected)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@every_case
def test_root_is_a_root_of_the_information(case: Case) -> None:
    R = case.likelihood.root(case.eta)
    torch.testing.assert_close(R @ R.mT, case.likelihood.fisher(case.eta).dense().expand(B, -1, -1))


@pytest.mark.parametrize("name", ["gaussian per output", "log std", "bernoulli", "spatial categorical"])
def test_fisher_is_a_metric(name: str) -> None:
    M, expected = NAMED[name].likelihood.fisher(NAMED[name].eta), expected_information(NAMED[name])
    check_metric(M, expected=expected if M.dense().ndim == 3 else expected[0])


def test_an_observed_hessian_is_a_metric() -> None:
    case = NAMED["std"]
    check_metric(case.likelihood.hessian(case.eta, case.targets()))


def test_dirichlet_information_is_its_constant_hessian() -> None:
    make = lambda eta: td.Dirichlet(eta.exp())  # noqa: E731
    case = Case(TorchDistribution(make), make, normal(B, 2, 5), lambda: (torch.empty(0), torch.empty(0)))
    alpha = case.eta.exp().requires_grad_()
    target = case.targets()
    for b in range(B):
        for s in range(2):
            at = alpha[b, s].detach()
            H = torch.autograd.functional.hessian(lambda a, b=b, s=s: -td.Dirichlet(a).log_prob(target[b, s]), at)
            found = case.likelihood.fisher(case.eta).dense().reshape(B, 2, 5, 2, 5)
            torch.testing.assert_close(found[b, s, :, s], at[:, None] * H * at)
            assert not found[b, s, :, 1 - s].any()
    R = case.likelihood.root(case.eta)
    torch.testing.assert_close(R @ R.mT, case.likelihood.fisher(case.eta).dense())


def test_one_hot_targets_are_those_of_classes() -> None:
    eta = normal(B, 5)
    hot = TorchDistribution(lambda e: td.OneHotCategorical(logits=e))
    target = torch.nn.functional.one_hot(torch.tensor([4, 0, 2]), 5).double()
    torch.testing.assert_close(hot.nll(eta, target), Categorical().nll(eta, torch.tensor([4, 0, 2])))
    torch.testing.assert_close(hot.fisher(eta).dense(), Categorical().fisher(eta).dense())


def test_von_mises_information_at_every_concentration() -> None:
    vm = TorchDistribution(lambda eta: td.VonMises(eta[:, :1], eta[:, 1:]))
    for kappa in (1e-6, 1e-3, 0.5, 20.0, 49.0, 51.0, 500.0):
        eta = torch.tensor([[0.3, kappa]], dtype=torch.float64)
        theta = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]
        c, s = (theta - 0.3).cos(), (theta - 0.3).sin()
        p = torch.softmax(kappa * (c - 1), 0)
        mean = (p * c).sum()
        expected = torch.stack([kappa**2 * (p * s * s).sum(), (p * (c - mean) ** 2).sum()])
        torch.testing.assert_close(vm.fisher(eta).diag()[0], expected, rtol=1e-9, atol=0)


# Embeddings and distances


EMBEDDED = {name: case for name, case in NAMED.items() if case.likelihood.embedding is not None}


def test_who_has_an_embedding() -> None:
    assert set(NAMED) - set(EMBEDDED) == {"std", "log std", "variance", "log variance"}


@pytest.mark.parametrize("case", EMBEDDED.values(), ids=EMBEDDED)
def test_embedding_is_an_isometry(case: Case) -> None:
    E = oracles.dense_jacobian(case.likelihood.embedding, case.eta)
    torch.testing.assert_close(E.mT @ E, case.likelihood.fisher(case.eta).dense().expand(B, -1, -1))


@pytest.mark.parametrize(
    ("family", "make"),
    [
        (td.Bernoulli, lambda eta: td.Bernoulli(logits=eta)),
        (td.Poisson, lambda eta: td.Poisson(eta.exp())),
        (td.Exponential, lambda eta: td.Independent(td.Exponential(eta.exp()), 1)),
        (td.HalfNormal, lambda eta: td.HalfNormal(eta.exp())),
        (td.Geometric, lambda eta: td.Geometric(logits=3 * eta)),
        (td.Binomial, lambda eta: td.Binomial(7, logits=eta)),
        (td.NegativeBinomial, lambda eta: td.NegativeBinomial(3.5, logits=3 * eta)),
    ],
)
def test_embedding_of_a_named_family(family: type[td.Distribution], make: object) -> None:
    likelihood, eta = TorchDistribution(make, family), normal(B, 2, 3)
    E = oracles.dense_jacobian(likelihood.embedding, eta)
    torch.testing.assert_close(E.mT @ E, likelihood.fisher(eta).dense())
    assert TorchDistribution(make).embedding is None
    distance = likelihood.distance(eta, eta + 0.1)
    flat = (likelihood.embedding(eta) - likelihood.embedding(eta + 0.1)).reshape(B, -1).norm(dim=1)
    torch.testing.assert_close(distance, flat)


@every_named_case
def test_distance_is_measured_by_the_metric(case: Case) -> None:
    v = normal(*case.eta.shape[:-1], case.eta.shape[-1])
    step = 1e-4
    here, there = case.eta - step / 2 * v, case.eta + step / 2 * v
    speed = case.likelihood.distance(here, there) / step
    torch.testing.assert_close(speed, case.likelihood.fisher(case.eta).norm(v.flatten(1)), rtol=1e-6, atol=0)
    torch.testing.assert_close(case.likelihood.distance(there, here), step * speed)
    assert not case.likelihood.distance(here, here).any()


def at(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("likelihood", "eta", "other", "distance"),
    [
        (Gaussian(2.0), at(1, 2), at(4, 6), 2.5),
        (HeteroscedasticGaussian(Std()), at(0, 1), at(0, math.e), math.sqrt(2)),
        (HeteroscedasticGaussian(LogVariance()), at(0, 0), at(0, 2), math.sqrt(2)),
        (HeteroscedasticGaussian(LogStd()), at(0, 0), at(3, 0), math.sqrt(2) * math.acosh(1 + 9 / 4)),
        (HeteroscedasticGaussian(Variance()), at(1, 4), at(2, 9), math.sqrt(2) * math.acosh(1 + 1.5 / 12)),
        (BernoulliProbability(), at(0.2), at(0.8), 1.2870022176),
        (Bernoulli(), at(math.log(0.25)), at(math.log(4)), 1.2870022176),
        (Categorical(), at(math.log(0.2), math.log(0.8)), at(math.log(0.8), math.log(0.2)), 1.2870022176),
        (Categorical(), at(1e4, 0, 0), at(0, 0, 1e4), math.pi),
        (Poisson(), at(0.0), at(math.log(4)), 2.0),
        (TorchDistribution(td.Exponential), at(1.0), at(math.e), 1.0),
        (TorchDistribution(td.Poisson), at(1.0), at(4.0), 2.0),
    ],
)
def test_known_distances(likelihood: Likelihood, eta: Tensor, other: Tensor, distance: float) -> None:
    assert float(likelihood.distance(eta, other)) == pytest.approx(distance, abs=1e-9)


def test_distances_agree_with_the_charts() -> None:
    x, y = NAMED["std"].eta, NAMED["std"].eta.roll(1, 0)
    chart = charts.GaussianFisherRao(10)
    torch.testing.assert_close(
        HeteroscedasticGaussian(Std()).distance(x, y), chart.distance(x.flatten(1), y.flatten(1))
    )
    p, q = torch.softmax(normal(B, 5), 1), torch.softmax(normal(B, 5).roll(1, 0), 1)
    sphere = charts.CategoricalFisherRao(4).distance(p[:, :4], q[:, :4])
    torch.testing.assert_close(Categorical().distance(p.log(), q.log()), sphere)


def test_distances_are_differentiable_where_they_vanish() -> None:
    for case in NAMED.values():
        eta = case.eta.clone().requires_grad_()
        case.likelihood.distance(eta, case.eta).sum().backward()
        assert bool(eta.grad.isfinite().all())


# Numbers of any size


HUGE = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 1e4]])


@pytest.mark.parametrize("likelihood", [Bernoulli(), Categorical()], ids=["bernoulli", "categorical"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_of_any_size_are_finite(likelihood: Likelihood, dtype: torch.dtype) -> None:
    eta = HUGE.to(dtype).requires_grad_()
    hot = torch.eye(3, dtype=dtype)
    M, v = likelihood.fisher(eta), torch.ones(3, 3, dtype=dtype)
    answers = [
        likelihood.nll(eta, hot),
        likelihood.gradient(eta, hot),
        M.dense(),
        M.diag(),
        M.apply(v),
        likelihood.root(eta),
        likelihood.embedding(eta),
        likelihood.distance(eta, eta.detach().roll(1, 0)),
    ]
    for answer in answers:
        assert bool(answer.isfinite().all())
        (slope,) = torch.autograd.grad(answer.sum(), eta, retain_graph=True)
        assert bool(slope.isfinite().all())
    truth = td.Bernoulli(logits=HUGE.double()) if isinstance(likelihood, Bernoulli) else None
    if truth is not None:
        torch.testing.assert_close(answers[0].double(), -truth.log_prob(hot.double()).sum(1))


def test_small_variances_keep_their_digits() -> None:
    eta = torch.tensor([[80.0, -80.0]], dtype=torch.float64)
    small = math.exp(-80)
    expected = torch.tensor([[small, small]], dtype=torch.float64)
    torch.testing.assert_close(Bernoulli().fisher(eta).diag(), expected, rtol=1e-12, atol=0)
    slope = oracles.dense_jacobian(Bernoulli().embedding, eta).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(slope.square(), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(Bernoulli().nll(eta, torch.tensor([[1.0, 0.0]])), 2 * expected[:, 0], rtol=1e-12, atol=0)


# Samples


@every_case
def test_samples_have_the_score_of_mean_zero(case: Case, generator: torch.Generator) -> None:
    before = torch.random.get_rng_state()
    targets = case.likelihood.sample(case.eta, generator, 2000)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert targets.shape[1:] == case.targets().shape
    flat = targets.reshape(2000 * B, *targets.shape[2:])
    eta = case.eta.expand(2000, *case.eta.shape).reshape(2000 * B, *case.eta.shape[1:])
    g = case.likelihood.gradient(eta, flat).reshape(2000, B, -1)
    z = g.mean(0) / (case.likelihood.fisher(case.eta).diag() / 2000).sqrt()
    assert float(z.abs().max()) < 5
    again = case.likelihood.sample(case.eta, torch.Generator().manual_seed(0), 2000)
    assert torch.equal(targets, again)


# Arguments that do not fit


def test_targets_of_another_shape_are_refused(without_type_checks: None) -> None:
    with pytest.raises(ShapeError, match="target must have the shape of the output"):
        Gaussian().nll(normal(B, 1), normal(B))
    with pytest.raises(ShapeError, match="class indices of shape"):
        Categorical().nll(normal(B, 5), torch.zeros(B, 1, dtype=torch.long))
    with pytest.raises(ShapeError, match="shape of the mean"):
        HeteroscedasticGaussian(Std()).nll(normal(B, 4), normal(B, 4))
    with pytest.raises(ShapeError, match="means first"):
        HeteroscedasticGaussian(Std()).fisher(normal(B, 5))
    with pytest.raises(ShapeError, match="classes along axis 1"):
        Categorical().fisher(normal(B))
    with pytest.raises(ShapeError, match="over targets of shape"):
        TorchDistribution(td.Exponential).nll(normal(B, 2).abs(), normal(B, 1).abs())
    with pytest.raises(ShapeError, match="same shape"):
        Poisson().distance(normal(B, 2), normal(1, 2))
    with pytest.raises(ShapeError, match="does not broadcast"):
        Gaussian(torch.ones(4)).fisher(normal(B, 3))


def test_impossible_targets_are_refused() -> None:
    for likelihood, eta, target in [
        (Categorical(), normal(B, 5), torch.tensor([0, 5, 1])),
        (Categorical(), normal(B, 5), torch.ones(B, 5)),
        (Bernoulli(), normal(B, 2), torch.full((B, 2), 2.0)),
        (BernoulliProbability(), normal(B, 2).sigmoid(), torch.full((B, 2), -0.1)),
        (Poisson(), normal(B, 2), -torch.ones(B, 2)),
        (TorchDistribution(td.Exponential), normal(B, 2).abs(), -torch.ones(B, 2)),
    ]:
        with pytest.raises(TargetError, match="targets are not"):
            likelihood.nll(eta, target)


def test_wrong_options_are_refused(without_type_checks: None) -> None:
    with pytest.raises(OptionError, match="must be positive"):
        Gaussian(0.0)
    with pytest.raises(OptionError, match="scale must be one of"):
        HeteroscedasticGaussian("std")
    with pytest.raises(OptionError, match="scale depends"):
        TorchDistribution(lambda eta: td.Pareto(eta.exp(), 3.0)).fisher(normal(B, 2))
    with pytest.raises(OptionError, match="Kumaraswamy is not known"):
        TorchDistribution(lambda eta: td.Kumaraswamy(eta.exp(), 1.0), td.Kumaraswamy)
    with pytest.raises(OptionError, match="no closed form"):
        TorchDistribution(lambda eta: td.Laplace(eta, 1.0)).distance(normal(B, 2), normal(B, 2))
    counts = TorchDistribution(lambda eta: td.NegativeBinomial(eta.exp(), logits=eta), td.NegativeBinomial)
    for ask in (counts.embedding, lambda eta: counts.distance(eta, eta)):
        with pytest.raises(OptionError, match="total_count depends"):
            ask(normal(B, 2))
