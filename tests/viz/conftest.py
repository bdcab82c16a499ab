"""A small decoder of pictures of 3 x 5 pixels, latents in its space, and geodesics between them."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from pullgeo import Newton, PullbackManifold, Solution


@dataclass(frozen=True, eq=False)
class Scene:
    manifold: PullbackManifold
    z: torch.Tensor
    labels: np.ndarray
    solution: Solution


def decoder(d: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    generator = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Linear(d, 11), nn.Tanh(), nn.Linear(11, 15), nn.Sigmoid())
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return net.to(dtype).requires_grad_(False)


def scene(d: int = 2, dtype: torch.dtype = torch.float64, solver: Newton | None = None) -> Scene:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(13, d, generator=generator).to(dtype)
    manifold = PullbackManifold(decoder(d, dtype))
    labels = np.array(["a", "b", "c"])[np.arange(13) % 3]
    return Scene(manifold, z, labels, manifold.geodesic(z[:3], z[3:6], solver))


@pytest.fixture(scope="session")
def flat_scene() -> Scene:
    """Two latent dimensions; all three pairs converge."""
    return scene()


@pytest.fixture(scope="session")
def deep_scene() -> Scene:
    """Five latent dimensions, in float32."""
    return scene(5, torch.float32)


@pytest.fixture(scope="session")
def unfinished_scene() -> Scene:
    """No pair has converged but the one whose ends coincide."""
    made = scene(solver=Newton(max_steps=1, tol=1e-14))
    z1 = made.z[3:6].clone()
    z1[1] = made.z[1]
    return Scene(
        made.manifold, made.z, made.labels, made.manifold.geodesic(made.z[:3], z1, Newton(max_steps=1, tol=1e-14))
    )
