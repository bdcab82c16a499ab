"""Random networks: a grammar over layers of torch.nn, branches, functions and modules that nobody has a rule for."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]
Function = Callable[[Tensor], Tensor]

MOST_NUMBERS = 40
"""Of a value at one sample; what would be larger is not built."""

SIZES = (2, 3, 5, 7)


class Applied(nn.Module):
    """A function as a layer."""

    def __init__(self, name: str, function: Function) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return x + self.f(x)


class Joined(nn.Module):
    """``[f(x), g(x)]`` along dimension 1."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.f(x), self.g(x)], 1)


class Gated(nn.Module):
    """``f(x) σ(g(x))``, in one of several notations."""

    def __init__(self, f: nn.Module, g: nn.Module, how: int) -> None:
        super().__init__()
        self.f, self.g, self.how = f, g, how

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.f(x), torch.sigmoid(self.g(x))
        if self.how == 0:
            return value * gate
        if self.how == 1:
            return torch.where(x.flatten(1)[:, 0].gt(0).reshape(-1, *[1] * (value.ndim - 1)), value, gate)
        if self.how == 2:
            return torch.einsum("b...,b...->b...", value, gate)
        return value / (1 + gate)


class Twice(nn.Module):
    """``f(f(x))``: one module used twice, so that its weights count twice."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.f(x))


class OwnParameters(nn.Module):
    """Parameters that are used by themselves."""

    def __init__(self, n: int, how: int) -> None:
        super().__init__()
        self.scale, self.matrix, self.how = nn.Parameter(torch.rand(n) + 0.5), nn.Parameter(torch.randn(n, n)), how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == 0:
            return F.linear(x * self.scale, self.matrix)
        if self.how == 1:
            return x @ self.matrix + self.scale.exp()
        if self.how == 2:
            return torch.einsum("...i,ij->...j", x, self.matrix.softmax(0)) * self.scale
        return (x - self.scale).tanh() / (1 + self.matrix.square().sum(0)).sqrt()


class Recurrent(nn.Module):
    """The sequence that a recurrent layer returns."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.layer(x)[0]
        return states


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return y


class Hidden(nn.Module):
    """A module that no recording sees through, as it calls an operation that graphs do not know."""

    def __init__(self, f: nn.Module, how: int) -> None:
        super().__init__()
        self.f, self.how = f, how

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(x)
        if self.how == 0:
            return torch.special.i0e(y)
        if self.how == 1:
            return torch.fft.fft(y, dim=-1).abs().square() / y.shape[-1]
        if self.how == 2:
            return torch.logcumsumexp(y, -1)
        return torch.sinc(y)


class PerSample(nn.Module):
    """``f(x)`` times a mask that has a row for each sample of the batch."""

    def __init__(self, f: nn.Module, mask: Tensor, by_place: bool) -> None:
        super().__init__()
        self.f, self.by_place = f, by_place
        self.register_buffer("mask", mask)
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y = self.f(x)
        mask = self.mask[: len(x)] if self.by_place else self.mask
        return torch.special.i0e(y) * mask.reshape(-1, *[1] * (y.ndim - 1))


