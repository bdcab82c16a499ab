"""Every family of `torch.distributions`: it has its Fisher-Rao metric, or a sentence says why not and what to do."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from mpmath import mp
from torch import Tensor, nn
from torch import distributions as td
from torch.nn.functional import softplus

from pullgeo import PullbackManifold
from pullgeo.errors import ModuleError, OptionError
from pullgeo.likelihood import TorchDistribution, ggn

B, D = 3, 2


def tail(s: Tensor) -> Tensor:
    return softplus(s) + 0.6


def full(s: Tensor) -> Tensor:
    """Covariances ``(b, 2, 2)``."""
    low = torch.stack([tail(s[:, :2]), torch.stack([s[:, 0].sin(), tail(s[:, 2])], 1)], 1).tril()
    return low @ low.mT


@dataclass(frozen=True)
class Works:
    """A family with its metric.

    Args:
        make: from two tensors ``(b, 3)`` of any real numbers.
        events: where to integrate over each entry: a map from the line, or the number of counts; of distributions
            over vectors None, for draws.
    """

    make: Callable[[Tensor, Tensor], td.Distribution]
    events: Callable[[Tensor], Tensor] | int | None = None


WORKS = {
    "Bernoulli": Works(lambda a, s: td.Bernoulli(logits=a), 2),
    "Beta": Works(lambda a, s: td.Beta(1 + tail(a), 1 + tail(s)), torch.sigmoid),
    "Binomial": Works(lambda a, s: td.Binomial(6, logits=a), 7),
    "Categorical": Works(lambda a, s: td.Categorical(logits=torch.stack([a, s, a * s], 2)), 3),
    "Cauchy": Works(lambda a, s: td.Cauchy(a, tail(s)), torch.sinh),
    "Chi2": Works(lambda a, s: td.Chi2(tail(a)), torch.exp),
    "ContinuousBernoulli": Works(lambda a, s: td.ContinuousBernoulli(logits=2 + 2 * tail(a)), torch.sigmoid),
    "Dirichlet": Works(lambda a, s: td.Dirichlet(tail(a))),
    "Exponential": Works(lambda a, s: td.Exponential(tail(a)), torch.exp),
    "Gamma": Works(lambda a, s: td.Gamma(tail(a), tail(s)), torch.exp),
    "Geometric": Works(lambda a, s: td.Geometric(logits=a - 1), 3000),
    "Gumbel": Works(lambda a, s: td.Gumbel(a, tail(s)), torch.sinh),
    "HalfCauchy": Works(lambda a, s: td.HalfCauchy(tail(s)), torch.exp),
    "HalfNormal": Works(lambda a, s: td.HalfNormal(tail(s)), torch.exp),
    "Independent": Works(lambda a, s: td.Independent(td.Normal(a, tail(s)), 1)),
    "InverseGamma": Works(lambda a, s: td.InverseGamma(tail(a), tail(s)), torch.exp),
    "Laplace": Works(lambda a, s: td.Laplace(0 * a, tail(s)), torch.sinh),
    "LogNormal": Works(lambda a, s: td.LogNormal(a, tail(s)), torch.exp),
    "LogisticNormal": Works(lambda a, s: td.LogisticNormal(a, tail(s))),
    "LowRankMultivariateNormal": Works(lambda a, s: td.LowRankMultivariateNormal(a, s.unsqueeze(2), tail(a))),
    "MixtureSameFamily": Works(
        lambda a, s: td.MixtureSameFamily(td.Categorical(logits=a), td.Normal(a * s, tail(s))), torch.sinh
    ),
    "Multinomial": Works(lambda a, s: td.Multinomial(5, logits=torch.cat([a, s], 1))),
    "MultivariateNormal": Works(lambda a, s: td.MultivariateNormal(a[:, :2], full(s))),
    "NegativeBinomial": Works(lambda a, s: td.NegativeBinomial(tail(a), logits=s - 1), 3000),
    "NegativeBinomial of fixed size": Works(lambda a, s: td.NegativeBinomial(2.5, logits=s - 1), 3000),
    "NegativeBinomial of fixed odds": Works(
        lambda a, s: td.NegativeBinomial(tail(a), logits=torch.zeros_like(a)), 3000
    ),
    "Normal": Works(lambda a, s: td.Normal(a, tail(s)), torch.sinh),
    "OneHotCategorical": Works(lambda a, s: td.OneHotCategorical(logits=torch.cat([a, s], 1))),
    "OneHotCategoricalStraightThrough": Works(
        lambda a, s: td.OneHotCategoricalStraightThrough(logits=torch.cat([a, s], 1))
    ),
    "Pareto": Works(lambda a, s: td.Pareto(torch.ones_like(a), tail(a)), lambda t: 1 + t.exp()),
    "Poisson": Works(lambda a, s: td.Poisson(3 * tail(a)), 100),
    "RelaxedBernoulli": Works(lambda a, s: td.RelaxedBernoulli(a.new_tensor(0.7), logits=a), torch.sigmoid),
    "RelaxedOneHotCategorical": Works(
        lambda a, s: td.RelaxedOneHotCategorical(a.new_tensor(0.7), logits=torch.cat([a, s], 1))
    ),
    "StudentT": Works(lambda a, s: td.StudentT(1 + tail(a), a, tail(s)), torch.sinh),
    "StudentT of fixed degrees": Works(lambda a, s: td.StudentT(3.0, a, tail(s)), torch.sinh),
    "TransformedDistribution": Works(
        lambda a, s: td.TransformedDistribution(
            td.Normal(a, tail(s)), [td.AffineTransform(0.5, 2.0), td.ExpTransform()]
        ),
        torch.exp,
    ),
    "VonMises": Works(lambda a, s: td.VonMises(a, tail(s)), lambda t: 2 * math.pi * torch.sigmoid(t) - math.pi),
    "Weibull": Works(lambda a, s: td.Weibull(tail(a), tail(s)), torch.exp),
    "Wishart": Works(lambda a, s: td.Wishart(a.new_tensor(4.0), covariance_matrix=full(s))),
}
REFUSED = {
    "FisherSnedecor": (lambda a, s: td.FisherSnedecor(tail(a), tail(s)), "no closed form.*output='mean'"),
    "GeneralizedPareto": (lambda a, s: td.GeneralizedPareto(a, tail(s), tail(s)), "which values are possible depends"),
    "Kumaraswamy": (lambda a, s: td.Kumaraswamy(tail(a), tail(s)), "Kumaraswamy is not known.*Register it"),
    "LKJCholesky": (lambda a, s: td.LKJCholesky(3, tail(a[:, 0])), "is not known.*output='concentration'"),
    "Pareto": (lambda a, s: td.Pareto(tail(a), tail(s)), "scale of the Pareto depends on the latent"),
    "RelaxedBernoulli": (lambda a, s: td.RelaxedBernoulli(tail(a), logits=s), "temperature of the RelaxedBernoulli"),
    "TransformedDistribution": (
        lambda a, s: td.TransformedDistribution(td.Normal(a, tail(s)), [td.AffineTransform(a, tail(s))]),
        "transforms of a TransformedDistribution depend on the latent.*Put what depends",
    ),
    "transforms that are not one to one": (
        lambda a, s: td.TransformedDistribution(td.Normal(a, tail(s)), [td.transforms.AbsTransform()]),
        "are not one to one",
    ),
    "Uniform": (lambda a, s: td.Uniform(a, a + tail(s)), "which values are possible depends.*output='mean'"),
    "Wishart": (lambda a, s: td.Wishart(2 + tail(a[:, 0]), covariance_matrix=full(s)), "df.detach()"),
}
BASES = {"Distribution", "ExponentialFamily"}


def heads() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 6)).double().requires_grad_(False)


def decoder(make: Callable[[Tensor, Tensor], td.Distribution]) -> Callable[[Tensor], td.Distribution]:
    net = heads()
    return lambda z: make(*net(z).chunk(2, 1))


def points() -> tuple[Tensor, Tensor]:
    z = torch.randn(2, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


def test_every_family_of_torch_is_in_a_table() -> None:
    families = {
        n for n in td.__all__ if isinstance(getattr(td, n), type) and issubclass(getattr(td, n), td.Distribution)
    }
    assert families - BASES <= set(WORKS) | set(REFUSED)


def nodes(events: Callable[[Tensor], Tensor] | int) -> tuple[Tensor, Tensor]:
    if isinstance(events, int):
        return torch.arange(float(events), dtype=torch.float64), torch.ones(events, dtype=torch.float64)
    ends = {torch.sinh: 40.0, torch.exp: 60.0}.get(events, 36.0)
    t = torch.linspace(-ends, ends, 12001, dtype=torch.float64).requires_grad_()
    x = events(t)
    return x.detach(), torch.autograd.grad(x.sum(), t)[0] * (t[1] - t[0]).detach()


def information(family: Works, z: Tensor) -> tuple[Tensor, Tensor | float]:
    """``E[∂ log p ∂ log pᵀ]`` by torch's densities, with its standard error where it is an average of draws."""
    make, found, errors = decoder(family.make), [], []
    torch.manual_seed(5)
    for row in z:
        if family.events is None:
            x = make(row[None]).sample((40000,)).squeeze(1)
            wide = row.expand(len(x), -1).clone().requires_grad_()
            score = torch.autograd.grad(make(wide).log_prob(x).sum(), wide)[0]
            each = score.unsqueeze(1) * score.unsqueeze(2)
            found.append(each.mean(0))
            errors.append(each.std(0) / len(x) ** 0.5)
            continue
        x, weights = nodes(family.events)
        wide = row.expand(len(x), -1).clone().requires_grad_()
        p = make(wide)
        log_p = p.log_prob(x.reshape(-1, *[1] * (len(p.batch_shape) - 1)).expand(p.batch_shape)).reshape(len(x), -1)
        total = torch.zeros(D, D, dtype=torch.float64)
        for entry in log_p.T:
            score = torch.autograd.grad(entry[entry.isfinite()].sum(), wide, retain_graph=True)[0].nan_to_num(0, 0, 0)
            mass = (weights * entry.detach().exp()).nan_to_num(0, 0, 0)
            assert abs(float(mass.sum()) - 1) < 1e-5
            total += torch.einsum("n,ni,nj->ij", mass, score, score)
        found.append(total)
    return torch.stack(found), torch.stack(errors) if errors else 0.0


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.filterwarnings("ignore:Singular sample detected")  # of torch's Wishart
def test_families_have_the_information_of_their_densities(name: str) -> None:
    family, (z, _) = WORKS[name], points()
    td.Distribution.set_default_validate_args(False)
    try:
        expected, error = information(family, z)
    finally:
        td.Distribution.set_default_validate_args(True)
    found = PullbackManifold(decoder(family.make)).metric(z).dense()
    size = expected.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    tolerance = 1e-5 if name == "Laplace" else 1e-6  # its kink is a node of the trapezoidal rule
    assert bool(((found - expected).abs() <= 4 * error + tolerance * size).all()), (found - expected).abs() / size


