"""Cost of the pullback metric in units of its limit, d + 1 forward passes, beside per-sample autodiff."""

from itertools import product

import torch
from torch import nn
from torch.func import jacfwd, vmap

from pullgeo import PullbackManifold, zoo
from tests.benchmarks.side_by_side import middle, show, turns


def mlp(d: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(d, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 784), nn.Sigmoid()
    )


def test_mlp() -> None:
    rows: list[dict[str, object]] = []
    for d, batch in product((2, 10, 32), (16, 64, 256)):
        decoder = mlp(d).eval()
        z = torch.randn(batch, d)
        manifold = PullbackManifold(decoder)

        def peer(decoder: nn.Module = decoder, z: torch.Tensor = z) -> torch.Tensor:
            J = vmap(jacfwd(decoder))(z)
            return J.mT @ J

        def ours(manifold: PullbackManifold = manifold, z: torch.Tensor = z) -> torch.Tensor:
            return manifold.metric(z).dense()

        with torch.no_grad():
            torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-4)
            run = turns({"forward": lambda f=decoder, z=z: f(z), "ours": ours, "jacfwd": peer})
        rows.append(
            {
                "d": d,
                "batch": batch,
                "ours / (d+1) forwards": run.ratio("ours", "forward", 1 / (d + 1)),
                "vmap(jacfwd) / (d+1) forwards": run.ratio("jacfwd", "forward", 1 / (d + 1)),
                "vmap(jacfwd) / ours": run.ratio("jacfwd", "ours"),
            }
        )
    note = "JᵀJ of each latent. One forward pass and d tangents are the limit; the other is torch.func, vmap(jacfwd)."
    show("pullback metric, d-512-512-784", rows, "pullback-metric", note=note)
    assert all(middle(row["ours / (d+1) forwards"]) < 1.15 for row in rows)


def test_convolutional_decoder() -> None:
    rows: list[dict[str, object]] = []
    for d in (2, 10):
        decoder = zoo.mnist_vae(d=d).decoder.eval()
        manifold = PullbackManifold(decoder)
        for batch in (16, 64, 256):
            z = torch.randn(batch, d)
            with torch.no_grad():
                run = turns(
                    {
                        "forward": lambda f=decoder, z=z: f(z),
                        "ours": lambda m=manifold, z=z: m.metric(z).dense(),
                    }
                )
            ratio = run.ratio("ours", "forward", 1 / (d + 1))
            rows.append({"d": d, "batch": batch, "ours / (d+1) forwards": ratio})
    show(
        "pullback metric, convolutional decoder",
        rows,
        "pullback-metric-convolutions",
        note="The trained decoders of MNIST.",
    )
    assert all(middle(row["ours / (d+1) forwards"]) < 1.3 for row in rows)
