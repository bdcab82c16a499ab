"""Derivatives that torch lacks or gets wrong, where a module is differentiated automatically."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import _VF, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from pullgeo._torch.substitutes import SUBSTITUTES, Substituting
from pullgeo.jacobian import AutodiffWeight, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.linearize import by_autodiff
from pullgeo.testing import oracles
from tests.jacobian.architectures import random

ROWS = torch.tensor([[0, 2, 0], [1, 1, 1], [4, 3, 1]])
TABLE = random(5, 2, seed=8)
SYMMETRIC = random(3, 4, 4, seed=1) + random(3, 4, 4, seed=1).mT
POOLED, PLACES = F.max_pool2d(random(2, 3, 5, 5), 3, 2, return_indices=True)
LOGITS = torch.cat([random(3, 4), torch.full((1, 4), -torch.inf)]).double()
LABELS = torch.tensor([[1, 2, 4], [4, 4, 1], [2, 2, 0]])
ENDED = torch.tensor([[1, 0, -1, 3, 4], [-1, 0, 0, 0, 0], [4, 3, 2, 1, 0]])
REDUCTIONS = ("none", "mean", "sum")
TARGETS = torch.tensor([[0, 3, 3, 1, 0, 3], [2, 2, 2, 2, 4, 0]])  # one row fewer than what it writes to
CALLS: list[tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]] = [
    (torch._weight_norm, (random(3, 5, 2), random(3, 1, 1)), {}),
    (torch._weight_norm, (random(3, 5), random(1)[0], -1), {}),
    (torch._weight_norm, (random(3, 5), random(1, 5), 1), {}),
    (torch.bilinear, (random(3, 2), random(3, 5), random(7, 2, 5), random(7)), {}),
    (torch.bilinear, (random(3, 4, 2), random(3, 4, 5), random(7, 2, 5), None), {}),
    *[
        (torch.scatter_reduce, (start, 1, TARGETS, sources, reduce), {"include_self": own})
        for start, sources in [(random(3, 5), random(5, 7)), (torch.arange(15).view(3, 5), torch.arange(35).view(5, 7))]
        for reduce in ("prod", "amax")
        for own in (True, False)
    ],
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
    (F.embedding, (ROWS, TABLE), {"padding_idx": 1, "sparse": True}),
    (F.embedding_bag, (ROWS, TABLE), {"mode": "sum", "per_sample_weights": random(3, 3)}),
    (F.embedding_bag, (ROWS.flatten(), TABLE, torch.tensor([0, 2, 5])), {}),
    (F.embedding_bag, (ROWS.flatten(), TABLE, torch.tensor([0, 2, 2, 5])), {"padding_idx": 1}),
    (F.embedding_bag, (ROWS.flatten(), TABLE, torch.tensor([0, 2, 5])), {"mode": "max"}),
    (
        F.embedding_bag,
        (ROWS.flatten(), TABLE, torch.tensor([0, 2, 5, 9])),
        {"mode": "sum", "per_sample_weights": random(9), "include_last_offset": True},
    ),
    *[(F.multi_margin_loss, (random(3, 5), LABELS[0]), {"p": p, "reduction": r}) for p in (1, 2) for r in REDUCTIONS],
    (F.multi_margin_loss, (random(3, 5), LABELS[0], 2, 0.3, random(5).abs()), {"reduction": "none"}),
    (F.multi_margin_loss, (random(5), LABELS[0, 0]), {}),
    *[(F.multilabel_margin_loss, (random(3, 5), ENDED), {"reduction": reduction}) for reduction in REDUCTIONS],
    (F.multilabel_margin_loss, (random(5), ENDED[0]), {}),
    *[
        (F.triplet_margin_loss, (random(3, 5), random(3, 5, seed=1), random(3, 5, seed=2)), {"swap": swap, "p": p})
        for swap, p in ((False, 2.0), (True, 1.5))
    ],
    (F.batch_norm, (random(3, 5, 2), random(5), random(5).abs(), random(5), random(5)), {"training": True}),
    (F.batch_norm, (random(3, 5), random(5), random(5).abs()), {}),
    *[
        (
            F.ctc_loss,
            (random(7, 3, 5).log_softmax(-1), LABELS, torch.tensor([7, 5, 6]), torch.tensor([3, 0, 2])),
            {"reduction": reduction, "blank": 3},
        )
        for reduction in REDUCTIONS
    ],
    (F.ctc_loss, (random(7, 3, 5).log_softmax(-1), LABELS.flatten(), (7, 2, 6), (3, 3, 3)), {"zero_infinity": True}),
    (F.ctc_loss, (random(7, 3, 5).log_softmax(-1), LABELS, (7, 2, 6), (3, 3, 3)), {"reduction": "none"}),
    (F.ctc_loss, (random(7, 5).log_softmax(-1), LABELS[0], torch.tensor(7), torch.tensor(3)), {}),
    *[
        (torch.segment_reduce, (random(7, 2), reduce), {"lengths": torch.tensor([2, 0, 5]), "initial": initial})
        for reduce in ("sum", "mean", "prod", "max", "min")
        for initial in (None, 0.5)
    ],
    (torch.segment_reduce, (random(7, 2), "sum"), {"offsets": torch.tensor([0, 2, 7])}),
    (torch.segment_reduce, (random(2, 3, 5), "mean"), {"lengths": torch.tensor([[1, 2], [2, 1]]), "axis": 1}),
    (F.max_unpool1d, F.max_pool1d(random(2, 3, 7), 3, 2, return_indices=True), {"kernel_size": 3, "stride": 2}),
    (F.max_unpool2d, (POOLED, PLACES, 3, 2), {"output_size": (5, 5)}),
    (F.max_unpool2d, (POOLED[0], PLACES[0], 3, 2), {}),
    (F.max_unpool3d, F.max_pool3d(random(2, 3, 4, 4, 4), 2, return_indices=True), {"kernel_size": 2}),
    *[(torch.linalg.det, (random(3, n, n, seed=n),), {}) for n in (0, 1, 2, 3, 4, 7)],
    (torch.det, (random(3, 2, 5, 5) + 1j * random(3, 2, 5, 5, seed=1),), {}),
    *[(torch.linalg.slogdet, (random(3, n, n, seed=n),), {}) for n in (0, 1, 2, 7)],
    (torch.slogdet, (torch.complex(random(2, 2), random(2, 2, seed=1)),), {}),
    (torch.logdet, (random(5, 3, 3, seed=4),), {}),
    (torch.linalg.solve, (random(3, 4, 4), random(3, 4, 2)), {}),
    (torch.linalg.solve, (random(3, 4, 4), random(3, 2, 4)), {"left": False}),
    (torch.linalg.solve, (random(3, 4, 4), random(3, 4)), {}),
    (torch.linalg.solve, (random(2, 4, 4), random(4, 3)), {}),
    (torch.linalg.solve, (random(4, 4), random(4)), {}),
    (torch.linalg.solve_ex, (random(3, 4, 4), random(3, 4, 2)), {}),
    (torch.linalg.tensorsolve, (random(2, 3, 6), random(2, 3)), {}),
    (torch.linalg.tensorsolve, (random(6, 2, 3), random(2, 3)), {"dims": (0,)}),
    (torch.triangular_solve, (random(3, 4, 2), random(3, 4, 4)), {}),
    (torch.triangular_solve, (random(4, 2), random(4, 4)), {"upper": False, "transpose": True}),
    (torch.triangular_solve, (random(4, 2), random(4, 4)), {"unitriangular": True}),
    (torch.cholesky_inverse, (random(3, 4, 4) + 3 * torch.eye(4).double(),), {}),
    (torch.cholesky_inverse, (random(4, 4) + 3 * torch.eye(4).double(),), {"upper": True}),
    (torch.linalg.householder_product, (random(3, 5, 4), random(3, 3)), {}),
    (torch.orgqr, (random(5, 4), random(4)), {}),
    (torch.linalg.eigh, (SYMMETRIC,), {}),
    (torch.linalg.eigvalsh, (random(3, 4, 4),), {"UPLO": "U"}),
    *[
        (torch.linalg.vector_norm, (random(3, 4), p, 1), {})
        for p in (0, 0.5, 1, 2, 3.5, -1, float("inf"), -float("inf"))
    ],
    (torch.linalg.vector_norm, (random(3, 4),), {"keepdim": True}),
    (torch.linalg.vector_norm, (torch.complex(random(3, 4), random(3, 4, seed=1)), 2, (0, 1)), {}),
    (torch.linalg.vector_norm, (random(3, 4).float(), 2), {"dtype": torch.float64}),
    (torch.linalg.vector_norm, (random(1)[0], 3), {}),
    *[(torch.linalg.matrix_norm, (random(3, 4, 5), o), {}) for o in ("fro", "nuc", 2, 1, -float("inf"))],
    *[(torch.linalg.matrix_norm, (random(3, 4, 5), o, (0, 2), True), {}) for o in ("nuc", 2, -2)],
    (torch.linalg.svdvals, (random(3, 4, 5),), {}),
    (torch.linalg.svd, (random(3, 4, 4),), {}),
    (torch.linalg.svd, (random(3, 4, 5),), {"full_matrices": False}),
    (torch.svd, (random(3, 5, 4),), {}),
    (torch.svd, (random(3, 5, 4),), {"compute_uv": False}),
    *[(torch.linalg.cond, (random(3, 4, 4), p), {}) for p in (None, 2, -2, "fro")],
    (torch.norm, (random(3, 4), "nuc"), {}),
    (torch.norm, (random(3, 4, 5), "nuc", (2, 0)), {}),
    (torch.linalg.norm, (random(3, 4),), {}),
    (torch.linalg.norm, (random(3, 4), 3, 1, True), {}),
    (torch.linalg.norm, (random(3, 4), "nuc"), {}),
    (torch.linalg.norm, (random(3, 4, 5), "fro", (0, 2)), {}),
    (torch.norm, (random(3, 4),), {}),
    (torch.norm, (random(3, 4), 3, 1), {}),
    (Tensor.norm, (random(3, 4), "nuc"), {}),
    (Tensor.norm, (random(3, 4), None, (0,), True), {}),
    (torch.dist, (random(3, 4), random(3, 4, seed=1), 3), {}),
    (F.normalize, (random(3, 4), 3.0, 1), {}),
    (F.normalize, (random(3, 4) * 1e-14,), {}),
    (F.cosine_similarity, (random(3, 4), random(1, 4, seed=1)), {"dim": 1}),
    (F.cosine_similarity, (random(3, 4) * 1e-9, random(3, 4, seed=1)), {"eps": 1e-6}),
    (F.pairwise_distance, (random(3, 4), random(3, 4, seed=1), 1.0), {"keepdim": True}),
    (torch.cdist, (random(3, 4, 5), random(3, 2, 5, seed=1)), {"p": 3.0}),
    (F.pdist, (random(4, 3), 1.0), {}),
    (torch.renorm, (random(3, 4), 2, 0, 1.0), {}),
    (torch.std, (random(3, 4),), {}),
    (torch.std, (random(3, 4), 1, False), {"keepdim": True}),
    (Tensor.std, (random(3, 4),), {"dim": (0, 1), "correction": 2}),
    (torch.std_mean, (random(3, 4),), {"dim": 1}),
    (torch.hypot, (random(3, 4), random(4)), {}),
    (torch.atan2, (random(3, 4), random(4)), {}),
    (torch.atan2, (torch.tensor([0.0, -0.0, 0.0]), torch.tensor([-0.0, -0.0, 0.0])), {}),
    (torch.polar, (random(3, 4).abs(), random(3, 4, seed=1)), {}),
    (torch.clamp, (random(3, 4), -0.5), {"max": 0.3}),
    (torch.clip, (random(3, 4), random(4), random(3, 1, seed=2)), {}),
    (Tensor.clamp, (torch.tensor([0.0, torch.nan, 3.0]),), {"max": torch.tensor([1.0, 1.0, torch.nan])}),
    (torch.clamp_min, (random(3, 4), random(4)), {}),
    (torch.clamp_max, (random(3, 4), 0.2), {}),
    (Tensor.clamp_, (random(3, 4), random(3, 4, seed=1)), {}),
    (torch.heaviside, (torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.5])), {}),
    (torch.cummax, (random(3, 4), 1), {}),
    (torch.cummin, (random(3, 4), 0), {}),
    (torch.fmax, (torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([torch.nan, 1.0, 3.0])), {}),
    (torch.fmin, (torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([torch.nan, 1.0, 3.0])), {}),
    (F.prelu, (random(3, 4, 2), random(4)), {}),
    (F.prelu, (random(3), random(1)), {}),
    (F.celu, (random(3, 4), 0.7), {}),
    (F.celu, (random(3, 4), 0.7, True), {}),
    (torch.sinc, (torch.cat([random(3, 4), 1e-3 * random(1, 4), torch.zeros(1, 4).double()]),), {}),
    (torch.pow, (random(3, 4).abs(), random(4)), {}),
    (torch.pow, (torch.tensor([-2.0, 0.0, 3.0]), torch.tensor([3.0, 0.0, -0.5])), {}),
    (torch.pow, (torch.tensor([-2.0, -2.0]), torch.tensor([2.0, 0.5])), {}),
    (torch.pow, (random(3, 4).float().abs(), torch.tensor(2.5)), {}),
    (torch.pow, (random(3, 4), 3), {}),
    (Tensor.__pow__, (torch.tensor([3, 4]), torch.tensor([2, 0])), {}),
    (torch.pow, (0, torch.tensor([0.0, 1.5])), {}),
    (Tensor.__rpow__, (random(3, 4), 2), {}),
    (torch.float_power, (random(3, 4).float().abs(), torch.tensor(2.5)), {}),
    (Tensor.float_power, (torch.tensor([3, 4]), -1), {}),
    (torch.logaddexp, (LOGITS, LOGITS.flip(1)), {}),
    (torch.logsumexp, (LOGITS, 1), {}),
    (torch.logsumexp, (LOGITS, (0, 1), True), {}),
    (torch.logcumsumexp, (LOGITS, 1), {}),
    (torch.cumprod, (random(3, 7), 1), {}),
    (torch.cumprod, (random(3, 7).float(), -1), {"dtype": torch.float64}),
    (F.layer_norm, (random(3, 4, 5), (4, 5), random(4, 5), random(4, 5, seed=1)), {}),
    (torch.layer_norm, (random(3, 4, 5), (5,)), {"eps": 0.1}),
    (F.instance_norm, (random(3, 4, 5),), {"weight": random(4), "bias": random(4, seed=1), "eps": 0.1}),
    (F.instance_norm, (random(3, 4, 5), random(4), random(4).abs()), {"use_input_stats": False}),
]


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("i", range(len(CALLS)))
def test_substitutes_compute_what_torch_computes(i: int) -> None:
    function, args, kwargs = CALLS[i]
    copies = [[a.clone() if isinstance(a, Tensor) else a for a in args] for _ in range(2)]
    ours, torchs = SUBSTITUTES[function](*copies[0], **kwargs), function(*copies[1], **kwargs)
    assert isinstance(ours, tuple) == isinstance(torchs, tuple)
    pairs = zip(ours, torchs, strict=True) if isinstance(ours, tuple) else [(ours, torchs)]
    for left, right in pairs:
        torch.testing.assert_close(left, right, equal_nan=True)
    for left, right in zip(*copies, strict=True):
        if isinstance(left, Tensor):
            torch.testing.assert_close(left, right, equal_nan=True)  # written into only where torch writes


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
    tried = {SUBSTITUTES[function] for function in [*(function for function, _, _ in CALLS), *RECURRENT]}
    chunked = getattr(
        torch.nn.functional, "linear_cross_entropy", None
    )  # of newer torch; tried in test_foreign_code.py
    tried.update(SUBSTITUTES[function] for function in (chunked,) if function is not None)
    assert {s for f, s in SUBSTITUTES.items() if not f.__name__.endswith("_")} - tried == set()


TWICE: dict[str, Callable[[Tensor], Tensor]] = {
    "multi margin": lambda x: F.multi_margin_loss(x, LABELS[0].repeat(2)[: len(x)], p=2, reduction="none"),
    "multilabel margin": lambda x: F.multilabel_margin_loss(x.square(), ENDED[: len(x)], reduction="none"),
    "triplet": lambda x: F.triplet_margin_loss(x, x.cos(), x.square(), reduction="none"),
    "triplet of other distances": lambda x: F.triplet_margin_with_distance_loss(
        x,
        x.cos(),
        x.square(),
        distance_function=lambda a, b: 1 - F.cosine_similarity(a, b),
        swap=True,
        reduction="none",
    ),
    "triplet of distances": lambda x: F.triplet_margin_with_distance_loss(x, x.cos(), x.square(), reduction="none"),
    "temporal classification": lambda x: F.ctc_loss(
        torch.stack([x, x.sin(), 2 * x, x.square()]).log_softmax(-1),
        torch.tensor([[1, 2]]).expand(len(x), 2),
        torch.full((len(x),), 4),
        torch.full((len(x),), 2),
        reduction="none",
    ),
    **{
        f"{reduce} of segments": lambda x, reduce=reduce: torch.segment_reduce(
            x.square(), reduce, lengths=torch.tensor([[2, 3]]).expand(len(x), 2), axis=1
        )
        for reduce in ("sum", "mean", "prod", "max", "min")
    },
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # which is torch's own
def test_decoders_with_sparse_tensors_inside() -> None:
    """Entries that vanish are left out of the sparse tensor, and have no derivative; torch takes them for constant."""

    def sparse(x: Tensor) -> Tensor:
        return torch.sparse.mm(x.sin().to_sparse(), TABLE[:5].to(x)) + x.to_sparse().to_dense()[:, :1].exp()

    def dense(x: Tensor) -> Tensor:
        return x.sin() @ TABLE[:5].to(x) + x[:, :1].exp()

    x, T, S = random(3, 5), random(2, 3, 5, seed=1), random(2, 3, 5, seed=2)
    J, truth = linearize(sparse, x)[1], linearize(dense, x)[1]
    torch.testing.assert_close(J.dense(), truth.dense())
    torch.testing.assert_close(J.push(T), truth.push(T))
    torch.testing.assert_close(J.second_push(T, S), truth.second_push(T, S))
    torch.testing.assert_close(J.second(T, x[:, :2]), truth.second(T, x[:, :2]))


@pytest.mark.quick(11)
@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("grad", [True, False])
def test_what_torch_differentiates_once_has_second_derivatives(name: str, grad: bool) -> None:
    function, x = TWICE[name], random(3, 5)
    T, S = random(2, 3, 5, seed=1), random(2, 3, 5, seed=2)

    def pushed(x: Tensor) -> Tensor:
        return linearize(function, x)[1].push(T)

    with torch.set_grad_enabled(grad):
        y, J = linearize(function, x)
        step = 1e-5
        W = random(1, *y.shape, seed=3)
        bent = torch.stack([(pushed(x + step * s) - pushed(x - step * s))[k] / (2 * step) for k, s in enumerate(S)])
        torch.testing.assert_close(J.second_push(T, S), bent, rtol=1e-6, atol=1e-6)
        form = (linearize(function, x + step * T[0])[1].pull(W) - linearize(function, x - step * T[0])[1].pull(W))[0]
        torch.testing.assert_close(J.second(T, W[0])[:, 0], flat(T * form / (2 * step)).sum(-1).T, rtol=1e-6, atol=1e-6)
    x.requires_grad_()
    assert torch.autograd.gradcheck(pushed, x)
    assert torch.autograd.gradcheck(lambda x: linearize(function, x)[1].pull(W), x)


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


def square(x: Tensor) -> Tensor:
    return x.unflatten(1, (3, 3)) + 3 * torch.eye(3, dtype=x.dtype)


def right(x: Tensor) -> Tensor:
    return x.sin().unflatten(1, (3, 3))


def symmetric(x: Tensor) -> Tensor:
    A = right(x)
    return A + A.mT


def log_probabilities(x: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(symmetric(x), UPLO="U")


# functions of nine numbers whose derivatives torch gets wrong somewhere, or refuses
WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "det": lambda x: torch.linalg.det(square(x))[:, None],
    "det of five rows": lambda x: torch.det(F.pad(x, (0, 16)).unflatten(1, (5, 5)) + random(5, 5))[:, None],
    "determinants as methods": lambda x: torch.stack([square(x).det(), square(x).logdet()], 1),
    "slogdet": lambda x: torch.linalg.slogdet(square(x))[1][:, None] * x[:, :2],
    "slogdet of a method": lambda x: -square(-x).slogdet().logabsdet[:, None],
    "solve": lambda x: torch.linalg.solve(square(x), right(x)).flatten(1),
    "solve of a vector": lambda x: torch.linalg.solve(square(x), x[:, :3]),
    "solve from the right": lambda x: torch.linalg.solve(square(x), right(x)[:, :2], left=False).flatten(1),
    "solve_ex": lambda x: torch.linalg.solve_ex(square(x), right(x))[0].flatten(1),
    "tensorsolve": lambda x: torch.stack(
        [torch.linalg.tensorsolve(A, B) for A, B in zip(square(x), x[:, :3], strict=True)]
    ),
    "inverse": lambda x: (torch.linalg.inv(square(x)) @ right(x)).flatten(1),
    "triangular_solve": lambda x: torch.triangular_solve(right(x), square(x))[0].flatten(1),
    "cholesky_inverse": lambda x: torch.cholesky_inverse(square(x)).flatten(1),
    "householder_product": lambda x: torch.linalg.householder_product(right(x), x[:, :3]).flatten(1),
    "eigh": lambda x: (
        torch.linalg.eigh(symmetric(x))[1].square().flatten(1) * torch.linalg.eigh(symmetric(x))[0][:, :1]
    ),
    "eigvalsh": log_probabilities,
    "svdvals": lambda x: torch.linalg.svdvals(square(x)) * x[:, :3],
    "nuclear norm": lambda x: torch.linalg.matrix_norm(square(x), "nuc")[:, None],
    "nuclear norm of long matrices": lambda x: torch.linalg.matrix_norm(x[:, :6].unflatten(1, (2, 3)), "nuc")[:, None],
    "spectral norm": lambda x: torch.linalg.matrix_norm(square(x)[:, :, :2], 2, keepdim=True).flatten(1),
    "condition": lambda x: torch.linalg.cond(square(x))[:, None],
    "layer_norm": lambda x: F.layer_norm(x, (9,), TABLE.new_ones(9) / 2, None, 0.1) * x,
    "instance_norm": lambda x: F.instance_norm(x.unflatten(1, (3, 3)), eps=0.1).flatten(1),
    "norm": lambda x: x.norm(3, 1, True) * torch.linalg.norm(x, dim=1, keepdim=True),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x.roll(1, 1), 1)[:, None],
    "pairwise_distance": lambda x: F.pairwise_distance(x, x.roll(1, 1))[:, None],
    "dist": lambda x: torch.stack([torch.dist(r, r.roll(2)) for r in x])[:, None],
    "pdist": lambda x: torch.stack([F.pdist(r.unflatten(0, (3, 3))) for r in x]),
    "renorm": lambda x: torch.renorm(x, 2, 0, 1.5),
    "std": lambda x: x.std(1, keepdim=True) * x,
    "std_mean": lambda x: torch.cat(torch.std_mean(x, 1, keepdim=True), 1),
    "cumprod": lambda x: x.cumprod(1),
    "logcumsumexp": lambda x: torch.logcumsumexp(x, 1),
    "celu": lambda x: F.celu(x, 0.7),
    "hardsigmoid": lambda x: F.hardsigmoid(x) * x,
    "powers": lambda x: x.abs() ** x.roll(1, 1),
    "polar": lambda x: torch.polar(x.abs(), x.roll(1, 1)).real,
    "unpooling": lambda x: F.max_unpool1d(*F.max_pool1d(x[:, None], 3, 1, return_indices=True), 3, 1).flatten(1),
}


@pytest.mark.quick(20)
@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated")
@pytest.mark.parametrize("name", WRONG)
def test_derivatives_and_their_gradients(name: str) -> None:
    function, x = WRONG[name], 0.7 * random(3, 9, seed=2)
    truth = oracles.dense_jacobian_fd(function, x, step=2e-3)
    T, w = random(2, 3, 9, seed=3), random(*function(x).shape, seed=4)
    small = {"rtol": 1e-7, "atol": 1e-8 * max(1.0, float(truth.abs().max()))}
    for track in (False, True):
        with torch.set_grad_enabled(track):
            J = by_autodiff(function, x)[1]
            torch.testing.assert_close(flat(J.push(J.signature.in_basis())).permute(1, 2, 0), truth, **small)
            torch.testing.assert_close(flat(J.pull(J.signature.out_basis())).permute(1, 0, 2), truth, **small)
    form = second_form_of_pulled(function, x, w, T)
    small["atol"] = 1e-6 * max(1.0, float(form.abs().max()))
    for track in (False, True):
        with torch.set_grad_enabled(track):
            J = by_autodiff(function, x)[1]
            torch.testing.assert_close(J.second(T, w).detach(), form, **small)
            bent = (J.second_push(T, T.flip(0)) * w).flatten(2).sum(2)
            torch.testing.assert_close(bent.detach(), form[:, [0, 1], [1, 0]].T, **small)
    point = x.clone().requires_grad_()
    for k in (1, 2):
        J = by_autodiff(function, point)[1]
        for value in ((J.push(T[:k])[0] * w).sum(), (J.pull(w.expand(k, *w.shape))[0] * T[0]).sum()):
            if not value.requires_grad:
                assert not form.any()
                continue
            (gradient,) = torch.autograd.grad(value, point)
            torch.testing.assert_close((gradient * T).flatten(2).sum(2), form[:, 0].T, **small)


def second_form_of_pulled(function: Callable[[Tensor], Tensor], x: Tensor, w: Tensor, T: Tensor) -> Tensor:
    """The second derivative, by differences of pulled cotangents, which were compared with differences before."""

    def pulled(point: Tensor) -> Tensor:
        return linearize(function, point)[1].pull(w.unsqueeze(0))[0]

    with torch.no_grad():
        slopes = []
        for t in T:
            wide, middle, narrow = ((pulled(x + h * t) - pulled(x - h * t)) / (2 * h) for h in (2e-3, 1e-3, 5e-4))
            slopes.append((64 * narrow - 20 * middle + wide) / 45)
    return torch.stack([torch.stack([(t * slope).flatten(1).sum(1) for slope in slopes], 1) for t in T], 1)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_determinants_of_singular_matrices(n: int, rank: int) -> None:
    left, middle = random(3, n, min(rank, n - 1)), random(3, min(rank, n - 1), n, seed=1)
    A = left @ middle

    def determinant(x: Tensor) -> Tensor:
        return torch.linalg.det(x)[:, None]

    cofactors = torch.stack([minors(a) for a in A])
    J = linearize(determinant, A)[1]
    for pushed in (flat(J.push(J.signature.in_basis()))[:, :, 0].T, flat(J.pull(J.signature.out_basis()))[0]):
        torch.testing.assert_close(pushed.reshape(A.shape), cofactors, rtol=1e-9, atol=1e-11)
    T, one = random(2, *A.shape, seed=2), torch.ones(3, 1).double()
    moved = [torch.stack([minors(a) for a in A + s * 1e-4 * T[1]]) for s in (1, -1)]
    truth = (T[0] * (moved[0] - moved[1])).sum((1, 2)) / 2e-4
    torch.testing.assert_close(J.second(T, one)[:, 0, 1], truth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(J.second_push(T[:1], T[1:])[0, :, 0], truth, rtol=1e-4, atol=1e-4)


def minors(A: Tensor) -> Tensor:
    """The cofactors, each from a determinant of its own."""
    n = len(A)
    rows = [[i for i in range(n) if i != k] for k in range(n)]
    return torch.tensor(
        [[(-1) ** (i + j) * torch.linalg.det(A[rows[i]][:, rows[j]]).item() for j in range(n)] for i in range(n)],
        dtype=A.dtype,
    )
