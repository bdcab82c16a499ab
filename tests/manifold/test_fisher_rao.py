"""Fisher-Rao metrics of many outputs: what they cost, and that it makes no difference who makes the distributions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.nn.functional import softplus
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pullgeo import PullbackManifold
from pullgeo.errors import OptionError
from pullgeo.likelihood import TorchDistribution
from pullgeo.manifold.ambient import Flat
from pullgeo.testing.oracles.connection import christoffel

B, D = 3, 2
Family = Callable[[Tensor, Tensor], td.Distribution]


def tail(s: Tensor) -> Tensor:
    return softplus(s) + 0.5


FAMILIES: dict[str, Family] = {
    "Gamma": lambda a, b: td.Gamma(tail(a), tail(b)),
    "Beta": lambda a, b: td.Beta(tail(a), tail(b)),
    "NegativeBinomial": lambda a, b: td.NegativeBinomial(3.0, logits=a + b),
    "StudentT": lambda a, b: td.StudentT(5.0, a, tail(b)),
    "VonMises": lambda a, b: td.VonMises(a, tail(b)),
    "Laplace": lambda a, b: td.Laplace(a, tail(b)),
    "LogNormal": lambda a, b: td.LogNormal(a, tail(b)),
    "Gumbel": lambda a, b: td.Gumbel(a, tail(b)),
    "Independent": lambda a, b: td.Independent(td.Gamma(tail(a), tail(b)), 1),
}


def network(outputs: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 2 * outputs))
    return net.double().requires_grad_(False)


def spaces(family: Family, outputs: int) -> dict[str, PullbackManifold]:
    """A decoder of distributions, and one whose outputs a likelihood makes distributions of."""
    net = network(outputs)

    def make(eta: Tensor) -> td.Distribution:
        return family(*eta.chunk(2, 1))

    return {
        "decoder": PullbackManifold(lambda z: make(net(z))),
        "likelihood": PullbackManifold(net, TorchDistribution(make)),
    }


def points() -> tuple[Tensor, Tensor]:
    z = torch.randn(2, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


class Sizes(TorchDispatchMode):
    """How many operations there are, and how many numbers the largest result has."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += 1
        self.largest = max([self.largest, *(t.numel() for t in tree_leaves(result) if isinstance(t, Tensor))])
        return result


@pytest.mark.parametrize("way", ["decoder", "likelihood"])
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_that_are_independent_cost_each_for_itself(name: str, way: str) -> None:
    z, w = points()
    nodes = torch.stack([z, (z + w).sin(), w], 1)
    found = []
    for outputs in (32, 64):
        manifold = spaces(FAMILIES[name], outputs)[way]
        manifold.check_ends(z)
        with torch.no_grad(), Sizes() as sizes:
            manifold.expand_energy(nodes)
        found.append(sizes)
    # no matrix of outputs times outputs, and no loop over them
    assert found[1].largest <= 2 * found[0].largest
    assert found[1].count == found[0].count


@pytest.mark.parametrize("name", FAMILIES)
def test_it_makes_no_difference_who_makes_the_distributions(name: str) -> None:
    z, w = points()
    by_decoder, by_likelihood = spaces(FAMILIES[name], 5).values()
    torch.testing.assert_close(by_likelihood.metric(z).dense(), by_decoder.metric(z).dense())
    solution = by_likelihood.geodesic(z, w)
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.length, by_decoder.dist(z, w), rtol=2e-3, atol=0)
    gamma = christoffel(lambda x: by_likelihood.metric(x).dense(), z)
    torch.testing.assert_close(by_likelihood.christoffel(z), gamma, rtol=1e-5, atol=1e-7)


def test_a_likelihood_is_asked_few_times() -> None:
    z, w = points()
    net, calls = network(64), []

    def make(eta: Tensor) -> td.Distribution:
        calls.append(len(eta))
        return FAMILIES["Gamma"](*eta.chunk(2, 1))

    manifold = PullbackManifold(net, TorchDistribution(make))
    manifold.check_ends(z)
    calls.clear()
    with torch.no_grad():
        manifold.expand_energy(torch.stack([z, (z + w).sin(), w], 1))
    assert len(calls) < 40, len(calls)
    assert max(calls) <= B * D * 2 * 2


def test_flat_families_are_measured_by_their_isometry_unnamed_as_well() -> None:
    z, w = points()
    net = network(4)
    unnamed = PullbackManifold(net, TorchDistribution(lambda eta: td.Poisson(tail(eta))))
    named = PullbackManifold(net, TorchDistribution(lambda eta: td.Poisson(tail(eta)), td.Poisson))
    assert isinstance(named.ambient, Flat)
    assert repr(unnamed).endswith("ambient=its Fisher information)")
    torch.testing.assert_close(unnamed.dist(z, w), named.dist(z, w), rtol=1e-3, atol=0)
    single = PullbackManifold(network(4).float(), unnamed.ambient)
    torch.testing.assert_close(single.dist(z.float(), w.float()).double(), unnamed.dist(z, w), rtol=1e-4, atol=0)


def test_a_parameter_that_the_information_leaves_out_must_not_move() -> None:
    z, w = points()
    manifold = PullbackManifold(network(3), TorchDistribution(lambda e: td.Pareto(tail(e[:, :3]), tail(e[:, 3:]))))
    with pytest.raises(OptionError, match="scale depends on the network's output"):
        manifold.dist(z, w)
