"""Geodesics on the digits decoder beside stochman's default solver, in one process, with the same fine measure."""

import copy
import time

import pytest
import torch
from stochman.manifold import EmbeddedManifold
from torch import Tensor, nn

from pullgeo import PullbackManifold, datasets, zoo
from pullgeo.curve import straight_line
from tests.benchmarks.side_by_side import show


class Peer(EmbeddedManifold):
    """The same decoder as stochman sees it."""

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder = decoder

    def embed(self, points: Tensor, jacobian: bool = False) -> Tensor:
        return self.decoder(points.reshape(-1, points.shape[-1])).reshape(*points.shape[:-1], -1)


def fine_lengths(decoder: nn.Module, points: Tensor, z0: Tensor, z1: Tensor) -> Tensor:
    """Lengths of polygons of 2048 chords in the output, in float64, between the true end points."""
    points = torch.cat([z0.unsqueeze(1), points.double()[:, 1:-1], z1.unsqueeze(1)], 1)
    images = [decoder(part.reshape(-1, part.shape[-1])).reshape(*part.shape[:2], -1) for part in points.split(16)]
    return torch.cat([image.diff(dim=1).norm(dim=-1).sum(1) for image in images])


@pytest.mark.parametrize("pairs", [64, 512])
def test_against_stochman(pairs: int) -> None:
    vae, images = zoo.digits_vae(), datasets.digits().images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    z = vae.encode(images[chosen])
    z0, z1 = z[:pairs], z[512 : 512 + pairs]
    decoder = copy.deepcopy(vae.decoder).double()
    t = torch.linspace(0, 1, 2049)
    with torch.no_grad():
        start = time.process_time()
        solution = PullbackManifold(vae.decoder).geodesic(z0, z1)
        ours = time.process_time() - start
    start = time.process_time()
    curve, _ = Peer(vae.decoder).connecting_geodesic(z0, z1)
    theirs = time.process_time() - start
    with torch.no_grad():
        ends = z0.double(), z1.double()
        our_length = fine_lengths(decoder, solution.curve(t), *ends)
        their_length = fine_lengths(decoder, curve(t), *ends)
        line = fine_lengths(decoder, straight_line(*ends)(t), *ends)
    ratio = our_length / their_length
    show(
        f"{pairs} geodesics, digits decoder, 32 segments",
        [
            {
                "converged": int(solution.converged.sum()),
                "largest residual": float(solution.residual.max()),
                "steps, mean": float(solution.iterations.double().mean()),
                "steps, most": int(solution.iterations.max()),
                "over 0.1 % longer": int((ratio > 1.001).sum()),
                "over 0.1 % shorter": int((ratio < 0.999).sum()),
                "longest / stochman": float(ratio.max()),
                "stochman time / ours": theirs / ours,
            }
        ],
    )
    assert bool(solution.converged.all())
    assert bool((our_length <= line * (1 + 1e-6)).all())
    if pairs == 64:
        assert float(ratio.max()) < 1.001