@dataclass
class Grammar:
    """Draws networks, layer by layer, so that each takes what the one before returns.

    Args:
        draw: the source of all choices.
        batch: number of samples, for what holds something for each of them.
    """

    draw: random.Random
    batch: int

    def network(self, shape: Shape, depth: int) -> tuple[nn.Module, Shape]:
        """A chain of layers and blocks from samples of a shape, and the shape of what it returns."""
        layers: list[nn.Module] = []
        for _ in range(self.draw.randint(1, depth)):
            layer, after = self._step(shape, depth)
            if math.prod(after) <= MOST_NUMBERS:
                layers.append(layer)
                shape = after
        if not layers:
            layers = [nn.Tanh()]
        return (layers[0] if len(layers) == 1 else nn.Sequential(*layers)), shape

    def _step(self, shape: Shape, depth: int) -> tuple[nn.Module, Shape]:
        if depth > 1 and self.draw.random() < 0.3:
            return self._block(shape, depth - 1)
        choices: dict[str, Callable[[Shape], tuple[nn.Module, Shape]]] = {
            "layer": {1: self._of_vectors, 2: self._of_sequences, 3: self._of_images}[len(shape)],
            "activation": self._activation,
            "function": self._function,
        }
        kind = self.draw.choice(["layer", "layer", "layer", "activation", "function"])
        return choices[kind](shape)

    def _block(self, shape: Shape, depth: int) -> tuple[nn.Module, Shape]:
        kind = self.draw.choice(["residual", "joined", "gated", "twice", "own parameters", "hidden", "per sample"])
        f, after = self.network(shape, depth)
        how = self.draw.randrange(4)
        if kind == "residual":
            return (Residual(f), shape) if after == shape else (f, after)
        if kind == "twice":
            return (Twice(f), shape) if after == shape else (f, after)
        if kind == "own parameters":
            return OwnParameters(shape[-1], how), shape
        if kind == "hidden":
            return Hidden(f, how), after
        if kind == "per sample":
            mask = torch.tensor([self.draw.uniform(0.3, 2) for _ in range(self.batch)])
            return PerSample(f, mask, self.draw.random() < 0.5), after
        g, other = self.network(shape, depth)
        if kind == "gated":
            return (Gated(f, g, how), after) if after == other else (f, after)
        if len(after) != len(other) or after[1:] != other[1:]:
            return f, after
        return Joined(f, g), (after[0] + other[0], *after[1:])

    def _activation(self, shape: Shape) -> tuple[nn.Module, Shape]:
        made = self.draw.choice(ACTIVATIONS)()
        if isinstance(made, nn.PReLU) and self.draw.random() < 0.5:
            made = nn.PReLU(shape[0])
        return made, shape

    def _function(self, shape: Shape) -> tuple[nn.Module, Shape]:
        name = self.draw.choice(sorted(FUNCTIONS))
        function = FUNCTIONS[name]
        try:  # its shape; some need two dimensions
            with torch.no_grad():
                after = tuple(function(torch.rand(2, *shape)).shape[1:])
        except (RuntimeError, IndexError):
            return self._activation(shape)
        if not after or 0 in after or len(after) > 3:
            return self._activation(shape)
        return Applied(name, function), after

    def _of_vectors(self, shape: Shape) -> tuple[nn.Module, Shape]:
        n, draw = shape[0], self.draw
        out = draw.choice(SIZES)
        divisors = [d for d in SIZES if n % d == 0 and d < n]
        choices: list[Callable[[], tuple[nn.Module, Shape]]] = [
            lambda: (nn.Linear(n, out, bias=draw.random() < 0.7), (out,)),
            lambda: (nn.Linear(n, out), (out,)),
            lambda: (nn.LayerNorm(n, elementwise_affine=draw.random() < 0.5), shape),
            lambda: (nn.RMSNorm(n), shape),
            lambda: (nn.BatchNorm1d(n), shape),
            lambda: (nn.Softmax(1), shape),
            lambda: (nn.LogSoftmax(-1), shape),
            lambda: (nn.Softmin(1), shape),
            lambda: (nn.Unflatten(1, (1, n)), (1, n)),
        ]
        choices += [lambda d=d: (nn.Unflatten(1, (d, n // d)), (d, n // d)) for d in divisors]
        if n % 2 == 0:
            choices.append(lambda: (nn.GLU(1), (n // 2,)))
        layer, after = draw.choice(choices)()
        return layer, after

    def _of_sequences(self, shape: Shape) -> tuple[nn.Module, Shape]:
        (s, n), draw = shape, self.draw
        out = draw.choice(SIZES)
        kernel = draw.choice([k for k in (1, 2, 3) if k <= n])
        choices: list[Callable[[], tuple[nn.Module, Shape]]] = [
            lambda: (nn.Linear(n, out), (s, out)),
            lambda: (nn.Flatten(), (s * n,)),
            lambda: (nn.LayerNorm(n), shape),
            lambda: (nn.LayerNorm((s, n)), shape),
            lambda: (nn.Softmax(draw.choice([1, 2])), shape),
            lambda: (Recurrent(nn.LSTM(n, 2, batch_first=True, bidirectional=draw.random() < 0.3)), (s, 0)),
            lambda: (Recurrent(nn.GRU(n, 3, batch_first=True)), (s, 3)),
            lambda: (Recurrent(nn.RNN(n, 3, batch_first=True)), (s, 3)),
            lambda: (SelfAttention(n, draw.choice([h for h in (1, 2, 3) if n % h == 0])), shape),
            lambda: (nn.TransformerEncoderLayer(n, 1, 3, batch_first=True, norm_first=draw.random() < 0.5), shape),
            lambda: (nn.Conv1d(s, out, kernel, padding=draw.randrange(2)), (out, 0)),
            lambda: (nn.ConvTranspose1d(s, out, kernel, stride=draw.randint(1, 2)), (out, 0)),
            lambda: (nn.InstanceNorm1d(s, affine=draw.random() < 0.5) if n > 1 else nn.Tanh(), shape),
            lambda: (nn.GroupNorm(1, s), shape),
            lambda: (nn.BatchNorm1d(s), shape),
            lambda: (nn.AdaptiveAvgPool1d(draw.choice([1, 2, 3])), (s, 0)),
            lambda: (nn.MaxPool1d(kernel, stride=1), (s, 0)),
            lambda: (nn.Upsample(scale_factor=2, mode="linear"), (s, 2 * n)),
        ]
        layer, after = draw.choice(choices)()
        return layer, _shape(layer, shape) if 0 in after else after

    def _of_images(self, shape: Shape) -> tuple[nn.Module, Shape]:
        (c, h, w), draw = shape, self.draw
        out = draw.choice((1, 2, 3))
        kernel = (draw.randint(1, min(3, h)), draw.randint(1, min(3, w)))
        groups = draw.choice([1, math.gcd(c, out)])
        stride, padding = draw.randint(1, 2), (draw.randrange(kernel[0]), draw.randrange(kernel[1]))
        mode = draw.choice(["zeros", "reflect", "replicate", "circular"])
        if padding[0] >= h or padding[1] >= w:
            padding = (0, 0)
        choices: list[Callable[[], nn.Module]] = [
            lambda: nn.Conv2d(c, out, kernel, stride, padding, groups=groups, padding_mode=mode),
            lambda: nn.Conv2d(c, out, kernel, bias=False),
            lambda: nn.ConvTranspose2d(c, out, kernel, stride, groups=groups),
            lambda: nn.MaxPool2d(kernel, stride),
            lambda: nn.AvgPool2d(kernel, stride, count_include_pad=draw.random() < 0.5),
            lambda: nn.LPPool2d(2, kernel),
            lambda: nn.AdaptiveAvgPool2d((draw.randint(1, h), 1)),
            lambda: nn.AdaptiveMaxPool2d((1, draw.randint(1, w))),
            lambda: nn.Upsample(scale_factor=2, mode=draw.choice(["nearest", "bilinear", "bicubic"])),
            lambda: nn.InstanceNorm2d(c, affine=True) if h * w > 1 else nn.Tanh(),
            lambda: nn.GroupNorm(c, c) if h * w > 1 else nn.Tanh(),
            lambda: nn.BatchNorm2d(c),
            lambda: nn.LocalResponseNorm(2),
            lambda: nn.Softmax2d(),
            lambda: nn.ZeroPad2d((1, 0, 0, 2)),
            lambda: nn.ReplicationPad2d((0, 1, 1, 0)),
            lambda: nn.Flatten(),
            lambda: nn.Flatten(2),
            lambda: nn.Dropout2d(),
        ]
        if c % 4 == 0:
            choices.append(lambda: nn.PixelShuffle(2))
        layer = draw.choice(choices)()
        return layer, _shape(layer, shape)


def kinds(network: nn.Module) -> set[str]:
    """Names of the layers of a network."""
    return {m.name if isinstance(m, Applied) else type(m).__name__ for m in network.modules()}


def _shape(layer: nn.Module, shape: Shape) -> Shape:
    layer.eval()
    with torch.no_grad():
        return tuple(layer(torch.rand(2, *shape)).shape[1:])


ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.CELU,
    nn.ELU,
    nn.GELU,
    lambda: nn.GELU("tanh"),
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    lambda: nn.LeakyReLU(0.3),
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    lambda: nn.SiLU(inplace=True),
    nn.Sigmoid,
    lambda: nn.Softplus(beta=2.0),
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    lambda: nn.Threshold(0.1, 0.3),
    lambda: nn.Dropout(0.5),
]

FUNCTIONS: dict[str, Function] = {
    "abs": lambda x: x.abs(),
    "addcmul": lambda x: torch.addcmul(x, x, x.sin(), value=0.5),
    "amax": lambda x: x.amax(-1, keepdim=True),
    "atan2": lambda x: torch.atan2(x, 1 + x.square()),
    "chunk": lambda x: x.chunk(2, 1)[0].sin(),
    "clamp": lambda x: x.clamp(-0.7, 0.9),
    "complement": lambda x: 1 - x,
    "cos": torch.cos,
    "cumprod": lambda x: (1 + x.tanh() / 2).cumprod(-1),
    "cumsum": lambda x: x.cumsum(1),
    "diff": lambda x: x.diff(dim=-1),
    "exp": lambda x: (x.clamp(max=2.0)).exp(),
    "flatten": lambda x: x.flatten(1),
    "flip": lambda x: x.flip(-1),
    "gather": lambda x: x[..., [0, -1, 0]],
    "in place": lambda x: (2 * x).add_(1).tanh_(),
    "log": lambda x: (1 + x.square()).log(),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True),
    "masked": lambda x: x.masked_fill(x > 0.5, 0.25),
    "matmul": lambda x: x.unsqueeze(-1) @ x.unsqueeze(-2) if x.ndim == 2 else x @ x.mT,
    "mean": lambda x: x.mean(1, keepdim=True),
    "minimum": lambda x: torch.minimum(x, x.flip(-1) + 0.1),
    "norm": lambda x: x / (1 + x.norm(dim=-1, keepdim=True)),
    "normalize": lambda x: F.normalize(x, dim=1),
    "pow": lambda x: (x.square() + 0.5) ** 1.5,
    "prod": lambda x: (x + 0.1).prod(-1, keepdim=True),
    "product of parts": lambda x: x * x.roll(1, -1),
    "roll": lambda x: x.roll(1, 1),
    "rsqrt": lambda x: (1 + x.square()).rsqrt(),
    "slice": lambda x: x[:, ::2] - 1,
    "softmax": lambda x: F.softmax(x, -1) * x,
    "sort": lambda x: x.sort(-1).values,
    "stack": lambda x: torch.stack([x, x.sin()], -1),
    "std": lambda x: x.std(-1, keepdim=True) if x.shape[-1] > 1 else x,
    "sum": lambda x: x.sum(-1) if x.ndim > 2 else x,
    "topk": lambda x: x.topk(1, dim=-1).values,
    "transpose": lambda x: x.transpose(1, -1),
    "tril": lambda x: x.tril() if x.ndim > 2 else x,
    "unbind": lambda x: torch.cat(x.unbind(1), 1) if x.ndim > 2 else x,
    "where": lambda x: torch.where(x > 0, x.sin(), 0.3 * x),
}
