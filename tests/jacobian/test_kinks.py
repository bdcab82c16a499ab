"""At kinks, ties and zeros: all products are those of torch's reverse mode, finite where it is, and adjoint."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian import Jacobian, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import oracles
from tests.releases import KNOWN

Function = Callable[[Tensor], Tensor]

ZERO = torch.zeros(4)
TIES = torch.tensor([1.0, 1.0, 0.0, 0.0])
SIGNS = torch.tensor([-1.0, 0.0, 1.0, 1.0])
STEPS = torch.tensor([-3.0, 3.0, 6.0, 0.0])
HALVES = torch.tensor([-0.5, 0.5, 0.0, 0.5])
NOWHERE = torch.full((4,), -torch.inf)
EQUAL = torch.tensor([2.0, 0.0, 0.0, 2.0])  # as a matrix, a multiple of the identity
BOUND = torch.tensor([1.0, 0.0, 0.0, 1.0])

MENDED = {"aminmax", "atan2", "arctan2 of a constant", "hardswish", "scatter"}

# of one sample of four numbers, and the points that matter
TABLE: dict[str, tuple[Function, list[Tensor]]] = {
    "fmax": (lambda x: torch.fmax(x, x.roll(1, 1)), [ZERO, TIES, SIGNS]),
    "fmin": (lambda x: x.fmin(x.roll(1, 1)), [ZERO, TIES, SIGNS]),
    "fmax of a constant": (lambda x: torch.fmax(x, BOUND.to(x)), [ZERO, TIES, SIGNS]),
    "maximum": (lambda x: torch.maximum(x, x.roll(1, 1)) + torch.minimum(x, BOUND.to(x)), [ZERO, TIES, SIGNS]),
    "max and min of two": (lambda x: torch.max(x, x.flip(1)) * torch.min(x, x.roll(1, 1)), [ZERO, TIES, SIGNS]),
    "amax": (lambda x: x.amax(1, keepdim=True) - 2 * x.amin(1, keepdim=True), [ZERO, TIES, SIGNS]),
    "max along": (lambda x: x.max(1, keepdim=True).values + 3 * x.min(1, keepdim=True)[0], [ZERO, TIES, SIGNS]),
    "aminmax": (lambda x: torch.cat(torch.aminmax(x, dim=1, keepdim=True), 1), [ZERO, TIES, SIGNS]),
    "cummax": (lambda x: x.cummax(1).values + 2 * x.cummin(1)[0], [ZERO, TIES, SIGNS]),
    "median": (lambda x: x.median(1, keepdim=True).values + x.nanmedian(1, keepdim=True)[0], [ZERO, TIES]),
    "quantile": (lambda x: x.quantile(0.5, dim=1, keepdim=True), [ZERO, TIES, SIGNS]),
    "sort": (lambda x: x.sort(1).values * BOUND.to(x) + x.topk(4, 1)[0], [ZERO, TIES, SIGNS]),
    "max pool": (lambda x: F.max_pool1d(x.unsqueeze(1), 2, 1).flatten(1), [ZERO, TIES, SIGNS]),
    "adaptive max pool": (lambda x: F.adaptive_max_pool1d(x.unsqueeze(1), 3).flatten(1), [ZERO, TIES, SIGNS]),
    "clamp": (lambda x: x.clamp(-0.5, 0.5) + x.clamp(min=0) + x.clamp(max=1), [ZERO, TIES, SIGNS, HALVES]),
    "clamp by tensors": (lambda x: x.clamp(0 * BOUND.to(x), BOUND.to(x)), [ZERO, TIES, SIGNS]),
    "clamp by itself": (lambda x: torch.clamp(x.sin(), x, x.roll(1, 1) + 1), [ZERO, TIES, SIGNS]),
    "clip": (lambda x: torch.clip(x, max=x.flip(1)), [ZERO, TIES, SIGNS]),
    "atan2": (lambda x: torch.atan2(x, x.roll(1, 1)), [ZERO, TIES, SIGNS]),
    "arctan2 of a constant": (lambda x: x.arctan2(0 * BOUND.to(x)), [ZERO, TIES]),
    "abs": (lambda x: x.abs() * x + x.abs(), [ZERO, TIES, SIGNS]),
    "signs": (lambda x: x.sign() + x.sgn() * x, [ZERO, SIGNS]),
    "copysign": (lambda x: torch.copysign(x.sin(), BOUND.to(x) - 0.5), [TIES + 1, SIGNS * 2 + 1]),
    "rounding": (lambda x: x.round() + x.floor() * x + x.frac() + x.trunc(), [ZERO, SIGNS, HALVES]),
    "fmod": (lambda x: torch.fmod(x, 1.0) + x.remainder(2.0), [ZERO, SIGNS, HALVES]),
    "powers": (lambda x: x**2 + x**3 + x**1.0 + x**0 + x**4.0, [ZERO, SIGNS]),
    "powers of tensors": (lambda x: torch.pow(x, BOUND.to(x) + 2) + x.float_power(BOUND.to(x) * 3), [ZERO, SIGNS]),
    "zero to the power": (lambda x: 0**x + 2**x + torch.pow(0, x + 1), [ZERO, TIES, TIES + 1]),
    "both": (lambda x: x.pow(x.roll(1, 1)), [ZERO, TIES]),
    "sinc": (lambda x: torch.sinc(x) + torch.special.sinc(x + 1), [ZERO, SIGNS, HALVES]),
    "xlogy": (lambda x: torch.special.xlog1py(x, x.square()) + torch.xlogy(BOUND.to(x) * 0, x + 1), [ZERO, TIES]),
    "logaddexp": (lambda x: torch.logaddexp(x, x.roll(1, 1)), [ZERO, TIES]),
    "logsumexp": (lambda x: torch.logsumexp(x, 1, keepdim=True), [ZERO, TIES]),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), [ZERO, TIES, SIGNS]),
    "prod": (lambda x: x.prod(1, keepdim=True), [ZERO, TIES, SIGNS]),
    "cumprod": (lambda x: x.cumprod(1), [ZERO, TIES, SIGNS]),
    "var": (lambda x: x.var(1, keepdim=True) + x.square().var(1, keepdim=True), [ZERO, TIES + TIES.flip(0)]),
    "std": (lambda x: x.std(1, keepdim=True) + torch.std_mean(x, 1, keepdim=True)[0], [ZERO, ZERO + 1]),
    **{
        f"norm of {p}": (lambda x, p=p: torch.linalg.vector_norm(x, p, 1, keepdim=True), [ZERO, TIES, SIGNS])
        for p in (1, 1.5, 2, 2.5, 3, 4, float("inf"))
    },
    "norms": (lambda x: x.norm(dim=1, keepdim=True) + torch.linalg.norm(x, dim=1, keepdim=True), [ZERO, TIES]),
    "3-norm": (lambda x: x.norm(3, 1, keepdim=True) + torch.norm(x, 3, 1, True), [ZERO, TIES]),
    "norms of matrices": (lambda x: torch.linalg.matrix_norm(x.unflatten(1, (2, 2))).unsqueeze(1), [ZERO, TIES]),
    "nuclear norm": (lambda x: torch.linalg.matrix_norm(x.unflatten(1, (2, 2)), "nuc")[:, None], [ZERO, TIES, SIGNS]),
    "spectral norm": (
        lambda x: torch.linalg.norm(x.unflatten(1, (2, 2)), 2, (1, 2)).unsqueeze(1),
        [ZERO, TIES, SIGNS, EQUAL],
    ),
    "singular values": (lambda x: torch.linalg.svdvals(x.unflatten(1, (2, 2))), [ZERO, TIES, SIGNS, EQUAL]),
    "singular values of a long matrix": (lambda x: torch.linalg.svdvals(torch.stack([x, x * BOUND.to(x)], 1)), [TIES]),
    "condition": (lambda x: torch.linalg.cond(x.unflatten(1, (2, 2))).unsqueeze(1), [EQUAL, EQUAL + TIES / 3]),
    "eigenvalues": (
        lambda x: torch.linalg.eigvalsh(x.unflatten(1, (2, 2)) + x.unflatten(1, (2, 2)).mT),
        [ZERO, TIES, SIGNS, EQUAL],
    ),
    "normalize": (lambda x: F.normalize(x, dim=1) * (1 + x.square()), [TIES, SIGNS]),
    "cosines": (lambda x: F.cosine_similarity(x, x.roll(1, 1), 1).unsqueeze(1), [TIES, SIGNS]),
    "distances": (lambda x: F.pairwise_distance(x, x.roll(1, 1), eps=0.0).unsqueeze(1), [ZERO, TIES]),
    "cdist": (lambda x: torch.cdist(x.unflatten(1, (2, 2)), x.unflatten(1, (2, 2)).flip(1)).flatten(1), [ZERO, TIES]),
    "3-cdist": (
        lambda x: torch.cdist(x.unflatten(1, (2, 2)), 0 * x.unflatten(1, (2, 2)), 3.0).flatten(1),
        [ZERO, TIES],
    ),
    "nan_to_num": (lambda x: x.nan_to_num(0.0) + torch.nan_to_num(x, posinf=1.0), [ZERO, SIGNS]),
    "where": (lambda x: torch.where(x > 0, x.sin(), x.square()), [ZERO, SIGNS]),
    "relu": (lambda x: F.relu(x) + x.relu() + F.leaky_relu(x, 0.2), [ZERO, SIGNS]),
    "prelu": (lambda x: F.prelu(x, BOUND[:1].to(x) / 4), [ZERO, SIGNS]),
    "relu6": (lambda x: F.relu6(x) + F.hardtanh(x, -1, 1), [STEPS, SIGNS]),
    "hardswish": (lambda x: F.hardswish(x), [STEPS, SIGNS]),
    "threshold": (lambda x: F.threshold(x, 0.5, 2.0) + F.threshold(x, 0.0, 0.0), [ZERO, HALVES]),
    "shrinks": (lambda x: F.softshrink(x) + F.hardshrink(x) + F.tanhshrink(x), [ZERO, HALVES, SIGNS]),
    "exponentials": (lambda x: F.elu(x, 0.7) + F.selu(x) + F.celu(x, 1.5) + F.softsign(x), [ZERO, SIGNS]),
    "softplus": (lambda x: F.softplus(x, 1.0, 1.0) + F.logsigmoid(x), [ZERO, SIGNS]),
    "losses": (
        lambda x: (
            F.l1_loss(x, BOUND.to(x).expand_as(x), reduction="none")
            + F.smooth_l1_loss(x, BOUND.to(x).expand_as(x), reduction="none")
            + F.huber_loss(x, BOUND.to(x).expand_as(x), reduction="none")
        ),
        [ZERO, TIES, SIGNS],
    ),
    "lerp": (lambda x: torch.lerp(x, x.abs(), 0.5), [ZERO, SIGNS]),
    "scatter": (
        lambda x: torch.zeros_like(x).scatter_reduce(1, torch.tensor([[0, 0, 1, 1]]).expand(len(x), -1), x, "amax"),
        [ZERO, TIES],
    ),
}


# where torch's own reverse mode is not a number: constant
CONSTANT: dict[str, tuple[Function, Tensor]] = {
    "hypot": (lambda x: torch.hypot(x, x.roll(1, 1)), ZERO),
    "logsumexp": (lambda x: torch.logsumexp(x, 1, keepdim=True), NOWHERE),
    "logaddexp": (lambda x: torch.logaddexp(x, x.roll(1, 1)), NOWHERE),
}


def test_the_nuclear_norm_is_smooth_where_singular_values_are_equal_and_not_zero() -> None:
    """``‖1 + t X‖`` of a skew X is ``2 √(1 + t²)``, and of a symmetric one its trace: second derivatives 2 and 0."""
    at = torch.eye(2, dtype=torch.float64).expand(3, 2, 2) * torch.tensor([1.0, 2.0, 5.0]).double().reshape(3, 1, 1)
    T = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]], [[3.0, 2.0], [2.0, 1.0]]], dtype=torch.float64)
    J = linearize(lambda x: torch.linalg.matrix_norm(x, "nuc").unsqueeze(1), at)[1]
    form = J.second(T.unsqueeze(1).expand(2, 3, 2, 2), torch.ones(3, 1, dtype=torch.float64))
    expected = torch.zeros(3, 2, 2, dtype=torch.float64)
    expected[:, 0, 0] = 2 / torch.tensor([1.0, 2.0, 5.0])
    torch.testing.assert_close(form, expected)


class Module(nn.Module):
    """The same, recorded where that is known."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def matrices(J: Jacobian) -> list[Tensor]:
    pushed, pulled = J.push(J.signature.in_basis()), J.pull(J.signature.out_basis())
    return [flat(pushed).permute(1, 2, 0), flat(pulled).permute(1, 0, 2), J.dense()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TABLE)
