"""Derivatives that torch lacks or gets wrong, where a module is differentiated automatically."""

from collections.abc import Callable

import pytest
import torch
from torch import _VF, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from pullgeo._torch.substitutes import SUBSTITUTES, Substituting
from pullgeo.jacobian import AutodiffWeight, linearize
from pullgeo.testing import oracles
from tests.jacobian.architectures import close, random

ROWS = torch.tensor([[0, 2, 0], [1, 1, 1], [4, 3, 1]])
TABLE = random(5, 2, seed=8)
CALLS: list[tuple[Callable[..., Tensor], tuple[object, ...], dict[str, object]]] = [
    (torch._weight_norm, (random(3, 5, 2), random(3, 1, 1)), {}),
    (torch._weight_norm, (random(3, 5), random(1)[0], -1), {}),
    (torch._weight_norm, (random(3, 5), random(1, 5), 1), {}),
    (torch.bilinear, (random(3, 2), random(3, 5), random(7, 2, 5), random(7)), {}),
    (torch.bilinear, (random(3, 4, 2), random(3, 4, 5), random(7, 2, 5), None), {}),
    (torch.cdist, (random(3, 4, 5), random(3, 2, 5, seed=1)), {"p": 3.0}),
    (F.glu, (random(3, 4),), {"dim": 1}),
    (F.hardsigmoid, (5 * random(3, 4),), {}),
    (F.hardsigmoid, (5 * random(3, 4),), {"inplace": True}),
    (F.mish, (5 * random(3, 4),), {}),
    (F.mish, (5 * random(3, 4),), {"inplace": True}),
    *[
        (F.embedding_bag, (ROWS, TABLE), {"mode": mode, "padding_idx": padding})
        for mode in ("sum", "mean", "max")
        for padding in (None, 1, -4)
    ],
    (F.embedding_bag, (ROWS, TABLE), {"mode": "sum", "per_sample_weights": random(3, 3)}),
    (F.embedding_bag, (ROWS.flatten(), TABLE, torch.tensor([0, 2, 5])), {}),
]


@pytest.mark.parametrize("i", range(len(CALLS)))
def test_substitutes_compute_what_torch_computes(i: int) -> None:
    function, args, kwargs = CALLS[i]
    copies = [[a.clone() if isinstance(a, Tensor) else a for a in args] for _ in range(2)]
    close(SUBSTITUTES[function](*copies[0], **kwargs), function(*copies[1], **kwargs))
    for ours, torchs in zip(*copies, strict=True):
        torch.testing.assert_close(ours, torchs)  # written into only where torch writes


RECURRENT: dict[Callable[..., object], nn.Module] = {
    _VF.lstm: nn.LSTM(2, 3, batch_first=True),
    _VF.gru: nn.GRU(2, 3, batch_first=True),
    _VF.rnn_tanh: nn.RNN(2, 3, batch_first=True),
    _VF.rnn_relu: nn.RNN(2, 3, batch_first=True, nonlinearity="relu"),
}


@pytest.mark.parametrize("function", RECURRENT)
def test_recurrent_layers_compute_the_same_by_other_kernels_and_put_them_back(function: Callable[..., object]) -> None:
    layer, x = RECURRENT[function], random(3, 5, 2).float()
    before = torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled
    with Substituting():
        y = layer(x)[0]
    torch.testing.assert_close(y, layer(x)[0])
    assert (torch.backends.mkldnn.enabled, torch.backends.cudnn.enabled) == before


def test_every_substitute_is_tried() -> None:
    assert {function for function, _, _ in CALLS} | set(RECURRENT) == set(SUBSTITUTES)


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x).unflatten(1, (2, 2))
        return torch.cdist(h, h.cos() + 2).flatten(1)


class Weighted(nn.Module):
    """A bag whose rows are weighted by numbers that it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.weights = nn.EmbeddingBag(5, 2, mode="sum"), nn.Embedding(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.bag(x, per_sample_weights=self.weights(x).squeeze(-1).sin())


def by_hooks() -> nn.Module:
    module = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)), nn.Tanh())
    module(torch.zeros(1, 3)).detach()
    del module[0].weight  # the hook makes it anew; as it is, torch could not copy the module
    return module


SECOND: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)), nn.Tanh()),
        random(2, 3),
    ),
    "weight norm by hooks": (by_hooks, random(2, 3)),
    "hard sigmoid": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Hardsigmoid(), nn.Linear(2, 2)), random(2, 3)),
    "gated linear units": (lambda: nn.Sequential(nn.Linear(3, 4), nn.GLU()), random(2, 3)),
    "distances": (Distances, random(2, 3)),
    "bags": (lambda: nn.Sequential(nn.EmbeddingBag(5, 2), nn.Tanh()), ROWS[1:]),
    "bags of maxima": (lambda: nn.Sequential(nn.EmbeddingBag(5, 2, mode="max"), nn.Tanh()), ROWS[1:]),
    "weighted bags": (Weighted, ROWS[1:]),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_with_respect_to_weights(name: str) -> None:
    build, x = SECOND[name]
    torch.manual_seed(4)
    module = build().double()
    J = linearize(module, x, "weight")[1]
    T, w = random(2, 2, J.signature.n_in, seed=1), random(2, *J.signature.out_shape, seed=2)
    form = oracles.second_form_fd(module, x, w, T, "weight")
    assert form.abs().max() > 1e-3
    torch.testing.assert_close(J.second(T, w), form, rtol=1e-6, atol=1e-6)
    bent = (J.second_push(T[:1], T[1:])[0] * w).flatten(1).sum(1)
    torch.testing.assert_close(bent, form[:, 0, 1], rtol=1e-6, atol=1e-6)
    truth = oracles.dense_jacobian_fd(module, x, "weight")
    torch.testing.assert_close(AutodiffWeight(module, x, J.signature).dense(), truth, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_are_linear_in_their_table(mode: str) -> None:
    J = linearize(nn.EmbeddingBag(5, 2, mode=mode).double(), ROWS, "weight")[1]
    T, w = random(2, 3, 10, seed=1), random(3, 2, seed=2)
    assert not J.second(T, w).any()
    assert not J.second_push(T, T).any()
