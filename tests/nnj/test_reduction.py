"""Sums and means over the batch, chunks, and the memory that they are for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.errors import OptionError
from pullgeo.testing import oracles
from tests.nnj.cases import CASES, arguments, oracle, points, random, twin
from tests.nnj.memory import Meter
from tests.nnj.test_products import assert_equal

BATCH = 5


def matrices(n: int) -> dict[str, tuple[Tensor | None, dict[str, bool]]]:
    return {
        "matrix": (random(BATCH, n, n), {}),
        "diagonal": (random(BATCH, n), {"from_diag": True}),
        "none": (None, {}),
    }


def mapped(function: Callable[[Tensor], Tensor], nested: object) -> object:
    return [mapped(function, entry) for entry in nested] if isinstance(nested, list) else function(nested)


@pytest.mark.quick(10)
@pytest.mark.parametrize("case", [case for case in CASES if "weight" in arguments(case)])
def test_reduced_weight_metrics_are_the_oracles_added_up(case: str) -> None:
    net, x, J = twin(case), points(case, BATCH), oracle(case, BATCH, "weight")
    layout = oracles.weight_layout(net)
    for matrix, flags in matrices(J.shape[1]).values():
        whole = oracles.jTmjp(J, matrix, **flags)
        for reduction, reduced in (("sum", lambda t: t.sum(0)), ("mean", lambda t: t.mean(0))):
            for chunk_size in (None, 2):
                options = {**flags, "wrt": "weight", "reduction": reduction, "chunk_size": chunk_size}
                assert_equal(net.jTmjp(x, None, matrix, full=True, **options), reduced(whole), torch.float64)
                diagonal = reduced(whole.diagonal(dim1=1, dim2=2))
                assert_equal(net.jTmjp(x, None, matrix, to_diag=True, **options), diagonal, torch.float64)
                blocks = mapped(reduced, oracles.blocks_of(whole, layout))
                assert_equal(net.jTmjp(x, None, matrix, **options), blocks, torch.float64)


@pytest.mark.parametrize(
    "case", ["linear without bias on rows", "nested", "convolutional", "tied weights", "attention"]
)
def test_reduced_diag_backprop_adds_up_what_the_samples_give(case: str) -> None:
    net, x = twin(case), points(case, BATCH)
    w = random(BATCH, oracle(case, BATCH, "weight").shape[1])
    each = net.jTmjp(x, None, w, wrt="weight", diag_backprop=True)
    for reduction, expected in (("sum", each.sum(0)), ("mean", each.mean(0))):
        assert_equal(
            net.jTmjp(x, None, w, wrt="weight", diag_backprop=True, reduction=reduction), expected.detach(), x.dtype
        )


def test_metrics_of_inputs_are_reduced_too() -> None:
    net, x, J = twin("decoder"), points("decoder", BATCH), oracle("decoder", BATCH, "input")
    whole = oracles.jTmjp(J, None)
    assert_equal(net.jTmjp(x, reduction="mean"), whole.mean(0), torch.float64)
    assert_equal(net.jTmjp(x, to_diag=True, reduction="sum"), whole.diagonal(dim1=1, dim2=2).sum(0), torch.float64)
    assert nnj.Tanh().jTmjp(x, wrt="weight", reduction="sum") is None


@pytest.mark.parametrize("case", ["decoder", "encoder", "convolutional", "two branches", "layer twice"])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_chunks_change_no_answer(case: str, chunk_size: int) -> None:
    net, x = twin(case), points(case, 3)
    for wrt in arguments(case):
        J = oracle(case, 3, wrt)
        n_out, n = J.shape[1:]
        options = {"wrt": wrt, "chunk_size": chunk_size}
        assert_equal(net.jacobian(x, **options), J, torch.float64)
        assert_equal(net.jmp(x, None, random(3, n, 5), **options), oracles.jmp(J, random(3, n, 5)), torch.float64)
        assert_equal(
            net.mjp(x, None, random(3, 5, n_out), **options), oracles.mjp(J, random(3, 5, n_out)), torch.float64
        )
        for name, size in (("jmjTp", n), ("jTmjp", n_out)):
            product, truth = getattr(net, name), getattr(oracles, name)
            for to_diag in (False, True):
                whole = {"full": True} if name == "jTmjp" and wrt == "weight" and not to_diag else {}
                for matrix, flags in ((random(3, size, size), {}), (random(3, size), {"from_diag": True}), (None, {})):
                    answer = product(x, None, matrix, to_diag=to_diag, **flags, **whole, **options)
                    assert_equal(answer, truth(J, matrix, to_diag=to_diag, **flags), torch.float64)
        if wrt == "weight":
            expected = oracles.blocks_of(oracles.jTmjp(J, None), oracles.weight_layout(net))
            assert_equal(net.jTmjp(x, **options), expected, torch.float64)


def test_a_chunk_is_all_that_is_moved_at_a_time() -> None:
    net = nnj.Sequential(nnj.Linear(7, 4), nnj.Tanh(), nnj.Linear(4, 11))
    x, real, counts = torch.randn(3, 7), torch.nn.functional.linear, []

    class Widths(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function in (real, torch.Tensor.__matmul__, torch.Tensor.matmul) and args[0].ndim == 3:
                counts.append(len(args[0]))
            return function(*args, **(kwargs or {}))

    with Widths():
        net.jTmjp(x, chunk_size=2)
        net.jTmjp(x, None, torch.ones(3, 11), from_diag=True, chunk_size=2)
        net.jTmjp(x, None, torch.ones(3, 11, 11), to_diag=True, chunk_size=2)
        net.jmjTp(x, None, torch.ones(3, 7, 7), chunk_size=2)
        net.jacobian(x, chunk_size=2)
        net.jTmjp(x, wrt="weight", to_diag=True, chunk_size=2)
        net.jmp(x, None, torch.ones(3, 7, 5), chunk_size=2)
    assert counts
    assert max(counts) <= 2


def test_the_batch_times_the_weights_never_exists() -> None:
    dense = nnj.Sequential(nnj.Linear(50, 400), nnj.Tanh(), nnj.Linear(400, 3))
    images = nnj.Sequential(nnj.Conv2d(64, 64, 3), nnj.Tanh(), nnj.Flatten(), nnj.Linear(256, 2))
    for net, x in ((dense, torch.randn(32, 50)), (images, torch.randn(32, 64, 4, 4))):
        every = 4 * 32 * net._n_params
        for flags in ({"to_diag": True}, {"diag_backprop": True}):
            with torch.no_grad(), Meter() as meter:
                net.jTmjp(x, wrt="weight", reduction="sum", **flags)
            assert meter.largest < 0.6 * every
            assert meter.peak < every or net is images
    few = nnj.Sequential(nnj.Linear(9, 5), nnj.Tanh(), nnj.Linear(5, 2))
    for full in (False, True):
        with torch.no_grad(), Meter() as meter:
            few.jTmjp(torch.randn(400, 9), wrt="weight", reduction="mean", full=full)
        assert meter.largest < 4 * 400 * few._n_params


def test_memory_of_a_weight_diagonal_does_not_grow_with_outputs_times_weights() -> None:
    peaks = []
    for n_out in (20, 160):
        net = nnj.Sequential(nnj.Linear(300, 200), nnj.Tanh(), nnj.Linear(200, n_out))
        with torch.no_grad(), Meter() as meter:
            net.jTmjp(torch.randn(2, 300), wrt="weight", to_diag=True)
        peaks.append(meter.peak)
    # beside the answer there is only a stack of cotangents, n_out wide
    assert peaks[1] < 3 * peaks[0]
    assert peaks[1] < 4 * 160 * net._n_params / 10


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "average"}, 'reduction must be "none", "sum" or "mean", got \'average\''),
        ({"chunk_size": 0}, 'chunk_size must be a positive number or "auto", got 0'),
        ({"chunk_size": 2.0}, "got 2.0"),
        ({"chunk_size": True}, "got True"),
    ],
)
def test_other_options_are_refused(options: dict, message: str) -> None:
    for wrt in ("input", "weight"):
        with pytest.raises(OptionError, match=message):
            nnj.Linear(2, 3).jTmjp(torch.zeros(3, 2), wrt=wrt, **options)


class ToNumber(nn.Module):
    """One number per sample: an energy, with no dimension beside the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(x)).square().sum(1)


