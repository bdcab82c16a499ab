"""Modules that are awkward to convert, importable by name so that they can be pickled."""

from collections import namedtuple
from functools import partial

import torch
from torch import Tensor, nn

Pair = namedtuple("Pair", "left right")


class ListedLayers(nn.Module):
    """Refers to its layers a second time, in containers that torch does not look into."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)
        self.order = [self.first, self.second]
        self.by_name = {"deep": {"second": (self.second,)}}
        self.pair = Pair(self.first, self.second)
        self.act = partial(self._act, 2.0)
        self.run = lambda x: self.by_name["deep"]["second"][0](x)
        self.constant = torch.tensor([1.0, 2.0])

    def _act(self, factor: float, x: Tensor) -> Tensor:
        return torch.tanh(factor * x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.act(self.pair.left(x))) * self.constant.to(x.dtype)


class Gated(nn.Module):
    """With settings, a buffer, a module used twice and a nested container."""

    def __init__(self, width: int = 3, power: float = 2.0) -> None:
        super().__init__()
        self.power = power
        self.shared = nn.Linear(width, width)
        self.blocks = nn.ModuleList([self.shared, nn.Sequential(nn.Tanh(), self.shared)])
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(width))])
        self.register_buffer("shift", torch.arange(float(width)))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) * self.scales[0] + self.shift
        return x.abs() ** self.power


class OwnJacobian(nn.Module):
    """Has a method under the name of a product, and uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0, 3.0]))

    def jacobian(self) -> Tensor:
        return self.scale

    def forward(self, x: Tensor) -> Tensor:
        return self.jacobian() * x


class OwnPickle(nn.Module):
    """Pickles in a way of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(width, 2)

    def __reduce__(self) -> tuple:
        return rebuilt, (self.width, self.layer.weight.dtype, self.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def rebuilt(width: int, dtype: torch.dtype, state: dict[str, Tensor]) -> OwnPickle:
    module = OwnPickle(width).to(dtype)
    module.load_state_dict(state)
    return module


class Autoencoder(nn.Module):
    """Has no forward, only parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 5), nn.Softplus(beta=3.0, threshold=2.0))
