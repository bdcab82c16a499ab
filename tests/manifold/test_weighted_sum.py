"""Sums of metrics on one latent space, against the sums themselves and against stacked decoders."""

from collections.abc import Callable

import geoopt
import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.errors import OffManifoldError, OptionError
from pullgeo.likelihood import Bernoulli
from pullgeo.manifold import ConformalMetric, KernelDensity, Manifold, ProjectOnto, weighted_sum
from pullgeo.manifold.ambient import Flat
from pullgeo.metric import Diagonal
from pullgeo.testing import check_manifold
from pullgeo.testing.oracles.connection import christoffel

B, D = 3, 2


def network(out: int, *last: nn.Module) -> nn.Module:
    torch.manual_seed(out)
    return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, out), *last).double().requires_grad_(False)


def points() -> tuple[Tensor, Tensor]:
    z = torch.randn(2, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return z[0], z[1]


IMAGE, COUNTS, HEADS = network(6, nn.Unflatten(1, (2, 3))), network(5), network(8)


def both(z: Tensor) -> dict[str, object]:
    """An image beside counts."""
    return {"image": IMAGE(z), "counts": td.Poisson(COUNTS(z).exp()), "kl": z.sum()}


def field(z: Tensor) -> Tensor:
    return torch.diag_embed(1 + z.square()) + 0.1


CASES: dict[str, Callable[[], list[Manifold]]] = {
    "image and counts": lambda: [PullbackManifold(both, output="image"), PullbackManifold(both, output="counts")],
    "Gaussian, gamma, plain": lambda: [
        PullbackManifold(lambda z: td.Normal(HEADS(z)[:, :4], HEADS(z)[:, 4:].exp())),
        PullbackManifold(lambda z: td.Gamma(HEADS(z)[:, :4].exp(), HEADS(z)[:, 4:].exp())),
        PullbackManifold(IMAGE),
    ],
    "weights of outputs": lambda: [
        PullbackManifold(IMAGE, Diagonal(torch.arange(1.0, 7.0).double())),
        PullbackManifold(COUNTS, Bernoulli()),
    ],
    "decoder and density": lambda: [
        PullbackManifold(COUNTS),
        MetricManifold(ConformalMetric(KernelDensity(points()[0], 0.5), 0.1, 1.0)),
    ],
    "metrics alone": lambda: [MetricManifold(field), MetricManifold(lambda z: 2 * field(z.flip(1)))],
    "sphere": lambda: [
        PullbackManifold(nn.Sequential(network(3), ProjectOnto(geoopt.Sphere())), geoopt.Sphere()),
        PullbackManifold(IMAGE),
    ],
}
WEIGHTS = (0.7, 2.0, 0.3)


@pytest.mark.parametrize("name", CASES)
def test_metrics_energies_and_connections_add_up(name: str) -> None:
    parts, (z, w) = CASES[name](), points()
    weights = WEIGHTS[: len(parts)]
    manifold = weighted_sum(parts, z[:1], weights)
    pairs = list(zip(weights, parts, strict=True))
    G = sum(c * part.metric(z).dense() for c, part in pairs)
    torch.testing.assert_close(manifold.metric(z).dense(), G)
    nodes = torch.stack([z, (z + w).sin(), w], 1)
    lengths = sum(c * part.chord_lengths(nodes.unsqueeze(2)).square() for c, part in pairs)
    torch.testing.assert_close(manifold.chord_lengths(nodes.unsqueeze(2)).square(), lengths)
    gamma = christoffel(lambda x: manifold.metric(x).dense(), z)
    torch.testing.assert_close(manifold.christoffel(z), gamma, rtol=1e-6, atol=1e-8)
    solution = manifold.geodesic(z, w)
    assert bool(solution.converged.all())
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    path = solution.curve(t)
    middle, step = ((path[:, 1:] + path[:, :-1]) / 2).flatten(0, 1), path.diff(dim=1).flatten(0, 1)
    squares = sum(c * part.metric(middle).quadratic(step.unsqueeze(0)).squeeze(0) for c, part in pairs)
    torch.testing.assert_close(solution.length, squares.sqrt().unflatten(0, (B, 400)).sum(1), rtol=1e-4, atol=0)


def test_euclidean_heads_are_the_stacked_decoder() -> None:
    z, w = points()
    heads = [PullbackManifold(IMAGE), PullbackManifold(COUNTS, Bernoulli())]
    manifold = weighted_sum(heads, z, [4.0, 0.25])
    stacked = PullbackManifold(lambda z: torch.cat([2 * IMAGE(z).flatten(1), torch.atan((COUNTS(z) / 2).exp())], 1))
    assert isinstance(manifold.ambient, Flat)
    assert repr(manifold) == "PullbackManifold(Stacked(2 -> 5), ambient=Euclidean)"
    torch.testing.assert_close(manifold.dist(z, w), stacked.dist(z, w))
    torch.testing.assert_close(manifold.decode(z), stacked.decode(z))
    once = weighted_sum([PullbackManifold(IMAGE)], z)
    torch.testing.assert_close(once.dist(z, w), PullbackManifold(IMAGE).dist(z, w))
    assert repr(weighted_sum([MetricManifold(field), heads[0]], z)).endswith("ambient=MetricField x Euclidean)")


class Body(nn.Module):
    """A body that counts its calls, with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.image, self.rates = network(5, nn.Tanh()), nn.Linear(5, 6).double(), nn.Linear(5, 4).double()
        self.calls = 0

    def hidden(self, z: Tensor) -> Tensor:
        self.calls += 1
        return self.net(z)

    def decode(self, z: Tensor) -> dict[str, object]:
        h = self.hidden(z)
        return {"image": self.image(h), "counts": td.Poisson(self.rates(h).exp())}

    def pixels(self, z: Tensor) -> Tensor:
        return self.image(self.hidden(z))

    def expression(self, z: Tensor) -> td.Distribution:
        return td.Poisson(self.rates(self.hidden(z)).exp())


def test_heads_of_one_decoder_run_it_once() -> None:
    z, w = points()
    body = Body().requires_grad_(False)

    # a bound method is another object each time that it is asked for
    heads = [PullbackManifold(body.decode, output=name) for name in ("image", "counts")]
    apart = weighted_sum([PullbackManifold(body.pixels), PullbackManifold(body.expression)], z, [0.7, 2.0])
    together = weighted_sum(heads, z, [0.7, 2.0])
    counts, results = [], []
    for manifold in (apart, together):
        manifold.decode(z)
        body.calls = 0
        values = manifold.decode(z), manifold.metric(z).dense(), manifold.christoffel(z), manifold.dist(z, w)
        counts.append(body.calls)
        results.append(values)
    assert counts[0] == 2 * counts[1] > 0
    torch.testing.assert_close(results[1], results[0])
    G = 0.7 * heads[0].metric(z).dense() + 2.0 * heads[1].metric(z).dense()
    torch.testing.assert_close(together.metric(z).dense(), G)


@pytest.mark.parametrize("last", [nn.Tanh(), nn.ReLU(inplace=True)])
def test_chains_that_begin_alike_run_what_they_share_once(last: nn.Module) -> None:
    z, w = points()
    calls: list[int] = []

    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    torch.manual_seed(4)
    first = Counted(D, 5).double().requires_grad_(False)
    # what follows on the shared part may write into it
    chains = [nn.Sequential(nn.Sequential(first), last, nn.Linear(5, 6).double()), nn.Sequential(first)]
    heads = [PullbackManifold(chain) for chain in chains]
    manifold = weighted_sum(heads, z)
    manifold.decode(z)  # the first time it is seen what a decoder returns
    calls.clear()
    decoded = manifold.decode(z)
    assert len(calls) == 1
    torch.testing.assert_close(decoded, torch.cat([chain(z) for chain in chains], 1))
    G = sum(head.metric(z).dense() for head in heads)
    torch.testing.assert_close(manifold.metric(z).dense(), G)
    assert bool(manifold.geodesic(z, w).converged.all())


def test_the_same_decoder_twice_is_twice_its_metric() -> None:
    z, _ = points()
    plain = PullbackManifold(IMAGE)
    torch.testing.assert_close(weighted_sum([plain, plain], z).metric(z).dense(), 2 * plain.metric(z).dense())


def test_features_of_a_network_measure_beside_pixels() -> None:
    """A perceptual metric: outputs measured by the pullback of features, and pixels as well."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 25), nn.Unflatten(1, (1, 5, 5))).double()
    features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Conv2d(3, 2, 2)).double()
    z, w = points()
    perceptual = PullbackManifold(decoder, ambient=PullbackManifold(features))
    composed = PullbackManifold(nn.Sequential(decoder, features))
    torch.testing.assert_close(perceptual.dist(z, w), composed.dist(z, w))
    torch.testing.assert_close(perceptual.metric(z).dense(), composed.metric(z).dense())
    assert perceptual.decode(z).shape == (B, 1, 5, 5)
    manifold = weighted_sum([perceptual, PullbackManifold(decoder)], z, [3.0, 0.1])
    stacked = PullbackManifold(
        lambda z: torch.cat([3**0.5 * features(decoder(z)).flatten(1), 0.1**0.5 * decoder(z).flatten(1)], 1)
    )
    torch.testing.assert_close(manifold.dist(z, w), stacked.dist(z, w))


