"""Networks that nobody tuned the library for, as small as they come, and what every product of theirs must equal."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations

from pullgeo.jacobian import Jacobian, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import oracles


class Block(nn.Module):
    """A residual block as networks for images have it, working in place where it can."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.norm = nn.GroupNorm(1, out)
        self.second = nn.Conv2d(out, out, 3, padding=1, padding_mode="circular")
        self.skip = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()
        self.activation = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(self.activation(self.norm(self.first(x))))
        h += self.skip(x)
        return F.silu(h, inplace=True)


class ResidualUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = Block(1, 2), Block(2, 3)
        self.pool, self.up = nn.AvgPool2d(2), nn.ConvTranspose2d(3, 2, 2, stride=2)
        self.join, self.out = Block(4, 2), nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.down(x)
        h = self.up(self.middle(self.pool(kept)))
        return self.out(self.join(torch.cat([h, kept], dim=1)))


class VisionTransformer(nn.Module):
    def __init__(self, norm_first: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.token = nn.Parameter(0.3 * torch.randn(1, 1, 4))
        self.position = nn.Parameter(0.3 * torch.randn(1, 3, 4))
        layer = nn.TransformerEncoderLayer(4, 2, 5, activation="gelu", batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.token.expand(x.shape[0], -1, -1), tokens), dim=1) + self.position
        return self.head(self.norm(self.encoder(tokens))[:, 0])


class GRUDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.recurrent, self.out = nn.Linear(2, 3), nn.GRU(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, z: Tensor) -> Tensor:
        states, _ = self.recurrent(z.unsqueeze(1).expand(-1, 3, -1))
        return self.out(torch.tanh(states) + self.start(z).unsqueeze(1))


class LSTMFromState(nn.Module):
    """Puts the latent into the initial state, whose batch is the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.recurrent = nn.Linear(2, 3), nn.LSTM(2, 3, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        state = self.start(z).unsqueeze(0)
        outputs, (last, _) = self.recurrent(z.unsqueeze(1).repeat(1, 3, 1), (state, torch.zeros_like(state)))
        return outputs[:, 1] * last[-1]


class CellsInALoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.out = nn.Linear(2, 3), nn.Linear(3, 2)
        self.gru, self.lstm, self.rnn = nn.GRUCell(2, 3), nn.LSTMCell(2, 3), nn.RNNCell(3, 3)

    def forward(self, z: Tensor) -> Tensor:
        hidden, outputs = self.start(z), []
        cell = torch.tanh(hidden)
        for _ in range(2):
            hidden, cell = self.lstm(z, (self.gru(z, hidden), cell))
            outputs.append(self.out(self.rnn(hidden)))
        return torch.stack(outputs, dim=1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Sequential(nn.BatchNorm2d(c), nn.ELU(), nn.Conv2d(c, 2, 3, padding=1)) for c in (2, 4))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1).mean((2, 3))


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.out = nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.value(x) * torch.sigmoid(self.gate(x))
        return self.out(h) / (1 + x.square().sum(-1, keepdim=True)).sqrt()


class SharedWeights(nn.Module):
    """One module twice, one parameter in two modules, and both once more by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(torch.tanh(self.first(x)))) * torch.sigmoid(self.first(x))
        return F.linear(self.scale * h, self.first.weight.t(), self.second.bias) + self.scale.exp()


class TransformerDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Linear(2, 2)
        self.layer = nn.TransformerDecoderLayer(2, 1, 3, activation=F.silu, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return self.layer(x, self.memory(x[:, :2]), tgt_mask=mask, tgt_is_causal=True)


class Attention(nn.Module):
    """`torch.nn.MultiheadAttention` with one of its settings, over three tokens."""

    def __init__(self, setting: str) -> None:
        super().__init__()
        options = {
            "biases and zeros": {"add_bias_kv": True, "add_zero_attn": True},
            "own sizes of keys and values": {"kdim": 1, "vdim": 3, "bias": False},
        }
        self.setting = setting
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options.get(setting, {}))

    def forward(self, x: Tensor) -> Tensor:
        if self.setting == "own sizes of keys and values":
            return self.attention(x, x[..., :1], x[..., 1:], need_weights=False)[0]
        if self.setting == "masks":
            hidden = torch.ones(3, 3, dtype=torch.bool).triu(1)
            padding = torch.tensor([[False, True, False]]).expand(len(x), 3)
            y, weights = self.attention(x, x, x.sin(), attn_mask=hidden, key_padding_mask=padding)
            return torch.cat([y, weights], -1)
        return self.attention(x, x, x)[0] + x


def dcgan_generator() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (3, 1, 1)),
        nn.ConvTranspose2d(3, 2, 2, bias=False),
        nn.BatchNorm2d(2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2, 1, 3, padding=1),
        nn.Tanh(),
    )


def normalized_mlp() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(3, 5)),
        nn.Tanh(),
        parametrizations.spectral_norm(nn.Linear(5, 2)),
        nn.Unflatten(1, (2, 1)),
        parametrizations.weight_norm(nn.Conv1d(2, 3, 1), dim=1),
    )