def test_outputs_that_are_numbers() -> None:
    net, x = nnj.convert_to_nnj(ToNumber().double()), random(3, 3)
    for wrt in ("input", "weight"):
        J = oracles.dense_jacobian(net, x, wrt)
        n, w, M = J.shape[2], random(3), random(3, 1, 1)
        assert_equal(net.jacobian(x, wrt=wrt), J, torch.float64)
        assert_equal(net.jvp(x, None, random(3, n), wrt=wrt), oracles.jvp(J, random(3, n)), torch.float64)
        assert_equal(net.vjp(x, None, w, wrt=wrt), oracles.vjp(J, w), torch.float64)
        assert_equal(net.jmp(x, None, random(3, n, 2), wrt=wrt), oracles.jmp(J, random(3, n, 2)), torch.float64)
        assert_equal(net.mjp(x, None, random(3, 2, 1), wrt=wrt), oracles.mjp(J, random(3, 2, 1)), torch.float64)
        for to_diag in (False, True):
            for N in (None, random(3, n, n)):
                expected = oracles.jmjTp(J, N, to_diag=to_diag)
                assert_equal(net.jmjTp(x, None, N, wrt=wrt, to_diag=to_diag), expected, torch.float64)
            for N, flags in ((None, {}), (M, {}), (w, {"from_diag": True})):
                expected = oracles.jTmjp(J, N if N is None else N.reshape(3, 1, 1), to_diag=to_diag)
                whole = {"full": True} if wrt == "weight" and not to_diag else {}
                answer = net.jTmjp(x, None, N, wrt=wrt, to_diag=to_diag, **flags, **whole)
                assert_equal(answer, expected, torch.float64)
        assert net.jTmjp(x, None, w, wrt=wrt, diag_backprop=True).shape == (3, n)
        assert net.jmjTp(x, None, random(3, n), wrt=wrt, diag_backprop=True).shape == (3, 1)
