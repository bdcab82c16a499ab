"""What one pair, or one point, takes: beside a forward pass, and beside one geodesic."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, datasets, zoo
from pullgeo.curve import straight_line
from tests.benchmarks.side_by_side import show, turns
from tests.costs import calls_of

ROUNDS = 9


class Autoencoder(nn.Module):
    """A model that decodes by a method."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """The decoder of digits, and 256 pairs of latents."""
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z = vae.encode(images[chosen])
    return vae.decoder, z[:256], z[512:768]


def report(
    title: str, name: str, contenders: dict[str, Callable[[], object]], unit: str, rounds: int = ROUNDS, note: str = ""
) -> None:
    """Ratios to one of the contenders, and calls of Python functions."""
    with torch.no_grad():
        run = turns(contenders, rounds)
        rows: list[dict[str, object]] = [
            {
                "what": one,
                f"time / {unit}": run.ratio(one, unit),
                "Python calls": calls_of(contenders[one]),
            }
            for one in contenders
        ]
    show(title, rows, name, note=note)


def test_one_pair_of_a_small_decoder() -> None:
    decoder, x, y = digits()
    manifold, x, y = PullbackManifold(decoder), x[:1], y[:1]
    with torch.no_grad():
        u = manifold.logmap(x, y)
    report(
        "one pair, digits decoder",
        "one-pair",
        {
            "one geodesic": lambda: manifold.geodesic(x, y),
            "the first of a manifold": lambda: PullbackManifold(decoder).geodesic(x, y),
            "expmap": lambda: manifold.expmap(x, u),
            "logmap": lambda: manifold.logmap(x, y),
            "transp": lambda: manifold.transp(x, y, u),
        },
        "one geodesic",
    )


def test_one_pair_of_a_convolutional_decoder() -> None:
    for d in (2, 10):
        vae, images = zoo.mnist_vae(d), datasets.mnist5000().images
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        z = vae.encode(images[chosen[:16]])
        nodes = straight_line(z[:1], z[8:9]).nodes.squeeze(0)
        decoder, manifold = vae.decoder, PullbackManifold(vae.decoder)
        report(
            f"one pair, convolutions, d = {d}",
            f"one-pair-convolutions-{d}",
            {
                "forward of the nodes": lambda decoder=decoder, nodes=nodes: decoder(nodes),
                "one geodesic": lambda manifold=manifold, z=z: manifold.geodesic(z[:1], z[8:9]),
            },
            "forward of the nodes",
        )


def test_one_point() -> None:
    decoder, x, y = digits()
    manifold, x, u = PullbackManifold(decoder), x[:1], (y - x)[:1]
    report(
        "one point, digits decoder",
        "one-point",
        {
            "stacked forward": lambda: decoder(x.expand(3, -1)),
            "metric": lambda: manifold.metric(x).dense(),
            "connection": lambda: manifold.connection(x, u, u),
        },
        "stacked forward",
        rounds=101,
    )


def test_segments() -> None:
    decoder, x, y = digits()
    manifold = PullbackManifold(decoder)
    report(
        "64 pairs, digits decoder, by segments",
        "segments",
        {
            f"{segments}": lambda segments=segments: manifold.geodesic(x[:64], y[:64], Newton(segments=segments))
            for segments in (8, 16, 32, 64)
        },
        "32",
        rounds=3,
    )


def test_methods_and_functions() -> None:
    decoder, x, y = digits()
    model = Autoencoder(copy.deepcopy(decoder))
    manifolds = {
        "module": PullbackManifold(decoder),
        "method": PullbackManifold(model.decode),
        "function": PullbackManifold(lambda z: decoder(z)),
    }
    z = torch.cat([x, y])
    metrics = {n: lambda m=m: m.metric(z).dense() for n, m in manifolds.items()}
    report("512 metrics", "methods-metrics", metrics, "module")
    geodesics = {n: lambda m=m: m.geodesic(x, y) for n, m in manifolds.items()}
    report("256 geodesics", "methods-geodesics", geodesics, "module", rounds=3)