NETWORKS = {
    "residual U-Net": (ResidualUNet, (1, 4, 2)),
    "vision transformer": (VisionTransformer, (1, 4, 2)),
    "vision transformer with norms behind": (lambda: VisionTransformer(norm_first=False), (1, 4, 2)),
    "GRU decoder": (GRUDecoder, (2,)),
    "LSTM from its state": (LSTMFromState, (2,)),
    "cells in a loop": (CellsInALoop, (2,)),
    "DCGAN generator": (dcgan_generator, (3,)),
    "weight norm and spectral norm": (normalized_mlp, (3,)),
    "DenseNet": (DenseNet, (2, 2, 1)),
    "gates": (Gates, (3,)),
    "shared weights": (SharedWeights, (3,)),
    "transformer decoder": (TransformerDecoder, (3, 2)),
    "attention": (lambda: Attention("plain"), (3, 4)),
    "attention with biases and zeros": (lambda: Attention("biases and zeros"), (3, 4)),
    "attention with own sizes": (lambda: Attention("own sizes of keys and values"), (3, 4)),
    "attention with masks": (lambda: Attention("masks"), (3, 4)),
}


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A network with random statistics in its norms, in eval mode and double precision, and a batch of three."""
    torch.manual_seed(3)
    build, shape = NETWORKS[name]
    module = build().double().eval()
    for key, buffer in module.named_buffers():
        if "running" in key:
            buffer.copy_(0.5 + torch.rand_like(buffer))
    return module, random(3, *shape)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-9 of the largest entry."""
    assert actual.dtype == torch.float64
    scale = max(1e-9, float(expected.detach().abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9 * scale)


def check_input(module: nn.Module, x: Tensor) -> Jacobian:
    """The value and all products with respect to the input."""
    with sdpa_kernel(SDPBackend.MATH):
        value, truth = module(x).detach(), oracles.dense_jacobian(module, x)
    y, J = linearize(module, x)
    s = J.signature
    close(y, value)
    close(flat(J.push(s.in_basis())).permute(1, 2, 0), truth)
    close(flat(J.pull(s.out_basis())).permute(1, 0, 2), truth)
    W, V = (random(2, s.batch, *s.out_shape, seed=i) for i in (1, 2))
    pulled = [torch.einsum("boi,kbo->kbi", truth, flat(stack)) for stack in (W, V)]
    close(J.pull_gram(W, V), torch.einsum("kbi,lbi->bkl", *pulled))
    close(J.pull_outer(W, V), torch.einsum("kbi,kbj->bij", *pulled))
    close(flat(J.pull_squared(W)), torch.einsum("boi,kbo->kbi", truth.square(), flat(W)))
    T = random(2, s.batch, *s.in_shape, seed=3)
    close(flat(J.push_squared(T)), torch.einsum("boi,kbi->kbo", truth.square(), flat(T)))
    with sdpa_kernel(SDPBackend.MATH):
        form = oracles.second_form(module, x, W[0], T)
    close(J.second(T, W[0]), form)
    close(J.push_with_second(T, W[0])[1], form)
    close((flat(J.second_push(T, T.flip(0))) * flat(W[:1])).sum(-1), torch.stack([form[:, 0, 1], form[:, 1, 0]]))
    close((flat(J.second_push(T, T)) * flat(W[:1])).sum(-1), form.diagonal(dim1=1, dim2=2).T)
    u, w = random(2, 1, s.batch, 2, seed=4)
    jet = flat(J.push_jet(torch.cat([T, T[:1]]), u, w))
    close(jet[:2].permute(1, 2, 0), torch.einsum("boi,kbi->bok", truth, flat(T)))
    close((jet[2:] - jet[:1]).mul(flat(W[:1])).sum(-1), torch.einsum("bij,lbi,lbj->lb", form, u, w))
    return J


def check_weight(module: nn.Module, x: Tensor) -> Jacobian:
    """The value and all products with respect to the weights."""
    truth = oracles.dense_jacobian(module, x, "weight")
    y, J = linearize(module, x, "weight")
    s = J.signature
    with sdpa_kernel(SDPBackend.MATH):
        close(y, module(x).detach())
    close(flat(J.pull(s.out_basis())).permute(1, 0, 2), truth)
    T = random(2, s.batch, *s.in_shape, seed=1)
    close(flat(J.push(T)), torch.einsum("boi,kbi->kbo", truth, T))
    W, V = (random(2, s.batch, *s.out_shape, seed=i) for i in (2, 3))
    pulled = [torch.einsum("boi,kbo->kbi", truth, flat(stack)) for stack in (W, V)]
    close(J.pull_gram(W, V), torch.einsum("kbi,lbi->bkl", *pulled))
    close(J.pull_diag(W, V), (pulled[0] * pulled[1]).sum(0))
    close(J.pull_diag(W, W), pulled[0].square().sum(0))
    close(flat(J.pull_squared(W)), torch.einsum("boi,kbo->kbi", truth.square(), flat(W)))
    return J
