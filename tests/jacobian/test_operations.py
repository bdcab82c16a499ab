"""Every operation that a graph knows, alone: first and second derivatives, and with respect to parameters."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian import explain, linearize
from pullgeo.jacobian.tracing.proxy import Untraceable
from pullgeo.jacobian.tracing.trace import record_input
from tests.jacobian.architectures import check_input, check_weight, close, random
from tests.releases import newer_torch

Operation = Callable[[nn.Module, Tensor], Tensor]


class Module(nn.Module):
    """One operation, and parameters ``w (5,)``, ``m (5, 5)`` and ``c (1, 3, 5)`` for it."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation
        generator = torch.Generator().manual_seed(7)
        self.w, self.m, self.c = (
            nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))
            for shape in ((5,), (5, 5), (1, 3, 5))
        )
        self.table = nn.Embedding(3, 5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.operation(self, x)


CONSTANT = random(3, 5, seed=11)
INDEX = torch.tensor([[[0, 2, 1, 1, 0]]])

ELEMENTWISE: dict[str, Operation] = {
    "exp, log": lambda m, x: (1 + x.exp()).log(),
    "sin, cos": lambda m, x: x.sin() * x.cos().neg(),
    "sqrt, rsqrt": lambda m, x: (x.square() + 1).sqrt() - (x**2 + 2).rsqrt(),
    "reciprocal": lambda m, x: 1 / (3 + x.tanh()),
    "powers": lambda m, x: (x.abs() + 1) ** -1.5 + 2.0**x + x**3 + torch.pow(x, 0.0),
    "atan, erf, expm1": lambda m, x: torch.atan(x) - torch.erf(x) + x.expm1() * x.log1p().detach().nan_to_num(),
    "clamp": lambda m, x: x.clamp(-0.5, 0.7) + torch.clamp_min(x, 0.1) + x.clip(max=0.3),
    "activations": lambda m, x: F.gelu(x) + F.elu(x, 0.7) + torch.sigmoid(x) + F.softplus(x, beta=2) + x.relu(),
    "leaky ones": lambda m, x: (
        F.leaky_relu(x, 0.3) + F.hardtanh(x, -0.4, 0.6) + F.prelu(x, torch.tensor([0.2]).double())
    ),
    "rounding has no derivative": lambda m, x: x * x.round() + torch.sign(x) * x,
    "dropout that is switched off": lambda m, x: F.dropout(x, 0.4, training=False).sin(),
}
ARITHMETIC: dict[str, Operation] = {
    "numbers": lambda m, x: 2 * x - x / 3 + 1 - (4 - x) + torch.rsub(x, 2.0),
    "constants": lambda m, x: x * CONSTANT + CONSTANT - x / (3 + CONSTANT.abs()),
    "products of branches": lambda m, x: x.sin() * x.cos() / (1 + x.square()),
    "broadcast products": lambda m, x: (
        x[:, :1] * x[:, :, :1] + (x.unsqueeze(1) - x.unsqueeze(2)).square().sum(-1)[..., :1]
    ),
    "the same twice": lambda m, x: x * x + x + x,
    "add with alpha": lambda m, x: torch.add(x, x.sin(), alpha=3) + torch.sub(x.exp(), x, alpha=0.5),
    "addcmul, addcdiv, lerp": lambda m, x: (
        torch.lerp(torch.addcmul(x, x, x.sin(), value=2.0), x, 0.3) + torch.addcdiv(x, x, 1 + x.square())
    ),
    "where": lambda m, x: torch.where(x > 0, x.sin(), 0.1 * x) + x.masked_fill(x < -0.5, 2.0),
    "extremes of two": lambda m, x: torch.maximum(x, x.roll(1, 1)) + torch.minimum(x.sin(), CONSTANT),
    "in place": lambda m, x: F.relu(x.sin().add_(1).mul_(2).sub_(x), inplace=True),
    "detached": lambda m, x: x * x.detach() + (x.round() - x).detach(),
    "without gradient": lambda m, x: x * torch.no_grad()(torch.exp)(x),
}


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ v


def heads_in_front(m: nn.Module, x: Tensor) -> Tensor:
    """As vision transformers take queries, keys and values of one product apart."""
    q, k, v = F.linear(x, m.m[:, :4].T.repeat(3, 1)).reshape(len(x), 3, 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
    return attend(q, k, v).transpose(1, 2).reshape(len(x), 3, 4)


def heads_by_number(m: nn.Module, x: Tensor) -> Tensor:
    qkv = F.linear(x, m.m[:, :4].T.repeat(3, 1)).reshape(len(x), 3, 3, 2, 2).permute(2, 3, 0, 1, 4).contiguous() * 0.7
    q, k, v = qkv[0], qkv[1, ...], qkv[2, :, :] / 2  # (heads, batch, n, c)
    return attend(q.transpose(0, 1), k.transpose(0, 1), v.permute(1, 0, 2, 3)).flatten(2)


def batch_in_the_middle(m: nn.Module, x: Tensor) -> Tensor:
    left, right = x.sin().transpose(0, 1).split([1, 2], 0)
    first, second = x.mT.movedim(0, 2).chunk(2, 1)
    return left.transpose(0, 1) * right.movedim(1, 0) + (3.0 * first).permute(2, 1, 0) + second.permute(2, 1, 0)


def batch_anywhere_in_einsum(m: nn.Module, x: Tensor) -> Tensor:
    y = torch.einsum("nbi,bni->inb", x.sin().transpose(0, 1), x)
    pairs = torch.einsum("bni,bnj->nbij", x, x)[0].transpose(0, 1)[0]
    back = torch.einsum("nbi,ij->bnj", x.transpose(0, 1), m.m)
    return torch.einsum("inb,ij->jbn", y, m.m).permute(1, 2, 0) * pairs.unsqueeze(1) + back


MOVED: dict[str, Operation] = {
    "heads in front": heads_in_front,
    "heads by number": heads_by_number,
    "batch in the middle": batch_in_the_middle,
    "batch anywhere in einsum": batch_anywhere_in_einsum,
}
LAYOUT: dict[str, Operation] = {
    "reshape": lambda m, x: x.reshape(len(x), -1).view(x.shape[0], 5, 3).flatten(1).unflatten(1, (3, 5)) * x,
    "squeeze": lambda m, x: x.unsqueeze(-1).squeeze(-1) * torch.unsqueeze(x, 1).squeeze(1),
    "permute": lambda m, x: x.permute(0, 2, 1).transpose(1, 2).mT.swapaxes(-1, -2).movedim(2, 1).transpose(-1, -2) * x,
    "expand": lambda m, x: x[:, :, :1].expand(-1, -1, 5) * x + x[:, :1].expand_as(x) + x[:, :1].repeat(1, 3, 1),
    "slices": lambda m, x: x[:, 1:, ::2] * x[:, 1:][..., -1:] + x[:, 0, None, :3] - x[:, :, 2].unsqueeze(-1)[:, 1:],
    "the whole batch by its length": lambda m, x: x[: len(x), 1:].sin() * x[0:, :2] + x[:, 1:],
    "index tensors": lambda m, x: x[:, [0, 2, 2]] * x[:, :, torch.tensor([4, 0, 1, 1, 3])],
    "masks of columns": lambda m, x: x[:, :, torch.tensor([True, False, True, True, False])].square(),
    "chunk, split": lambda m, x: (
        torch.cat([*x.chunk(2, 1), *x.split([1, 2], 1)[1:]], 1) * x.split(3, 2)[0].sum((1, 2), True)
    ),
    "unbind, tensor_split": lambda m, x: torch.stack(x.unbind(2), 2) * torch.cat(x.tensor_split(2, 2)[::-1], 2),
    "narrow, select": lambda m, x: (
        x.narrow(2, 1, 3) * x.select(1, 0)[:, None, 1:4] + x.index_select(2, torch.tensor([0, 0, 4]))
    ),
    "gather": lambda m, x: x.gather(2, INDEX.expand(len(x), 3, 5)) * x,
    "flip, roll, tril": lambda m, x: (
        x.flip(1, 2) * x.roll((1, 2), (1, 2)) + torch.tril(x) * x.diagonal(0, 1, 2).unsqueeze(-1)
    ),
    "cat and stack": lambda m, x: torch.stack(
        [torch.cat([x, x.sin()], -1), torch.cat([CONSTANT.expand(len(x), 3, 5), x], 2)], 1
    ),
    "repeat_interleave, unfold": lambda m, x: x.repeat_interleave(2, 2).unfold(2, 4, 3).sum(-1) * x[:, :, :3],
    "pad": lambda m, x: F.pad(x, (1, 0, 0, 2), value=0.5).square().sum(1, keepdim=True) + F.pad(x, (1, 0), "replicate"),
    "clone and contiguous": lambda m, x: x.mT.contiguous().mT.clone() * x.to(torch.float64),
}
REDUCTIONS: dict[str, Operation] = {
    "sum and mean": lambda m, x: (
        x.sum(-1, keepdim=True) * x.mean((1, 2), keepdim=True) + torch.mean(x, dim=1).unsqueeze(1)
    ),
    "variance": lambda m, x: (
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 0.1).sqrt() + x.std(2, keepdim=True)
    ),
    "extremes": lambda m, x: (
        x.max(2)[0] * x.amin(2) + x.min(dim=2).values + x.sort(dim=2).values[..., 1] + x.topk(2, 2).values.sum(-1)
    ),
    "norms": lambda m, x: (
        x.norm(dim=2, keepdim=True) * F.normalize(x, dim=-1) + torch.linalg.vector_norm(x, dim=(1, 2)).reshape(-1, 1, 1)
    ),
    "scans": lambda m, x: x.cumsum(2) * torch.logsumexp(x, 2, keepdim=True) + x.prod(1, keepdim=True),
    "softmax family": lambda m, x: F.softmax(x, 1) + x.log_softmax(-1) + F.softmin(x, dim=2) * torch.softmax(x, -1),
}
PRODUCTS: dict[str, Operation] = {
    "matmul of branches": lambda m, x: x.sin() @ x.mT @ x,
    "matmul with constants": lambda m, x: CONSTANT.T @ x @ CONSTANT.mT + x.mT @ CONSTANT[:, :3],
    "vectors": lambda m, x: (x[:, 0] @ CONSTANT.mT @ CONSTANT[:, 2]).unsqueeze(-1) + x @ CONSTANT[0],
    "bmm": lambda m, x: torch.bmm(x, x.mT) + torch.baddbmm(x @ x.mT, x, x.sin().mT, beta=0.5, alpha=2),
    "einsum": lambda m, x: torch.einsum("bij,bkj->bik", x, x.sin()) + torch.einsum("bij,kj->bik", x, CONSTANT),
    "einsum of one": lambda m, x: torch.einsum("bij->bji", x).square(),
    "attention": lambda m, x: F.scaled_dot_product_attention(x.sin(), x, x.cos(), is_causal=True, scale=0.7),
    "attention with a mask": lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=CONSTANT[:, :3]),
    "distances": lambda m, x: F.pairwise_distance(x, x.cos()).unsqueeze(-1) * x,
    "cosine": lambda m, x: (
        F.cosine_similarity(x, x.exp(), dim=2) + F.cosine_similarity(x, CONSTANT.expand(len(x), 3, 5), 2)
    ),
}
SPATIAL: dict[str, Operation] = {
    "convolutions": lambda m, x: (
        F.conv1d(x, CONSTANT.reshape(5, 3, 1), CONSTANT[0]).sin()[..., :3]
        + F.conv1d(x, CONSTANT[:, :3].reshape(3, 1, 3), None, 1, (0,), 1, 3).sum(1, keepdim=True)
    ),
    "transposed": lambda m, x: F.conv_transpose1d(x, CONSTANT.reshape(3, 1, 5), CONSTANT[0, :1], 2, 1, 1).square(),
    "pools": lambda m, x: (
        F.max_pool1d(x, 2, 1) * F.avg_pool1d(x, 2, 1) + F.adaptive_avg_pool1d(x, 4) + F.adaptive_max_pool1d(x, 4)
    ),
    "pool with indices": lambda m, x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2).square(),
    "unpool in two dimensions": lambda m, x: F.max_unpool2d(
        *F.max_pool2d(x[:, None], (2, 1), return_indices=True), (2, 1)
    ).sin(),
    "interpolation": lambda m, x: F.interpolate(x, scale_factor=2, mode="linear") * F.interpolate(x, size=10),
    "norms": lambda m, x: (
        F.layer_norm(x, (5,))
        + F.group_norm(x, 3) * F.instance_norm(x)
        + F.rms_norm(x, (3, 5), eps=0.1)
        + F.batch_norm(x, CONSTANT[:, 0], CONSTANT[:, 1].square() + 1)
        + F.local_response_norm(x, 2, alpha=0.5)
    ),
    "glu": lambda m, x: F.glu(torch.cat([x, x.sin()], 1), 1),
}
WITH_PARAMETERS: dict[str, Operation] = {
    "scale and shift": lambda m, x: m.w * x + m.c - m.w / (2 + x.tanh()),
    "computed of parameters": lambda m, x: x * F.softplus(m.w) @ (m.m / m.m.norm()).tril().T + m.m[0].exp() * m.w.sum(),
    "tokens": lambda m, x: torch.cat([m.c.expand(len(x), -1, -1), x, m.c.repeat(len(x), 1, 1)[:, :1]], 1).sin(),
    "positions": lambda m, x: x * m.table(torch.arange(3)) + m.c[0, :3],
    "matrices": lambda m, x: x @ m.m + m.c @ x.mT @ x + F.linear(x, m.m, m.w) - torch.einsum("bij,kj->bik", x, m.m),
    "pieces": lambda m, x: x * m.w.chunk(2)[0].mean() + torch.stack(list(m.m)).unbind(0)[2] * x,
    "functional layers": lambda m, x: (
        F.layer_norm(x, (5,), m.w, m.m[0])
        + F.conv1d(x, m.m[:3, :3].unsqueeze(-1), m.w[:3])
        + F.group_norm(x, 3, m.c[0, :, 0], m.c[0, :, 1])
        + F.prelu(x, m.w[:1])
    ),
    "a bilinear form": lambda m, x: F.bilinear(x, x.sin(), m.c.reshape(3, 5, 1).expand(3, 5, 5), m.w[:3]),
    "a table of its own": lambda m, x: F.embedding(torch.tensor([0, 2, 0]), m.m) * x,
}