@pytest.mark.heavy
def test_sums_are_manifolds() -> None:
    z, w = points()
    check_manifold(weighted_sum(CASES["decoder and density"](), z, [1.0, 0.5]), z[:2], z[:2] + 0.2 * w[:2])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Linear(D, 4)

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z).sigmoid()


def test_single_precision_in_every_form() -> None:
    model, double = Model(), Model().double()
    z, w = (x.float() for x in points())
    for decoder in (nn.Sequential(model.net, nn.Sigmoid()), model.decode, lambda z: model.net(z).sigmoid()):
        for ambient in (None, lambda y: Diagonal(1 / (1 + y.square()))):
            single = weighted_sum([PullbackManifold(decoder, ambient), PullbackManifold(model.net)], z, [2.0, 1.0])
            truth = weighted_sum(
                [PullbackManifold(double.decode, ambient), PullbackManifold(double.net)], z.double(), [2.0, 1.0]
            )
            length = single.dist(z, w)
            assert length.dtype == torch.float32
            torch.testing.assert_close(length, truth.dist(z.double(), w.double()).float())
            model.zero_grad()
            length.sum().backward()
            assert bool((model.net.weight.grad != 0).all())


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    z, _ = points()
    plain = PullbackManifold(IMAGE)
    with pytest.raises(OptionError, match="at least one manifold"):
        weighted_sum([], z)
    with pytest.raises(OptionError, match=r"got Sequential\. For a decoder write PullbackManifold\(decoder\)"):
        weighted_sum([plain, IMAGE], z)
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]):
        with pytest.raises(OptionError, match="2 positive numbers"):
            weighted_sum([plain, plain], z, weights)
    off = [PullbackManifold(network(3), geoopt.Sphere()), plain]
    with pytest.raises(OffManifoldError, match="not points of Sphere"):
        weighted_sum(off, z)
    inside = weighted_sum([PullbackManifold(lambda z: 0.1 * z, geoopt.PoincareBall()), plain], z)
    with pytest.raises(OffManifoldError, match="not points of PoincareBall"):
        inside.metric(100 * z)
