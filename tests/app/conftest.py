"""A decoder of three latents that does what a test asks of it."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch

from pullgeo import PullbackManifold
from pullgeo.viz.explore.exact import Exact
from pullgeo.viz.explore.slice import Slice


@dataclass(eq=False)
class Moody:
    """Smooth near 0; raises where the second coordinate is above 10, hangs where it is below -10."""

    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        if bool((z[:, 1] > 10).any()):
            raise RuntimeError("no such digit")
        if bool((z[:, 1] < -10).any()):
            self.let_go.wait()
        if bool((z[:, 1].abs() > 5).any()):
            while True:
                time.sleep(0.001)
        return torch.cat([z, z.sin(), z.prod(1, keepdim=True)], dim=1)


@pytest.fixture
def moody() -> Iterator[Moody]:
    made = Moody()
    yield made
    made.let_go.set()


@pytest.fixture
def exact(moody: Moody) -> Exact:
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(2)).double()
    return Exact(PullbackManifold(moody), Slice.of_dims(z, anchor=[0, 0, 0]), z)