@pytest.mark.quick(13)
@pytest.mark.parametrize("name", WORKS)
def test_families_have_geodesics(name: str) -> None:
    z, w = points()
    manifold = PullbackManifold(decoder(WORKS[name].make))
    solution = manifold.geodesic(z, w)
    assert bool(solution.converged.all())
    torch.testing.assert_close(manifold.dist(w, z), solution.length, rtol=1e-5, atol=0)
    if name not in ("Cauchy", "HalfCauchy", "InverseGamma", "StudentT"):  # where means may be missing
        assert manifold.decode(z).isfinite().all()


@pytest.mark.parametrize("name", [name for name in REFUSED if hasattr(td, name)])  # older torch lacks some
def test_what_is_refused_is_refused_by_a_sentence(name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises((OptionError, ModuleError), match=words):
        PullbackManifold(decoder(make)).metric(points()[0])


@pytest.mark.parametrize("name", ["NegativeBinomial", "StudentT"])
def test_parameters_that_move_through_a_likelihood(name: str) -> None:
    z, w = points()
    net, make = heads(), WORKS[name].make

    def of_outputs(eta: Tensor) -> td.Distribution:
        return make(*eta.chunk(2, 1))

    by_decoder, by_likelihood = PullbackManifold(decoder(make)), PullbackManifold(net, TorchDistribution(of_outputs))
    torch.testing.assert_close(by_likelihood.metric(z).dense(), by_decoder.metric(z).dense())
    torch.testing.assert_close(ggn(net, z, TorchDistribution(of_outputs)).dense(), by_decoder.metric(z).dense())
    torch.testing.assert_close(by_likelihood.dist(z, w), by_decoder.dist(z, w), rtol=1e-4, atol=0)


@pytest.mark.parametrize("r", [1e-3, 0.3, 2.0, 50.0, 1e4])
@pytest.mark.parametrize("logits", [-12.0, -1.0, 3.0, 9.0])
def test_the_size_of_negative_binomials_over_its_whole_range(r: float, logits: float) -> None:
    """``Σ_j P(X > j)/(r + j)²`` in many digits, where the sum is short enough; else Gauss's rule by mpmath."""
    mp.dps = 30
    size, odds = mp.mpf(r), mp.exp(mp.mpf(logits))
    cuts = sorted({mp.mpf(0), 1 / odds / 100, 1 / odds, 100 / odds, 1 / size / 100, 1 / size, 10 / size, mp.mpf(1)})
    expected = mp.quad(
        lambda t: t * mp.exp(-size * t) / -mp.expm1(-t) * -mp.expm1(-size * mp.log1p(odds * -mp.expm1(-t))),
        [*(c for c in cuts if c < 90 / size), 90 / size],
    )
    if r <= 50 and logits <= 3:
        p, direct, left, term = odds / (1 + odds), mp.mpf(0), mp.mpf(1), (1 + odds) ** -size
        for j in range(3000):
            left -= term
            direct += left / (size + j) ** 2
            term *= p * (size + j) / (j + 1)
        assert abs(direct / expected - 1) < 1e-9
    eta = torch.tensor([[r, logits]], dtype=torch.float64)
    found = TorchDistribution(lambda e: td.NegativeBinomial(e[:, :1], logits=e[:, 1:])).fisher(eta).dense()[0]
    assert float(found[0, 0]) == pytest.approx(float(expected), rel=1e-10)
    assert float(found[0, 1]) == pytest.approx(float(odds / (1 + odds)), rel=1e-12)


@pytest.mark.parametrize("nu", [0.3, 4.0, 99.0, 101.0, 1e3, 1e6])
def test_the_degrees_of_student_over_their_whole_range(nu: float) -> None:
    mp.dps = 50
    n = mp.mpf(nu)
    expected = (mp.psi(1, n / 2) - mp.psi(1, (n + 1) / 2)) / 4 - (n + 5) / (2 * n * (n + 1) * (n + 3))
    eta = torch.tensor([[nu]], dtype=torch.float64)
    found = TorchDistribution(lambda e: td.StudentT(e, 0.0, torch.ones_like(e))).fisher(eta).dense()
    assert float(found) == pytest.approx(float(expected), rel=1e-8)
