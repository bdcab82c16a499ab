"""Decoders of two latents of all the kinds that a map has to show."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pullgeo import Manifold, MetricManifold, PullbackManifold


def mlp(activation: type[nn.Module] = nn.Tanh, outputs: int = 31, scale: float = 1.0, seed: int = 0) -> nn.Sequential:
    """A network with weights drawn anew, whose metric varies over [-2, 2]²."""
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Sequential(nn.Linear(2, 24), activation(), nn.Linear(24, 24), activation(), nn.Linear(24, outputs))
    with torch.no_grad():
        for parameter in layers.parameters():
            size = 1.6 / parameter.shape[-1] ** 0.5
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
        layers[-1].weight *= scale
        layers[-1].bias *= scale
    return layers


class Clipped(nn.Module):
    """NaN where the radius is not between two bounds."""

    def __init__(self, net: nn.Module, inner: float, outer: float) -> None:
        super().__init__()
        self.net, self.inner, self.outer = net, inner, outer

    def forward(self, z: Tensor) -> Tensor:
        radius = z.square().sum(1, keepdim=True).sqrt()
        return torch.where((radius > self.inner) & (radius < self.outer), self.net(z), torch.nan)


class Holder(nn.Module):
    """A network with a decoder as a method."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def decode(self, z: Tensor) -> Tensor:
        return self.net(z)


def bump_metric(z: Tensor) -> Tensor:
    """Conformal, with a hill at the origin."""
    factor = 1 + 4 * torch.exp(-z.square().sum(1))
    return torch.eye(2, dtype=z.dtype) * factor[:, None, None]


def wavy(z: Tensor) -> Tensor:
    """A function with its weights in a closure of nothing."""
    return torch.cat([z, torch.sin(2 * z), torch.cos(z[:, :1] * z[:, 1:])], 1)


KINDS: dict[str, Callable[[], Manifold]] = {
    "tanh": lambda: PullbackManifold(mlp().double()),
    "relu": lambda: PullbackManifold(mlp(nn.ReLU)),
    "tiny": lambda: PullbackManifold(mlp(scale=1e-6)),
    "huge": lambda: PullbackManifold(mlp(scale=1e6)),
    "disc": lambda: PullbackManifold(Clipped(mlp(), -1.0, 2.0)),
    "method": lambda: PullbackManifold(Holder(mlp()).decode),
    "function": lambda: PullbackManifold(wavy),
    "metric": lambda: MetricManifold(bump_metric),
}
