"""Networks to test products on, built from plain torch.nn, and the oracle's Jacobian of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.testing import oracles


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    positive: bool = False
    """Inputs between 0 and 1."""
    indices: int = 0
    """Inputs are indices below this number; there is no derivative with respect to them."""


class TwoBranches(nn.Module):
    """A multiplicative gate beside a shortcut: no chain of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.gate = nn.Sequential(nn.Linear(3, 5), nn.Sigmoid())
        self.last = nn.Linear(5, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)) * self.gate(x))


class OwnParameter(nn.Module):
    """Parameters of its own beside a child that has some: one block."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -1.5, 2.0]))
        self.inner = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.inner(x).sin()


class UsesTwice(nn.Module):
    """One layer at two places of a function that is no Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x))) * x


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


def layer_twice() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(3, 2))


def tied() -> nn.Module:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


def normalised() -> nn.Module:
    norm = nn.BatchNorm1d(5)
    norm.running_mean, norm.running_var = torch.randn(5), torch.rand(5) + 0.5
    return nn.Sequential(nn.Linear(3, 5), norm, nn.LayerNorm(5), nn.Softplus())


CASES: dict[str, Case] = {
    "linear": Case(lambda: nn.Linear(3, 5), (3,)),
    "linear without bias on rows": Case(lambda: nn.Linear(3, 2, bias=False), (5, 3)),
    "tanh": Case(nn.Tanh, (2, 3)),
    "softplus": Case(lambda: nn.Softplus(beta=2.0, threshold=1.0), (5,)),
    "prelu per channel": Case(lambda: nn.PReLU(3), (3, 2)),
    "identity": Case(nn.Identity, (3,)),
    "decoder": Case(lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 7)), (2,)),
    "encoder": Case(lambda: nn.Sequential(nn.Linear(7, 3), nn.ELU(), nn.Linear(3, 2, bias=False)), (7,)),
    "nested": Case(
        lambda: nn.Sequential(
            nn.Linear(3, 6), nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(6, 2), nn.PReLU()), nn.Linear(2, 5))
        ),
        (3,),
    ),
    "shapes": Case(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.SiLU(), nnj.Reshape(5, 1), nn.Unflatten(1, (5, 1))),
        (2, 3),
    ),
    "elementwise chain": Case(lambda: nn.Sequential(nn.Sigmoid(), nn.GELU(), nn.Hardtanh(-0.2, 0.3)), (3,)),
    "convolutional": Case(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1, padding_mode="circular"), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)
        ),
        (1, 3, 5),
    ),
    "convolutional decoder": Case(
        lambda: nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (3, 2, 1)), nn.ConvTranspose2d(3, 1, 2, stride=2)), (2,)
    ),
    "norms": Case(lambda: normalised().eval(), (3,)),
    "layer twice": Case(layer_twice, (3,)),
    "tied weights": Case(tied, (3,)),
    "two branches": Case(TwoBranches, (3,)),
    "own parameter": Case(lambda: nn.Sequential(OwnParameter(), nn.Linear(3, 2)), (2,)),
    "uses twice": Case(lambda: nn.Sequential(UsesTwice(), nn.Tanh()), (3,)),
    "attention": Case(lambda: nn.Sequential(Attention(), nn.Flatten()), (3, 2)),
    "residual": Case(lambda: nnj.ResidualBlock(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)), (3,)),
    "skip": Case(lambda: nn.Sequential(nnj.SkipConnection(nn.Linear(3, 2), nn.Tanh()), nn.Linear(5, 2)), (3,)),
    "l2norm": Case(lambda: nnj.L2Norm(eps=0.1), (2, 3)),
    "positive linear": Case(
        lambda: nn.Sequential(nnj.PosLinear(3, 2), nn.Tanh(), nnj.PosLinear(2, 5, bias=False)), (3,)
    ),
    "sinusoidal": Case(nnj.Sinusoidal, (3,)),
    "truncated exp": Case(nnj.TruncExp, (3,)),
    "arctanh": Case(nnj.ArcTanh, (3,), positive=True),
    "reciprocal": Case(lambda: nnj.Reciprocal(0.5), (3,), positive=True),
    "one minus x": Case(nnj.OneMinusX, (2, 3)),
    "sqrt": Case(nnj.Sqrt, (3,), positive=True),
    "embedding": Case(lambda: nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 2)), (3,), indices=5),
}

LAYERWISE = (
    "linear",
    "prelu per channel",
    "decoder",
    "encoder",
    "nested",
    "shapes",
    "elementwise chain",
    "layer twice",
)
"""Chains of single layers: here propagating diagonals has one meaning."""


def module(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A new copy of a case's network, with the same weights every time; plain torch, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        return CASES[name].build().to(dtype).eval()


@cache
def twin(name: str, dtype: torch.dtype = torch.float64) -> nnj.Module:
    """The network with products; products leave no trace on it, so all tests may use the same."""
    return nnj.convert_to_nnj(module(name, dtype))


def points(name: str, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
    case = CASES[name]
    generator = torch.Generator().manual_seed(batch)
    if case.indices:
        return torch.randint(case.indices, (batch, *case.shape), generator=generator)
    x = torch.randn(batch, *case.shape, generator=generator, dtype=torch.float64)
    return ((x.sigmoid() * 0.8 + 0.1) if case.positive else x).to(dtype)


def arguments(name: str) -> list[str]:
    """What a case can be differentiated with respect to."""
    has_weights = any(True for _ in module(name).parameters())
    return ["input"] * (not CASES[name].indices) + ["weight"] * has_weights


@cache
def oracle(name: str, batch: int, wrt: str) -> Tensor:
    """The dense Jacobian ``(b, n_out, n)``."""
    return oracles.dense_jacobian(module(name), points(name, batch), wrt)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