def test_all_products_are_those_of_reverse_mode(name: str, dtype: torch.dtype) -> None:
    if name in MENDED and not KNOWN:
        pytest.skip("torch itself cannot, or is wrong there, in older releases")
    function, points = TABLE[name]
    x = torch.stack([*points, torch.tensor([0.3, 0.7, 0.9, 0.4])]).to(dtype)
    y = function(x)
    if y.dtype != dtype:  # float_power
        function = lambda x, inner=function: inner(x).to(x.dtype)  # noqa: E731
    truth = oracles.dense_jacobian(function, x)
    assert bool(torch.isfinite(truth).all()), "the truth is not finite; choose other points"
    check(function, x, truth)


def check(function: Function, x: Tensor, truth: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    T = torch.randn(2, *x.shape, dtype=x.dtype, generator=generator)
    w = torch.randn(function(x).shape, dtype=x.dtype, generator=generator)
    small = 1e-11 if x.dtype == torch.float64 else 1e-5
    for map_ in (function, Module(function)):
        J = linearize(map_, x)[1]
        for matrix in matrices(J):
            torch.testing.assert_close(matrix.double(), truth, rtol=small, atol=small)
        form = J.second(T, w)
        bent = (J.second_push(T[:1], T[1:])[0] * w).flatten(1).sum(1)
        assert bool(torch.isfinite(form).all())
        torch.testing.assert_close(form, form.mT, rtol=small, atol=10 * small)
        torch.testing.assert_close(bent, form[:, 0, 1], rtol=small, atol=10 * small)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CONSTANT)