def check_served(operation: Operation, x: Tensor, weight: bool = False) -> None:
    module = Module(operation)
    check_input(module, x)
    wrts = ["input", "weight"] if weight else ["input"]
    if weight:
        check_weight(module, x)
    for wrt in wrts:
        row = explain(module, x, wrt)[""]
        assert row.path == "graph", row.why


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions(name: str) -> None:
    check_served(ELEMENTWISE[name], random(2, 3, 5))


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name: str) -> None:
    check_served(ARITHMETIC[name], random(2, 3, 5))


@pytest.mark.parametrize("name", LAYOUT)
def test_layout(name: str) -> None:
    check_served(LAYOUT[name], random(2, 3, 5))


@pytest.mark.parametrize("name", MOVED)
def test_a_batch_that_is_not_in_front(name: str) -> None:
    check_served(MOVED[name], random(2, 3, 5), weight=True)


@pytest.mark.parametrize(
    "operation",
    [
        lambda m, x: x.transpose(0, 1)[:, 0] + x[:, 0],
        lambda m, x: x.transpose(0, 1).sin().transpose(0, 1),
        lambda m, x: torch.einsum("nbi,nbj->nij", x.transpose(0, 1), x[:, :2].transpose(0, 1)),
        lambda m, x: x.transpose(0, 1).sub_(1).transpose(0, 1),
        lambda m, x: x.transpose(0, 1) / x.transpose(0, 1),
        lambda m, x: x.transpose(0, 1),
    ],
    ids=["a sample", "sine", "einsum over samples", "in place", "of two", "returned"],
)
def test_what_a_batch_elsewhere_does_not_meet(operation: Operation) -> None:
    with pytest.raises(Untraceable):
        record_input(Module(operation), random(3, 3, 5))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    check_served(REDUCTIONS[name], random(2, 3, 5))


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    check_served(PRODUCTS[name], random(2, 3, 5))


