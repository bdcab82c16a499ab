"""Products over weights of networks that are differentiated automatically or recorded, beside torch.func and loops."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo.jacobian import linearize, sample_gradients, tangent_kernel
from pullgeo.likelihood import Gaussian, ggn_diag
from tests.benchmarks.side_by_side import show, turns


class Recurrent(nn.Module):
    """The last state of an LSTM, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Fourier(nn.Module):
    """A Fourier layer: modes times weights, here a pair of real tensors."""

    def __init__(self, width: int = 8, modes: int = 8) -> None:
        super().__init__()
        self.lift, self.drop = nn.Linear(1, width), nn.Linear(width, 1)
        self.real = nn.Parameter(torch.randn(width, width, modes) / width)
        self.imaginary = nn.Parameter(torch.randn(width, width, modes) / width)
        self.modes = modes

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x.unsqueeze(-1)).mT
        weight = torch.complex(self.real, self.imaginary)
        low = torch.einsum("bim,iom->bom", torch.fft.rfft(h)[..., : self.modes], weight)
        return self.drop(torch.nn.functional.gelu(torch.fft.irfft(low, n=x.shape[1])).mT).squeeze(-1)


class UNet(nn.Module):
    """Down, up, and a skip."""

    def __init__(self, c: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.GELU(), nn.Conv2d(c, c, 3, padding=1), nn.GELU())
        self.down = nn.Conv2d(c, 2 * c, 2, stride=2)
        self.middle = nn.Sequential(nn.Conv2d(2 * c, 2 * c, 3, padding=1), nn.GELU())
        self.up = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
        self.last = nn.Sequential(nn.Conv2d(2 * c, c, 3, padding=1), nn.GELU(), nn.Conv2d(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(torch.cat([h, self.up(self.middle(self.down(h)))], 1))


class Block(nn.Module):
    """Attention and a small network, both with residuals."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        parts = self.qkv(self.n1(x)).chunk(3, -1)
        q, k, v = (part.reshape(b, t, self.heads, d // self.heads).transpose(1, 2) for part in parts)
        h = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(h.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.n2(x))


class GPT(nn.Module):
    """A small transformer; the logits of the last token."""

    def __init__(self, vocabulary: int = 65, t: int = 32, d: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, d), nn.Parameter(torch.randn(t, d) / 8)
        self.blocks = nn.Sequential(*(Block(d, 4) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(x) + self.place))[:, -1])


PEERS = ("torch.func", "loop")

CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "MLP, batch 128": (
        lambda: nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 10)),
        lambda: torch.randn(128, 100),
    ),
    "LSTM, batch 16": (lambda: Recurrent().double(), lambda: torch.randn(16, 12, 8, dtype=torch.float64)),
    "Fourier layer, batch 16": (Fourier, lambda: torch.randn(16, 32)),
    "U-Net, batch 1": (UNet, lambda: torch.randn(1, 1, 16, 16)),
    "GPT, batch 8": (GPT, lambda: torch.randint(0, 65, (8, 32))),
}


def peers(network: nn.Module, x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Stacks ``(k, b, *y)`` pulled to the weights, ``(k, b, P)``: by torch.func over samples, and by a plain loop."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def of_one(sample: Tensor, cotangents: Tensor) -> Tensor:
        back = vjp(lambda ps: functional_call(network, ps, (sample.unsqueeze(0),)).squeeze(0), parameters)[1]
        return vmap(lambda w: torch.cat([g.flatten() for g in back(w)[0].values()]))(cotangents)

    def by_torch_func(W: Tensor) -> Tensor:
        return vmap(of_one, in_dims=(0, 1), out_dims=1)(x, W)

    def by_loop(W: Tensor) -> Tensor:
        weights, rows = list(network.parameters()), []
        for i in range(len(x)):
            y = network(x[i : i + 1])
            found = [torch.autograd.grad(y, weights, w[i : i + 1], retain_graph=True) for w in W]
            rows.append(torch.stack([torch.cat([g.flatten() for g in gs]) for gs in found]))
        return torch.stack(rows, 1)

    return {"torch.func": by_torch_func, "loop": by_loop}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_beside_torch(name: str) -> None:
    make, batch = CASES[name]
    torch.manual_seed(0)
    network, x = make().eval(), batch()
    y = network(x)
    w = torch.randn(1, *y.shape, dtype=y.dtype)
    k = min(y[0].numel(), 64)
    basis = torch.eye(y[0].numel(), dtype=y.dtype)[:, None].expand(-1, len(x), -1).reshape(-1, *y.shape)

    def diagonal(pull: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([pull(part).square().sum(0) for part in basis.split(k)]).sum(0)

    def trace(pull: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([torch.einsum("kbp,kcp->bc", D, D) for D in map(pull, basis.split(k))]).sum(0)

    def with_gradients(on: bool, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.set_grad_enabled(on), sdpa_kernel(SDPBackend.MATH):
                return function()

        return run

    ours = {
        "pull": lambda: linearize(network, x, "weight")[1].pull(w).squeeze(0),
        "sample gradients": lambda: sample_gradients(network, x, w.squeeze(0)),
        "ggn_diag": lambda: ggn_diag(network, x, Gaussian()),
        "kernel, trace": lambda: tangent_kernel(network, x, outputs="trace"),
    }
    rows: list[dict[str, object]] = []
    for product, run in ours.items():
        contenders: dict[str, Callable[[], Tensor]] = {"ours": with_gradients(False, run), "ours, gradients on": run}
        for peer, pull in peers(network, x).items():
            of = {"ggn_diag": diagonal, "kernel, trace": trace}.get(product, lambda pull: pull(w).squeeze(0))
            on = peer == "loop"
            attempt = with_gradients(on, lambda of=of, pull=pull: of(pull))
            try:
                found = attempt()
            except (RuntimeError, NotImplementedError):  # torch.func does not serve this network
                continue
            torch.testing.assert_close(run().detach(), found.detach(), rtol=1e-2, atol=1e-2 * float(found.abs().max()))
            contenders[peer] = attempt
        times = turns(contenders, rounds=7, warmup=1)
        rows.append(
            {
                "product": product,
                "gradients on / ours": times.ratio("ours, gradients on", "ours"),
                **{f"{peer} / ours": times.ratio(peer, "ours") if peer in contenders else None for peer in PEERS},
            }
        )
    stored = re.sub("[^a-z0-9]+", "-", name.lower())
    note = "Products over weights; torch.func by vmap over samples, and a loop of torch.autograd.grad over samples."
    show(f"weights of {name}", rows, f"weight-products-{stored}", note=note)
