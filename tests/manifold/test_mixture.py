"""Decoders that return mixtures: closed forms, derivatives, and how far chance carries lengths."""

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.nn.functional import softplus

from pullgeo import Newton, PullbackManifold
from pullgeo.curve import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic import GaussNewton
from pullgeo.likelihood import MonteCarlo, TorchDistribution
from pullgeo.manifold import mixture_error
from pullgeo.manifold.ambient import Flat
from pullgeo.testing.oracles.connection import christoffel

B, D, K = 3, 2, 2


def at(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def tail(s: Tensor) -> Tensor:
    return softplus(s) + 0.5


def of_one(family: Callable[[Tensor], td.Distribution]) -> Callable[[Tensor], td.Distribution]:
    """The mixture whose only component is what a decoder of single numbers returns."""

    def mixture(z: Tensor) -> td.Distribution:
        return td.MixtureSameFamily(td.Categorical(logits=torch.zeros_like(z[:, :1])), family(z), validate_args=False)

    return mixture


ONE = {
    "Normal": lambda z: td.Normal(z[:, :1], tail(z[:, 1:])),
    "LogNormal": lambda z: td.LogNormal(z[:, :1], tail(z[:, 1:])),
    "HalfNormal": lambda z: td.HalfNormal(tail(z[:, :1] + z[:, 1:].sin())),
    "Laplace": lambda z: td.Laplace(z[:, :1], tail(z[:, 1:])),
    "Gumbel": lambda z: td.Gumbel(z[:, :1], tail(z[:, 1:])),
    "StudentT": lambda z: td.StudentT(4.0, z[:, :1], tail(z[:, 1:])),
    "Exponential": lambda z: td.Exponential(tail(z[:, :1] * z[:, 1:])),
    "Gamma": lambda z: td.Gamma(z[:, :1].exp() / 5, tail(z[:, 1:])),
    "Beta": lambda z: td.Beta(z[:, :1].exp() / 5, tail(z[:, 1:])),
    "ContinuousBernoulli": lambda z: td.ContinuousBernoulli(logits=9 * z[:, :1] + z[:, 1:]),
    "VonMises": lambda z: td.VonMises(2 * z[:, :1], tail(3 * z[:, 1:])),
    "Bernoulli": lambda z: td.Bernoulli(logits=z[:, :1] * z[:, 1:]),
    "Binomial": lambda z: td.Binomial(5, logits=z[:, :1] + z[:, 1:]),
    "Categorical": lambda z: td.Categorical(logits=torch.stack([z, z.sin()], 2)[:, :1]),
    "OneHotCategorical": lambda z: td.OneHotCategorical(logits=torch.stack([z, z.sin()], 2)[:, :1]),
    "Poisson": lambda z: td.Poisson(20 * tail(z[:, :1])),
    "Geometric": lambda z: td.Geometric(logits=z[:, :1] - 1),
    "NegativeBinomial": lambda z: td.NegativeBinomial(3.0, logits=z[:, :1] + z[:, 1:]),
}


def points(count: int = B, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return z[0], z[1]


@pytest.mark.parametrize("name", ONE)
def test_a_mixture_of_one_component_is_that_component(name: str) -> None:
    z, _ = points()
    mixture, plain = PullbackManifold(of_one(ONE[name])), PullbackManifold(ONE[name])
    tolerance = 1e-5 if name == "VonMises" else 1e-8  # torch's own density of VonMises is right to 2e-7
    expected = plain.metric(z).dense()
    size = float(expected.abs().max())
    torch.testing.assert_close(mixture.metric(z).dense(), expected, rtol=tolerance, atol=tolerance * size)
    assert "mixture of 1" in repr(mixture)
    assert isinstance(mixture.ambient, Flat) == (name in ("Bernoulli", "Binomial", "Categorical", "OneHotCategorical"))


CLOSED = {
    "N(0, 1) to N(0, e)": (lambda z: td.Normal(z[:, :1], z[:, 1:]), at(0, 1), at(0, math.e), math.sqrt(2)),
    "Bernoulli": (lambda z: td.Bernoulli(probs=z), at(0.2), at(0.8), 1.2870022176),
    "Poisson": (lambda z: td.Poisson(z), at(1), at(4), 2.0),
    "exponential": (lambda z: td.Exponential(z), at(1), at(5), math.log(5)),
    "gamma of shape 3": (lambda z: td.Gamma(3.0, z), at(1), at(5), math.sqrt(3) * math.log(5)),
}


@pytest.mark.parametrize("name", CLOSED)
def test_mixtures_of_one_component_have_its_closed_forms(name: str) -> None:
    decoder, z0, z1, expected = CLOSED[name]
    found = PullbackManifold(of_one(decoder)).geodesic(z0, z1, Newton(segments=128))
    assert bool(found.converged.all())
    assert float(found.length) == pytest.approx(expected, rel=1e-7)


def test_mixing_weights_alone_are_a_categorical_where_components_do_not_overlap() -> None:
    def far_apart(z: Tensor) -> td.Distribution:
        places = torch.tensor([0.0, 50.0, 100.0], dtype=z.dtype).expand(len(z), 3)
        return td.MixtureSameFamily(td.Categorical(logits=torch.cat([z, -z[:, :1]], 1)), td.Normal(places, 1.0))

    z, w = points()
    classes = PullbackManifold(lambda z: td.Categorical(logits=torch.cat([z, -z[:, :1]], 1)))
    for manifold in (PullbackManifold(far_apart), PullbackManifold(far_apart, MonteCarlo(50))):
        torch.testing.assert_close(manifold.metric(z).dense(), classes.metric(z).dense())
        torch.testing.assert_close(manifold.dist(z[:1], w[:1]), classes.dist(z[:1], w[:1]), rtol=1e-3, atol=0)


def network(outputs: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, outputs)).to(dtype).requires_grad_(False)


class Bells(nn.Module):
    """Mixtures of Gaussians in three dimensions, independent, with full covariance or with one of low rank."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.net = kind, network(K + 2 * K * 3)

    def forward(self, z: Tensor) -> td.Distribution:
        logits, loc, scale = self.net(z).split([K, 3 * K, 3 * K], 1)
        loc, scale = 3 * loc.unflatten(1, (K, 3)), tail(scale).unflatten(1, (K, 3))
        component: td.Distribution
        if self.kind == "independent":
            component = td.Independent(td.Normal(loc, scale), 1)
        elif self.kind == "Laplace":
            component = td.Independent(td.Laplace(loc, scale), 1)
        elif self.kind == "full":
            shear = torch.tril(torch.ones(3, 3, dtype=z.dtype), -1) * loc.unsqueeze(2)
            component = td.MultivariateNormal(loc, scale_tril=torch.diag_embed(scale) + 0.1 * shear)
        else:
            component = td.LowRankMultivariateNormal(loc, loc.unsqueeze(3), scale)
        return td.MixtureSameFamily(td.Categorical(logits=logits), component)


KINDS = ["independent", "Laplace", "full", "low rank"]


def by_scores(decoder: nn.Module, z: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """``E[∂ log p ∂ log pᵀ]`` by torch's own sampling and densities, with its standard error."""
    found, errors = [], []
    for row in z:
        x = decoder(row[None]).sample((samples,)).squeeze(1)
        wide = row.expand(samples, -1).clone().requires_grad_()
        score = torch.autograd.grad(decoder(wide).log_prob(x).sum(), wide)[0]
        each = score.unsqueeze(1) * score.unsqueeze(2)
        found.append(each.mean(0))
        errors.append(each.std(0) / samples**0.5)
    return torch.stack(found), torch.stack(errors)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_give_the_information_that_sampled_scores_give(kind: str) -> None:
    z, _ = points()
    decoder = Bells(kind)
    expected, error = by_scores(decoder, z, 20000)
    found = PullbackManifold(decoder, MonteCarlo(5000)).metric(z).dense()
    # both are estimates, of 20000 and of at least 5000 draws
    assert bool(((found - expected).abs() < 3 * math.sqrt(5) * error).all())


@pytest.mark.parametrize("solver", [Newton(), pytest.param(GaussNewton(), marks=pytest.mark.full)])
@pytest.mark.parametrize(  # Laplace's kinks leave no second derivatives
    "kind",
    ["independent", pytest.param("full", marks=pytest.mark.full), pytest.param("low rank", marks=pytest.mark.full)],
)
def test_geodesics_of_drawn_mixtures(kind: str, solver: Newton | GaussNewton) -> None:
    z, w = points()
    manifold = PullbackManifold(Bells(kind), MonteCarlo(60))
    solution = manifold.geodesic(z, w, solver)
    assert bool(solution.converged.all())
    torch.testing.assert_close(manifold.dist(w, z), solution.length, rtol=1e-4, atol=0)
    again = pickle.loads(pickle.dumps(manifold)) if solver == Newton() else copy.deepcopy(manifold)
    torch.testing.assert_close(again.metric(z).dense(), manifold.metric(z).dense(), rtol=0, atol=0)


@pytest.mark.parametrize("draws", [None, MonteCarlo(40)])
def test_the_connection_is_that_of_the_metric(draws: MonteCarlo | None) -> None:
    z, _ = points()
    net = network(3 * K)

    def decoder(z: Tensor) -> td.Distribution:
        logits, loc, scale = net(z).chunk(3, 1)
        return td.MixtureSameFamily(td.Categorical(logits=logits), td.Normal(2 * loc, tail(scale)))

    manifold = PullbackManifold(decoder, draws)
    gamma = christoffel(lambda x: manifold.metric(x).dense(), z)
    torch.testing.assert_close(manifold.christoffel(z), gamma, rtol=1e-5, atol=1e-6)


def test_several_numbers_each_a_mixture_add_up() -> None:
    z, w = points()
    net = network(5 * 3 * K)

    def decoder(z: Tensor, entries: slice = slice(None)) -> td.Distribution:
        logits, loc, scale = net(z).unflatten(1, (5, 3, K))[:, entries].unbind(2)
        return td.MixtureSameFamily(td.Categorical(logits=logits), td.Normal(2 * loc, tail(scale)))

    whole = PullbackManifold(lambda z: td.Independent(decoder(z), 1))
    parts = [PullbackManifold(lambda z, i=i: decoder(z, slice(i, i + 1))).metric(z).dense() for i in range(5)]
    torch.testing.assert_close(whole.metric(z).dense(), torch.stack(parts).sum(0))
    assert "Fisher-Rao of independent mixture of 2 Normal" in repr(whole)
    drawn, curve = PullbackManifold(decoder, MonteCarlo(400)), near(decoder, z, w)
    assert bool(((curve.length(drawn) - curve.length(whole)).abs() < 3 * mixture_error(drawn, curve)).all())


def near(decoder: Callable[[Tensor], td.Distribution], z: Tensor, w: Tensor) -> DiscreteCurve:
    """Curves that are quickly found: shortest for the means."""
    return PullbackManifold(decoder, output="mean").geodesic(z, w).curve


@pytest.mark.full
def test_the_standard_error_is_the_spread_over_seeds() -> None:
    z, w = points()
    decoder = Bells("independent")
    curve = near(decoder, z, w)
    seeds = [PullbackManifold(decoder, MonteCarlo(100, torch.Generator().manual_seed(s))) for s in range(20)]
    spread = torch.stack([curve.length(each) for each in seeds]).std(0)
    said = torch.stack([mixture_error(each, curve) for each in seeds]).mean(0)
    # a Latin hypercube spreads less than independent draws, and is not said to
    assert bool((spread < 1.3 * said).all())
    assert bool((spread > 0.3 * said).all())
    assert float(mixture_error(PullbackManifold(decoder, MonteCarlo(5000)), curve).max()) < float(said.max()) / 4


def test_errors_of_sums_that_are_no_averages() -> None:
    z, w = points()
    for family, largest in ((ONE["Normal"], 1e-6), (ONE["Bernoulli"], 0.0), (ONE["Poisson"], 0.0)):
        manifold = PullbackManifold(of_one(family))
        assert float(mixture_error(manifold, near(family, z, w)).max()) <= largest
    assert mixture_error(manifold, near(family, z[:0], w[:0])).shape == (0,)


@pytest.mark.parametrize("draws", [None, MonteCarlo(30)])
def test_single_precision_and_grad_modes(draws: MonteCarlo | None) -> None:
    z, w = points(1)
    net, single = network(3 * K), network(3 * K, torch.float32)

    def made(net: nn.Module) -> Callable[[Tensor], td.Distribution]:
        def decoder(z: Tensor) -> td.Distribution:
            logits, loc, scale = net(z).chunk(3, 1)
            return td.MixtureSameFamily(td.Categorical(logits=logits), td.Normal(2 * loc, tail(scale)))

        return decoder

    double = PullbackManifold(made(net), draws)
    expected, length = double.metric(z).dense(), double.dist(z, w)
    found = PullbackManifold(made(single), draws)
    torch.testing.assert_close(found.metric(z.float()).dense().double(), expected, rtol=1e-4, atol=1e-4)
    assert found.metric(z.float()).dense().dtype == torch.float32
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(double.metric(z).dense(), expected)
    with torch.no_grad():
        torch.testing.assert_close(double.dist(z, w), length)
    moved = z.clone().requires_grad_()
    double.dist(moved, w).sum().backward()
    step = 1e-4 * torch.randn(1, D, dtype=torch.float64)
    change = (double.dist(z + step, w) - double.dist(z - step, w)).sum() / 2
    torch.testing.assert_close((moved.grad * step).sum(), change, rtol=1e-2, atol=1e-8)


def test_draws_of_one_manifold_are_those_of_all_its_copies() -> None:
    z, _ = points()
    manifold = PullbackManifold(Bells("full"), MonteCarlo(20, torch.Generator().manual_seed(3)))
    copies = [
        copy.deepcopy(manifold),
        manifold.in_double(),
        manifold.with_decoder(Bells("full")),
        PullbackManifold(Bells("full"), MonteCarlo(20, torch.Generator().manual_seed(3))),
    ]
    expected = manifold.metric(z).dense()
    for each in copies:
        torch.testing.assert_close(each.metric(z).dense(), expected, rtol=0, atol=0)
    seed = MonteCarlo(20, torch.Generator().manual_seed(3)).seed
    assert f"by 20 draws of each component, seed {seed}" in repr(manifold)
    assert not torch.allclose(PullbackManifold(Bells("full"), MonteCarlo(20)).metric(z).dense(), expected)


@pytest.mark.parametrize("draws", [None, MonteCarlo(20)])
def test_it_makes_no_difference_who_makes_the_mixtures(draws: MonteCarlo | None) -> None:
    z, w = points()
    bells = Bells("independent")
    net = bells.net

    def make(eta: Tensor) -> td.Distribution:
        bells.net = nn.Identity()
        try:
            return bells(eta)
        finally:
            bells.net = net

    by_decoder = PullbackManifold(Bells("independent"), draws)
    by_likelihood = PullbackManifold(net, TorchDistribution(make, draws=draws))
    torch.testing.assert_close(by_likelihood.metric(z).dense(), by_decoder.metric(z).dense())
    torch.testing.assert_close(by_likelihood.dist(z[:1], w[:1]), by_decoder.dist(z[:1], w[:1]), rtol=1e-4, atol=0)


def test_other_choices_of_output_still_work() -> None:
    z, _ = points()
    decoder = Bells("independent")
    mean = PullbackManifold(decoder, output="mean")
    torch.testing.assert_close(mean.decode(z), decoder(z).mean)
    torch.testing.assert_close(PullbackManifold(decoder).decode(z), decoder(z).mean)
    torch.testing.assert_close(PullbackManifold(decoder).deviation(z), decoder(z).stddev)
    assert PullbackManifold(decoder, output="mean+std").dist(z, z + 0.1).isfinite().all()
    kept = PullbackManifold(lambda z: {"x": decoder(z), "loss": z.sum()})
    torch.testing.assert_close(kept.metric(z).dense(), PullbackManifold(decoder).metric(z).dense())


@pytest.mark.usefixtures("without_type_checks")
def test_draws_are_for_mixtures() -> None:
    z, _ = points()
    with pytest.raises(OptionError, match=r"is for mixtures, and the decoder returns a Poisson.*Leave ambient out"):
        PullbackManifold(lambda z: td.Poisson(z.exp()), MonteCarlo()).metric(z)
    with pytest.raises(OptionError, match="for decoders of mixtures, and this one returns a Tensor"):
        PullbackManifold(lambda z: z.exp(), MonteCarlo()).metric(z)
    with pytest.raises(OptionError, match=r"ambient is the class MonteCarlo.*ambient=MonteCarlo\(...\)"):
        PullbackManifold(lambda z: z.exp(), MonteCarlo)
