"""Pulled-back metrics of recurrent networks, transformers and small batches, in units of forward passes.

A metric at b points of d latents moves d tangents besides the value; the unit is one forward pass of ``(d + 1) b``
points at once. Beside it stands forward mode of the whole: ``vmap`` over tangents only of one ``torch.func.jvp``.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn import functional as F

from pullgeo import PullbackManifold, nnj
from tests.benchmarks.side_by_side import middle, show, turns


class Unrolled(nn.Module):
    """A sequence from one latent, repeated at each step of a recurrent layer."""

    def __init__(self, recurrent: nn.Module, hidden: int, steps: int) -> None:
        super().__init__()
        self.recurrent, self.head, self.steps = recurrent, nn.Linear(hidden, 8), steps

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.recurrent(z.unsqueeze(1).repeat(1, self.steps, 1))[0])


class FromState(nn.Module):
    """A sequence from one latent, which is the first state of a recurrent layer."""

    def __init__(self, d: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.start, self.recurrent = nn.Linear(d, hidden), nn.GRU(4, hidden, batch_first=True)
        self.head, self.steps = nn.Linear(hidden, 8), steps

    def forward(self, z: Tensor) -> Tensor:
        inputs = torch.zeros(len(z), self.steps, 4, dtype=z.dtype)
        return self.head(self.recurrent(inputs, torch.tanh(self.start(z)).unsqueeze(0))[0])


class CellLoop(nn.Module):
    """A cell that reads its own output."""

    def __init__(self, cell: type[nn.RNNCellBase], d: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.cell, self.start, self.head = cell(8, hidden), nn.Linear(d, hidden), nn.Linear(hidden, 8)
        self.steps = steps

    def forward(self, z: Tensor) -> Tensor:
        state = torch.tanh(self.start(z))
        memory, y, outputs = torch.zeros_like(state), torch.zeros(len(z), 8, dtype=z.dtype), []
        for _ in range(self.steps):
            if isinstance(self.cell, nn.LSTMCell):
                state, memory = self.cell(y, (state, memory))
            else:
                state = self.cell(y, state)
            y = self.head(state)
            outputs.append(y)
        return torch.stack(outputs, 1)


class Block(nn.Module):
    """A block as in timm: queries, keys and values by one layer, a reshape, a permutation and ``unbind``."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(b, n, c))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of an image from a latent."""

    def __init__(self, d: int, width: int, heads: int, patches: int, depth: int, fused: bool = True) -> None:
        super().__init__()
        self.start = nn.Linear(d, patches * width)
        self.position = nn.Parameter(0.02 * torch.randn(1, patches, width))
        self.blocks = nn.Sequential(*(Block(width, heads, fused) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 16)
        self.patches, self.width = patches, width

    def forward(self, z: Tensor) -> Tensor:
        x = self.start(z).reshape(len(z), self.patches, self.width) + self.position
        side = round(self.patches**0.5)
        y = self.head(self.norm(self.blocks(x))).reshape(len(z), side, side, 4, 4)
        return torch.einsum("bhwpq->bhpwq", y).reshape(len(z), 1, 4 * side, 4 * side)


class Encoder(nn.Module):
    """Tokens from a latent, by `torch.nn.TransformerEncoderLayer`."""

    def __init__(self, d: int, width: int, heads: int, tokens: int, depth: int) -> None:
        super().__init__()
        self.start, self.tokens, self.width = nn.Linear(d, tokens * width), tokens, width
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, batch_first=True, dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 16)

    def forward(self, z: Tensor) -> Tensor:
        return self.head(self.layers(self.start(z).reshape(len(z), self.tokens, self.width)))


def mlp(d: int) -> nn.Module:
    return nn.Sequential(nn.Linear(d, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 784))


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "GRU, 32 steps": lambda d: Unrolled(nn.GRU(d, 64, batch_first=True), 64, 32),
    "GRU, 2 layers": lambda d: Unrolled(nn.GRU(d, 64, 2, batch_first=True), 64, 32),
    "GRU from its state": lambda d: FromState(d, 64, 32),
    "LSTM, 32 steps": lambda d: Unrolled(nn.LSTM(d, 64, batch_first=True), 64, 32),
    "RNN, 32 steps": lambda d: Unrolled(nn.RNN(d, 64, batch_first=True), 64, 32),
    "GRUCell loop": lambda d: CellLoop(nn.GRUCell, d, 64, 16),
    "LSTMCell loop": lambda d: CellLoop(nn.LSTMCell, d, 64, 16),
    "RNNCell loop": lambda d: CellLoop(nn.RNNCell, d, 64, 16),
    "ViT": lambda d: ViT(d, 64, 4, 16, 2),
    "ViT, plain attention": lambda d: ViT(d, 64, 4, 16, 2, fused=False),
    "TransformerEncoderLayer": lambda d: Encoder(d, 64, 4, 16, 2),
}