def test_constant_where_reverse_mode_is_not_a_number(name: str, dtype: torch.dtype) -> None:
    function, point = CONSTANT[name]
    x = torch.stack([point, point, torch.tensor([0.3, 0.7, 0.9, 0.4])]).to(dtype)
    truth = oracles.dense_jacobian(function, x)
    assert not bool(torch.isfinite(truth[:2]).all())
    check(function, x, truth.nan_to_num(0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_nothing_so_far(dtype: torch.dtype) -> None:
    x = torch.stack([NOWHERE, NOWHERE]).to(dtype)
    first = torch.zeros(2, 4, 4, dtype=torch.float64)
    first[:, 0, 0] = 1  # which is the first entry itself
    check(lambda x: x.logcumsumexp(1), x, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_curvature_of_removable_singularities(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0], [1e-9], [0.5]], dtype=dtype)
    J = linearize(torch.sinc, x)[1]
    one = torch.ones_like(x)
    truth = torch.tensor([-(torch.pi**2) / 3, -(torch.pi**2) / 3, 8 * 2 / torch.pi - 2 * torch.pi])
    for curvature in (J.second(one[None], one).flatten(), J.second_push(one[None], one[None]).flatten()):
        torch.testing.assert_close(curvature.double(), truth.double(), rtol=2e-5, atol=0)
    assert J.push(one[None])[0, 0].item() == 0


@pytest.mark.parametrize("function", [F.celu, torch.sinc])
def test_second_derivatives_of_numbers_keep_their_precision(function: Function) -> None:
    x = torch.zeros(1, 1)
    J = linearize(lambda x: function(x.reshape(())).reshape(1, 1), x)[1]
    assert J.second(torch.ones(2, 1, 1), torch.ones(1, 1)).dtype == torch.float32