@pytest.mark.parametrize("name", SPATIAL)
def test_functions_for_images(name: str) -> None:
    check_served(SPATIAL[name], random(2, 3, 5))


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_parameters_used_by_themselves(name: str) -> None:
    check_served(WITH_PARAMETERS[name], random(2, 3, 5), weight=True)


def test_cdist() -> None:
    # torch has neither a forward mode nor a second derivative of it
    x = random(2, 3, 5)
    pairs = Module(lambda m, x: torch.linalg.vector_norm(x.unsqueeze(2) - (x.sin() + 2).unsqueeze(1), dim=-1))
    y, J = linearize(Module(lambda m, x: torch.cdist(x, x.sin() + 2)), x)
    expected, truth = linearize(pairs, x)
    T, w = random(2, 2, 3, 5, seed=1), random(2, 3, 3, seed=2)
    close(y, expected)
    close(J.dense(), truth.dense())
    close(J.second(T, w), truth.second(T, w))


@newer_torch
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch runs it one by one
def test_grid_sample() -> None:
    def warp(m: nn.Module, x: Tensor) -> Tensor:
        grid = F.affine_grid(x[:, :2, :3], [len(x), 1, 3, 2], align_corners=False)
        return F.grid_sample(x.unsqueeze(1), torch.tanh(grid), align_corners=False)

    check_served(warp, random(2, 3, 5))
