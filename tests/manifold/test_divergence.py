"""Lengths by Kullback-Leibler divergences, against closed forms and against lengths in the Fisher-Rao metric."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import PullbackManifold
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.manifold import kl_energy, kl_length


def heads() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 6)).double().requires_grad_(False)


NET = heads()
FAMILIES: dict[str, Callable[[Tensor], td.Distribution]] = {
    "Normal": lambda z: td.Normal(NET(z)[:, :3], NET(z)[:, 3:].exp()),
    "Independent": lambda z: td.Independent(td.Normal(NET(z)[:, :3], NET(z)[:, 3:].exp()), 1),
    "Bernoulli": lambda z: td.Bernoulli(logits=3 * NET(z)),
    "Categorical": lambda z: td.Categorical(logits=3 * NET(z)),
    "several categoricals": lambda z: td.Categorical(logits=3 * NET(z).unflatten(1, (2, 3))),
    "Poisson": lambda z: td.Poisson(NET(z).exp()),
    "Gamma": lambda z: td.Gamma(NET(z)[:, :3].exp(), NET(z)[:, 3:].exp()),
    "full Gaussian": lambda z: td.MultivariateNormal(
        NET(z)[:, :2], scale_tril=torch.diag_embed(NET(z)[:, 2:4].exp()) + NET(z)[:, 4:].unsqueeze(2).tril(-1)
    ),
}


def curves() -> DiscreteCurve:
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    paths = [torch.stack([k * t.sin() - 1, (k + 1) * (2 * t).cos()], 1) for k in (0.5, 1.0, 1.5)]
    return DiscreteCurve(torch.stack(paths))


@pytest.mark.parametrize("name", FAMILIES)
def test_lengths_by_divergences_tend_to_fisher_rao_lengths(name: str) -> None:
    manifold, curve = PullbackManifold(FAMILIES[name]), curves()
    exact = curve.length(manifold, 2048)
    errors = [(kl_length(manifold, curve, T) / exact - 1).abs() for T in (16, 32, 64, 128)]
    # at each doubling, a quarter
    for coarse, fine in itertools.pairwise(errors):
        assert bool((fine < 0.3 * coarse + 1e-9).all())
    assert float(errors[-1].max()) < 1e-3
    energy = curve.energy(manifold, 2048)
    torch.testing.assert_close(kl_energy(manifold, curve, 256), energy, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical", "Poisson", "Gamma"])
def test_one_divergence_for_each_segment_is_of_first_order(name: str) -> None:
    manifold, curve = PullbackManifold(FAMILIES[name]), curves()
    exact = curve.length(manifold, 2048)
    errors = [kl_length(manifold, curve, T, symmetric=False) / exact - 1 for T in (128, 256, 512)]
    for coarse, fine in itertools.pairwise(errors):
        torch.testing.assert_close(fine / coarse, torch.full_like(fine, 0.5), rtol=0.1, atol=0)
    # the error changes its sign with the direction
    back = kl_length(manifold, DiscreteCurve(curve.nodes.flip(1)), 512, symmetric=False) / exact - 1
    torch.testing.assert_close(back, -errors[-1], rtol=0.1, atol=0)
    both = kl_length(manifold, curve, 512)
    torch.testing.assert_close(kl_length(manifold, DiscreteCurve(curve.nodes.flip(1)), 512), both)


CLOSED = {
    "Normal": (lambda z: td.Normal(z[:, :1], z[:, 1:]), [0.0, 1.0], [0.0, math.e], math.sqrt(2)),
    "Bernoulli": (lambda z: td.Bernoulli(probs=z), [0.2], [0.8], 1.2870022176),
    "Categorical": (
        lambda z: td.Categorical(probs=torch.cat([z, 1 - z.sum(1, keepdim=True)], 1)),
        [0.2, 0.3],
        [0.6, 0.3],
        2 * math.acos(math.sqrt(0.12) + 0.3 + math.sqrt(0.05)),
    ),
    "Poisson": (lambda z: td.Poisson(z), [1.0], [4.0], 2.0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_geodesics_are_as_long_by_divergences_as_known(name: str) -> None:
    decoder, begin, end, exact = CLOSED[name]
    manifold = PullbackManifold(decoder)
    curve = manifold.geodesic(*(torch.tensor([x], dtype=torch.float64) for x in (begin, end))).curve
    coarse, fine = (float(kl_length(manifold, curve, T)) for T in (128, 256))
    assert fine == pytest.approx(exact, rel=1e-4)
    # extrapolated, as the error is of second order
    assert (4 * fine - coarse) / 3 == pytest.approx(exact, rel=1e-7)


def test_precision_and_gradients_are_kept() -> None:
    net = nn.Linear(2, 3)
    manifold = PullbackManifold(lambda z: td.Poisson(net(z).exp()))
    nodes = curves().nodes
    single = DiscreteCurve(nodes.float())
    length = kl_length(manifold, single, 512)
    assert length.dtype == torch.float32
    double = PullbackManifold(lambda z: td.Poisson(torch.func.functional_call(net, state, z).exp()))
    state = {name: value.double() for name, value in net.state_dict().items()}
    torch.testing.assert_close(length.double(), kl_length(double, curves(), 512), rtol=1e-5, atol=0)
    still = nodes[:, :1].expand(-1, 5, -1).clone().requires_grad_()
    nothing = kl_length(double, DiscreteCurve(still), 8)
    assert float(nothing.detach().abs().max()) < 1e-6
    nothing.sum().backward()
    assert bool(torch.isfinite(still.grad).all())


def test_named_errors_say_what_to_do() -> None:
    curve = curves()
    with pytest.raises(OptionError, match=r"kl_length: the decoder returns no distribution"):
        kl_length(PullbackManifold(NET), curve)
    with pytest.raises(OptionError, match=r"kl_energy: torch knows no Kullback-Leibler divergence .* StudentT"):
        kl_energy(PullbackManifold(lambda z: td.StudentT(4.0, NET(z), 1.0)), curve)
    with pytest.raises(OptionError, match="segments must be at least 1"):
        kl_length(PullbackManifold(FAMILIES["Poisson"]), curve, 0)
