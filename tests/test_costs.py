"""Guards against slow code: operations on one pair or point take no more passes, factorisations and calls than known.

Where a change makes an operation cheaper, write the lower counts here; where one has to make it dearer, say why.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold, datasets, zoo
from tests.costs import Cost, calls_of, comparable, cost_of


@cache
def digits() -> tuple[PullbackManifold, Tensor, Tensor]:
    """The decoder of digits, and a pair of latents."""
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z = vae.encode(images[chosen])
    return PullbackManifold(vae.decoder), z[:1], z[512:513]


@cache
def mnist(d: int) -> tuple[PullbackManifold, Tensor, Tensor]:
    """A convolutional decoder, and a pair of latents."""
    vae, images = zoo.mnist_vae(d), datasets.mnist5000().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z = vae.encode(images[chosen[:16]])
    return PullbackManifold(vae.decoder), z[:1], z[8:9]


def geodesic(of: Callable[[], tuple[PullbackManifold, Tensor, Tensor]]) -> Callable[[], object]:
    """One geodesic."""
    manifold, x, y = of()
    return lambda: manifold.geodesic(x, y)


def first() -> Callable[[], object]:
    """One geodesic of a manifold that has not seen its decoder yet."""
    manifold, x, y = digits()
    return lambda: PullbackManifold(manifold.decoder).geodesic(x, y)


class Autoencoder(nn.Module):
    """A model that decodes by a method."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def method() -> Callable[[], object]:
    """One geodesic of a method, by as many passes as that of the module, and little more of anything else."""
    manifold, x, y = digits()
    of_method = PullbackManifold(Autoencoder(manifold.decoder).decode)
    return lambda: of_method.geodesic(x, y)


def metric() -> Callable[[], object]:
    """One metric tensor."""
    manifold, x, _ = digits()
    return lambda: manifold.metric(x).dense()


def connection() -> Callable[[], object]:
    """One acceleration of a geodesic."""
    manifold, x, y = digits()
    return lambda: manifold.connection(x, y - x, y - x)


def expmap() -> Callable[[], object]:
    """One end point, as far away as the other point of the pair."""
    manifold, x, y = digits()
    u = manifold.logmap(x, y)
    return lambda: manifold.expmap(x, u)


def logmap() -> Callable[[], object]:
    """One initial velocity."""
    manifold, x, y = digits()
    return lambda: manifold.logmap(x, y)


def transp() -> Callable[[], object]:
    """One tangent, moved along the geodesic of a pair."""
    manifold, x, y = digits()
    return lambda: manifold.transp(x, y, y - x)


LIMITS: dict[str, tuple[Callable[[], Callable[[], object]], Cost]] = {
    "one geodesic, digits": (
        lambda: geodesic(digits),
        Cost(passes=21, points=635, expansions=7, connections=0, factorisations=7, kernels=3098, calls=3167),
    ),
    "one geodesic, digits, first": (
        first,
        Cost(passes=21, points=635, expansions=7, connections=0, factorisations=7, kernels=3114, calls=3334),
    ),
    "one geodesic, convolutions, d = 2": (
        lambda: geodesic(lambda: mnist(2)),
        Cost(passes=16, points=463, expansions=4, connections=0, factorisations=4, kernels=2305, calls=3277),
    ),
    "one geodesic, convolutions, d = 10": (
        lambda: geodesic(lambda: mnist(10)),
        Cost(passes=16, points=442, expansions=6, connections=0, factorisations=6, kernels=2897, calls=3790),
    ),
    "one geodesic, digits, by a method": (
        method,
        Cost(passes=21, points=635, expansions=7, connections=0, factorisations=7, kernels=3111, calls=3331),
    ),
    "metric at one point": (
        metric,
        Cost(passes=1, points=1, expansions=1, connections=0, factorisations=0, kernels=36, calls=128),
    ),
    "connection at one point": (
        connection,
        Cost(passes=1, points=1, expansions=1, connections=1, factorisations=1, kernels=100, calls=151),
    ),
    "expmap": (
        expmap,
        Cost(passes=37, points=4256, expansions=37, connections=2, factorisations=57, kernels=19331, calls=13048),
    ),
    "logmap": (
        logmap,
        Cost(passes=38, points=5247, expansions=26, connections=0, factorisations=41, kernels=12905, calls=8410),
    ),
    "transp": (
        transp,
        Cost(passes=43, points=8127, expansions=31, connections=0, factorisations=45, kernels=15051, calls=9753),
    ),
}


@pytest.mark.parametrize("name", LIMITS)
@torch.no_grad()
def test_operation_costs_no_more_than_is_known(name: str) -> None:
    operation, limit = LIMITS[name]
    assert not cost_of(operation()).over(limit)


def test_counts_are_those_of_the_work_that_is_done() -> None:
    manifold = PullbackManifold(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 7)))
    z = torch.zeros(11, 3)
    cost = cost_of(lambda: (manifold.connection(z, z, z), manifold.decode(z), manifold.energy(z.reshape(1, 11, 3))))
    assert (cost.passes, cost.points, cost.expansions) == (2, 22, 1)
    assert (cost.connections, cost.factorisations) == (1, 1)


def test_counts_are_the_same_at_every_run() -> None:
    manifold = PullbackManifold(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 7)))
    z = torch.tensor([[0.0, 0.0], [1.0, 0.5]])
    first, *others = [cost_of(lambda: manifold.geodesic(z[:1], z[1:])) for _ in range(3)]
    # Checks of annotations call functions of their own, and not always as many.
    for cost in others:
        assert (cost if comparable() else replace(cost, calls=first.calls)) == first


def test_what_exceeds_its_limit_is_named_with_both_numbers() -> None:
    limit = Cost(passes=2, points=10, expansions=1, connections=0, factorisations=1, kernels=100, calls=100)
    more = Cost(passes=3, points=10, expansions=1, connections=0, factorisations=0, kernels=100, calls=100)
    assert more.over(limit) == {"passes": (3, 2)}
    assert limit.over(limit) == {}


def test_calls_are_those_of_python_functions() -> None:
    def inner() -> int:
        return len("abc")

    assert calls_of(lambda: [inner(), inner()]) == 3
