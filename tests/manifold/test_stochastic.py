"""Decoders with uncertainty: their pullback is the expected metric, by averages over members and over noise."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pullgeo import PullbackManifold, linearize
from pullgeo.errors import ModuleError, OptionError, ShapeError
from pullgeo.jacobian import Graph, explain
from pullgeo.manifold import Ensemble, MeanAndDeviation, RBFDeviation, mean_and_deviation
from pullgeo.testing.oracles.jacobians import dense_jacobian

B, D, OUT = 3, 2, 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def latents(count: int = B) -> Tensor:
    return torch.randn(count, D, dtype=torch.float64, generator=generator(1))


def network(*last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, OUT), *last).double()


def metric(decoder: nn.Module, z: Tensor) -> Tensor:
    J = dense_jacobian(decoder, z)
    return J.mT @ J


def test_ensemble_averages_the_metrics_of_its_members() -> None:
    members = [network(), network(nn.Unflatten(1, (1, OUT))), network()]
    z, ensemble = latents(), Ensemble(members)
    average = sum(metric(member, z) for member in members) / 3
    manifold = PullbackManifold(ensemble)
    torch.testing.assert_close(manifold.metric(z).dense(), average)
    assert isinstance(linearize(ensemble, z)[1], Graph)  # by the rules of its layers
    energies = sum(PullbackManifold(member).energy(z.unsqueeze(0)) for member in members) / 3
    torch.testing.assert_close(manifold.energy(z.unsqueeze(0)), energies)
    assert bool(torch.isfinite(PullbackManifold(Ensemble(members).float()).dist(z.float(), z.flip(0).float())).all())


def test_samples_of_weights() -> None:
    module, z = network(), latents()
    vector = parameters_to_vector(module.parameters()).detach()
    samples = (vector + 0.3 * torch.randn(3, len(vector), dtype=torch.float64, generator=generator())).requires_grad_()
    manifold = PullbackManifold(Ensemble.of_weights(module, samples))
    expected = torch.zeros(B, D, D, dtype=torch.float64)
    for sample in samples.detach():
        member = copy.deepcopy(module)
        vector_to_parameters(sample, member.parameters())
        expected = expected + metric(member, z) / 3
    torch.testing.assert_close(manifold.metric(z).dense(), expected)
    torch.testing.assert_close(parameters_to_vector(module.parameters()), vector)
    manifold.dist(z[:1], z[1:2]).sum().backward()
    assert bool((samples.grad != 0).any(1).all())


def test_dropout_masks_are_drawn_once_and_average_to_the_network() -> None:
    module = nn.Sequential(nn.Linear(D, 6), nn.Dropout(0.4), nn.Unflatten(1, (3, 2)), nn.Dropout1d(0.3)).double()
    module.train()
    z = latents()
    ensemble = Ensemble.of_dropout(module, z[:1], 100, generator())
    assert module.training
    first = ensemble(z)
    torch.testing.assert_close(ensemble(z), first)
    torch.testing.assert_close(Ensemble.of_dropout(module, z[:1], 100, generator())(z), first)
    outputs = (first * 100**0.5).unflatten(1, (100, 6)).detach()
    plain = copy.deepcopy(module).eval()(z).flatten(1).detach()
    kept = outputs / plain.unsqueeze(1)
    # a unit is kept with probability 0.6, its channel with 0.7, and then enlarged
    assert set(kept.round(decimals=6).unique().tolist()) == {0.0, round(1 / 0.42, 6)}
    assert float((kept.mean((0, 1)) - 1).abs().max()) < 0.4
    # the two units of a channel fall together where only the second layer has drawn
    assert ensemble.member0[0].weight is module[0].weight
    member = metric(ensemble.member0, z)
    assert torch.linalg.matrix_rank(member[0]) <= 2


def test_expected_metric_of_a_gaussian_decoder() -> None:
    mean, deviation, z = network(), network(nn.Softplus()), latents()
    decoder = MeanAndDeviation(mean, deviation)
    G = PullbackManifold(decoder).metric(z).dense()
    torch.testing.assert_close(G, metric(mean, z) + metric(deviation, z))
    J, S = dense_jacobian(mean, z), dense_jacobian(deviation, z)
    drawn = J + S * torch.randn(100_000, 1, OUT, 1, dtype=torch.float64, generator=generator())
    sampled = drawn.mT @ drawn
    # all twelve entries within three standard errors of the average over drawn decoders
    error = sampled.std(0) / len(sampled) ** 0.5
    assert float(((sampled.mean(0) - G).abs() / error).max().detach()) < 3
    assert float((error / G.diagonal(dim1=1, dim2=2).mean()).max().detach()) < 0.01
    as_distribution = PullbackManifold(
        lambda z: torch.distributions.Normal(mean(z), deviation(z)), output=mean_and_deviation
    )
    torch.testing.assert_close(as_distribution.metric(z).dense(), G)
    assert {row.path for row in explain(decoder, z)} <= {"graph", "rule"}


def test_deviation_of_radial_basis_functions() -> None:
    centers, rates = latents(4), torch.tensor([0.5, 1.0, 2.0, 3.0]).double()
    weights = torch.rand(OUT, 4, dtype=torch.float64, generator=generator())
    deviation, z = RBFDeviation(centers, rates, weights, floor=0.01), latents()
    for b in range(B):
        phi = torch.stack([torch.exp(-rates[k] * (z[b] - centers[k]).square().sum()) for k in range(4)])
        torch.testing.assert_close(deviation(z)[b].detach(), (weights @ phi + 0.01) ** -0.5)
    far = torch.full((1, D), 100.0, dtype=torch.float64)
    torch.testing.assert_close(deviation(far).detach(), torch.full((1, OUT), 10.0).double())


def test_fitted_deviation_is_the_most_likely_one() -> None:
    z = 0.7 * latents(300)
    true = 0.1 + 0.4 * z[:, :1].sigmoid() * torch.tensor([1.0, 2.0])
    errors = (true * torch.randn(300, 2, dtype=torch.float64, generator=generator())).square()
    arguments = {"centers": 6, "floor": 1e-3, "spread": 2.0}
    fitted = RBFDeviation.fit(z, errors, **arguments, steps=3000, generator=generator())

    def likelihood(deviation: nn.Module) -> Tensor:
        precision = deviation(z) ** -2
        return (precision.log() - precision * errors).sum(0)

    best = likelihood(fitted)
    (slope,) = torch.autograd.grad(best.sum(), fitted.weights)
    # at the maximum over non-negative weights the slope vanishes where a weight is positive, and is negative elsewhere
    assert float((slope * fitted.weights).detach().abs().max()) < 1e-2
    assert float(slope.max()) < 1e-2
    early = RBFDeviation.fit(z, errors, **arguments, steps=5, generator=generator())
    assert bool((likelihood(early) < best).all())
    sigma = fitted(z).detach()
    assert float((sigma / true).log().abs().median()) < 0.2
    again = RBFDeviation.fit(z, errors, **arguments, steps=3000, generator=generator())
    assert torch.equal(again.weights, fitted.weights)
    # an output without errors has a small deviation, and leaves the other as it is
    black = RBFDeviation.fit(z, errors * torch.tensor([1.0, 0.0]), **arguments, steps=3000, generator=generator())(z)
    torch.testing.assert_close(black[:, 0].detach(), sigma[:, 0])
    assert float((black[:, 1] / black[:, 0]).detach().amax()) < 0.01


def test_selected_deviation_is_the_most_likely_one_on_data_that_it_has_not_seen() -> None:
    def data(seed: int, count: int) -> tuple[Tensor, Tensor]:
        z = 3 * torch.rand(count, 2, dtype=torch.float64, generator=generator(seed))
        true = 0.05 + 0.3 * (2 * z[:, :1]).sin().square()
        noise = torch.randn(count, 3, dtype=torch.float64, generator=generator(seed + 1))
        return z, (true * noise).square()

    (z, errors), (unseen, truth) = data(0, 400), data(5, 1000)
    found = RBFDeviation.select(z, errors, centers=(2, 20), spreads=(0.5, 1.0), floor=1e-3, generator=generator())

    def likelihood(deviation: nn.Module) -> float:
        precision = deviation(unseen).detach() ** -2
        return float((precision.log() - precision * truth).sum())

    for k, spread in ((2, 1.0), (2, 0.5)):
        fitted = RBFDeviation.fit(z, errors, centers=k, spread=spread, floor=1e-3, generator=generator())
        assert likelihood(found) > likelihood(fitted)
    assert len(found.centers) == 20
    with pytest.raises(OptionError, match=r"RBFDeviation\.select: expected a share"):
        RBFDeviation.select(z, errors, centers=(390,), floor=1e-3, generator=generator())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_basis_functions_that_vanish_at_all_data_are_refused(dtype: torch.dtype) -> None:
    z = latents(60).to(dtype)
    errors = 0.1 + torch.rand(60, OUT, generator=generator(2)).to(dtype)
    arguments = {"centers": 7, "floor": 1e-2}
    for spread in (1e-3, 0.02):
        with pytest.raises(OptionError, match=r"RBFDeviation\.fit: .* vanish at all latents.*larger spread"):
            RBFDeviation.fit(z, errors, spread=spread, **arguments, generator=generator())
        chosen = RBFDeviation.select(z, errors, centers=(7,), spreads=(spread, 1.0), floor=1e-2, generator=generator())
        wide = RBFDeviation.fit(z, errors, spread=1.0, **arguments, generator=generator(3))
        assert float(chosen.rates.max()) < 20 * float(wide.rates.max())
        with pytest.raises(OptionError, match="no choice has a finite held-out likelihood"):
            RBFDeviation.select(z, errors, centers=(7,), spreads=(spread,), floor=1e-2, generator=generator())
    # as many centres as data, and clusters without a width, are no trouble
    for count, spread in ((60, 1.0), (60, 0.1), (7, 0.3)):
        fitted = RBFDeviation.fit(z, errors, centers=count, spread=spread, floor=1e-2, generator=generator())
        assert bool(torch.isfinite(fitted(z)).all() & torch.isfinite(fitted.weights).all())


def test_uncertainty_keeps_geodesics_where_the_data_are() -> None:
    t = torch.linspace(0, 3.1416, 60, dtype=torch.float64)
    arc = torch.stack([t.cos(), t.sin()], 1)
    flat = nn.Linear(2, 2).double().requires_grad_(False)
    deviation = RBFDeviation.fit(
        arc, torch.full((60, 2), 1e-2), centers=12, floor=1e-2, spread=1.5, generator=generator()
    ).requires_grad_(False)
    half = torch.tensor([0.5], dtype=torch.float64)
    without = PullbackManifold(flat).geodesic(arc[0], arc[-1]).curve(half)
    within = PullbackManifold(MeanAndDeviation(flat, deviation)).geodesic(arc[0], arc[-1]).curve(half)
    assert float(without[0, 0, 1]) < 0.1
    assert float(within[0, 0, 1]) > 0.7


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    module, z = network(), latents()
    with pytest.raises(OptionError, match="at least one decoder"):
        Ensemble([])
    with pytest.raises(ShapeError, match=r"samples must have shape \(s, 61\)"):
        Ensemble.of_weights(module, torch.zeros(3, 5))
    with pytest.raises(OptionError, match="no dropout layer"):
        Ensemble.of_dropout(module, z[:1], 3, generator())
    with pytest.raises(OptionError, match="mean and deviation must be"):
        MeanAndDeviation(module, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ModuleError, match=r"expected a torch.distributions.Distribution, got Tensor"):
        mean_and_deviation(z)
    with pytest.raises(OptionError, match="floor and rates must be positive"):
        RBFDeviation(z, torch.ones(B), torch.ones(OUT, B), floor=0.0)
    with pytest.raises(ShapeError, match="rates"):
        RBFDeviation(z, torch.ones(2), torch.ones(OUT, B), floor=1.0)
    with pytest.raises(OptionError, match="not all zero"):
        RBFDeviation.fit(z, torch.zeros(B, OUT), centers=2, floor=1.0, generator=generator())
    with pytest.raises(OptionError, match="1 <= centers <= 3"):
        RBFDeviation.fit(z, z.square(), centers=9, floor=1.0, generator=generator())


class Heads(nn.Module):
    """A float32 model whose methods are decoders."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.mean, self.spread = nn.Linear(D, OUT), nn.Linear(D, OUT)

    def decode(self, z: Tensor, size: float | Tensor = 1.0) -> Tensor:
        return size * self.mean(z).tanh()

    def deviation(self, z: Tensor) -> Tensor:
        return self.spread(z).exp()


def test_methods_and_functions_in_single_precision_are_parts_of_larger_decoders() -> None:
    single, double = Heads(), Heads().double()
    z, w = latents(), latents().flip(0)
    size = torch.tensor([[2.0]])
    forms = {
        "method": (single.decode, single.deviation),
        "function": (lambda z, **more: single.decode(z, **more), lambda z: single.deviation(z)),
    }
    for mean, deviation in forms.values():
        for found, exact in (
            (
                PullbackManifold(Ensemble([mean, deviation])),
                PullbackManifold(Ensemble([double.decode, double.deviation])),
            ),
            (
                PullbackManifold(MeanAndDeviation(mean, deviation)),
                PullbackManifold(MeanAndDeviation(double.decode, double.deviation)),
            ),
            (PullbackManifold(mean, conditions={"size": size}), PullbackManifold(lambda z: 2 * double.decode(z))),
        ):
            length = found.dist(z.float(), w.float())
            assert length.dtype == torch.float32
            torch.testing.assert_close(length, exact.dist(z, w).float())
            single.zero_grad()
            length.sum().backward()
            assert bool((single.mean.weight.grad != 0).all())
    members = Ensemble([single.decode, single.mean]).members
    assert members[0] == single.decode
    assert members[1] is single.mean