def with_jvp(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """``JᵀJ`` by one batched ``jvp`` for all tangents."""
    basis = torch.eye(z.shape[1], dtype=z.dtype).unsqueeze(1).expand(-1, len(z), -1)
    columns = vmap(lambda t: jvp(f, (z,), (t,))[1])(basis).flatten(2)
    return torch.einsum("kbn,lbn->bkl", columns, columns)


@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("batch", [16, 128])
def test_networks(d: int, batch: int) -> None:
    rows: list[dict[str, object]] = []
    for name, network in NETWORKS.items():
        decoder = network(d).eval()
        z = torch.randn(batch, d)
        stack = torch.randn((d + 1) * batch, d)
        manifold = PullbackManifold(decoder)

        def ours(manifold: PullbackManifold = manifold, z: Tensor = z) -> Tensor:
            return manifold.metric(z).dense()

        def peer(decoder: nn.Module = decoder, z: Tensor = z) -> Tensor:
            return with_jvp(decoder, z)

        with torch.no_grad():
            contenders = {"forward": lambda f=decoder, s=stack: f(s), "ours": ours, "jvp": _math(peer)}
            torch.testing.assert_close(ours(), contenders["jvp"](), rtol=1e-3, atol=1e-4)
            run = turns(contenders, rounds=11, warmup=1)
        rows.append(
            {
                "network": name,
                "ours / stacked forward": run.ratio("ours", "forward"),
                "jvp / stacked forward": run.ratio("jvp", "forward"),
                "jvp / ours": run.ratio("jvp", "ours"),
            }
        )
    note = (
        "JᵀJ of recurrent networks and transformers; the unit is one forward pass of (d + 1) batch points. jvp is one "
        "batched torch.func.jvp for all tangents."
    )
    show(
        f"pullback metric of other networks, d = {d}, batch {batch}",
        rows,
        f"networks-{d}-{batch}" if batch == 16 else None,
        note=note,
    )
    assert all(middle(row["jvp / ours"]) > 0.9 for row in rows)


def _math(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """With the kernels that have forward mode."""

    def computed() -> Tensor:
        fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        torch._C._set_mkldnn_enabled(False)
        try:
            with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
                return run()
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            torch._C._set_mkldnn_enabled(fused)

    return computed


@pytest.mark.parametrize("batch", [1, 512])
def test_small(batch: int) -> None:
    """The commonest calls of an MLP."""
    decoder, d = mlp(2).eval(), 2
    z, u = torch.randn(batch, d), torch.randn(batch, d)
    stack = torch.randn((d + 1) * batch, d)
    manifold = PullbackManifold(decoder)
    model = nn.Module()
    model.decoder = decoder
    model.decode = lambda z: model.decoder(z)
    by_lambda = PullbackManifold(lambda z: decoder(z))
    rows: list[dict[str, object]] = []
    with torch.no_grad():
        run = turns(
            {
                "stacked forward": lambda: decoder(stack),
                "forward": lambda: decoder(z),
                "metric": lambda: manifold.metric(z).dense(),
                "metric, lambda": lambda: by_lambda.metric(z).dense(),
                "connection": lambda: manifold.connection(z, u, u),
            },
            rounds=101 if batch == 1 else 31,
        )
    for name in ("metric", "metric, lambda", "connection"):
        of = {"/ stacked forward": run.ratio(name, "stacked forward"), "/ forward": run.ratio(name, "forward")}
        rows.append({"what": name, "batch": batch, **of})
    note = "A decoder as a module, and as a lambda that calls it; a stacked forward has d + 1 = 3 times the points."
    show(f"MLP 2-128-128-784, batch {batch}", rows, f"small-{batch}", note=note)


def test_diag_backprop() -> None:
    """The summed diagonal of the Gauss-Newton matrix, layer by layer, over a gradient of the loss."""
    f = nnj.Sequential(nnj.Linear(50, 128), nnj.Tanh(), nnj.Linear(128, 128), nnj.Tanh(), nnj.Linear(128, 10))
    rows: list[dict[str, object]] = []
    for batch in (10, 128):
        x = torch.randn(batch, 50)

        def gradient(x: Tensor = x) -> object:
            return torch.autograd.grad(f(x).square().sum(), tuple(f.parameters()))

        def ours(x: Tensor = x) -> object:
            return f.jTmjp(x, None, None, wrt="weight", to_diag=True, diag_backprop=True, reduction="sum")

        run = turns({"gradient": gradient, "ours": ours}, rounds=101)
        rows.append({"batch": batch, "ours / gradient": run.ratio("ours", "gradient")})
    show("diag_backprop, summed", rows)
