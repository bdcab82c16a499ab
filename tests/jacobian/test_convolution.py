"""Convolutions and transposed convolutions in every setting, with respect to input and weight."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from pullgeo.errors import ShapeError
from pullgeo.jacobian import Jacobian, LinearMap, linearize, weight_rule_for
from pullgeo.jacobian.contractions import gram
from pullgeo.testing import check_rule, oracles

CONVOLUTIONS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "2d, groups and dilation": (
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        (2, 4, 5),
    ),
    "2d, circular padding": (nn.Conv2d(1, 2, (3, 2), padding=(2, 1), padding_mode="circular"), (1, 3, 5)),
    "2d, reflected same padding": (nn.Conv2d(1, 2, (4, 3), padding="same", padding_mode="reflect"), (1, 3, 2)),
    "3d without bias": (nn.Conv3d(1, 2, 2, padding=1, stride=2, bias=False), (1, 3, 2, 3)),
    "transposed 1d, output padding": (nn.ConvTranspose1d(2, 3, 3, stride=3, padding=1, output_padding=2), (2, 3)),
    "transposed 2d, groups": (nn.ConvTranspose2d(4, 2, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (4, 2, 3)),
}
MODES = ["zeros", "reflect", "replicate", "circular"]


@pytest.fixture(autouse=True)
def _torch_copies_for_even_kernels() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
        yield


def batch(b: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randn(b, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_products(module: nn.Module, x: Tensor, wrt: str = "input") -> None:
    """All products, exact and in the shape of the oracle's Jacobian, for stacks of other sizes than the batch."""
    y, J = linearize(module, x, wrt)
    torch.testing.assert_close(y, module(x), rtol=1e-12, atol=1e-12)
    truth = oracles.dense_jacobian(module, x, wrt)
    T, W = batch(2, len(x), truth.shape[2], seed=2), batch(2, len(x), truth.shape[1], seed=3)
    T_in, W_out = T.reshape(2, len(x), *J.signature.in_shape), W.reshape(2, len(x), *y.shape[1:])
    for got, expected in (
        (J.push(T_in), torch.einsum("boi,kbi->kbo", truth, T)),
        (J.pull(W_out), torch.einsum("boi,kbo->kbi", truth, W)),
        (J.push_squared(T_in), torch.einsum("boi,kbi->kbo", truth.square(), T)),
        (J.pull_squared(W_out), torch.einsum("boi,kbo->kbi", truth.square(), W)),
    ):
        torch.testing.assert_close(got.flatten(2), expected, rtol=1e-10, atol=1e-10)


def weight_jacobian(module: nn.Module, x: Tensor) -> Jacobian:
    found = weight_rule_for(module)
    assert found is not None
    return found(module, x)


@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_convolutions(name: str) -> None:
    module, shape = CONVOLUTIONS[name]
    check_rule(module.double(), batch(3, *shape), second_gradients=False)
    check_rule(module.double(), batch(3, *shape), wrt="weight", gradients=False, second="skip")


def test_gradients_of_weight_products() -> None:
    for module, shape in (
        (nn.Conv2d(2, 2, 2, groups=2, padding=1, padding_mode="circular"), (2, 2, 3)),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (2, 2, 1)),
    ):
        check_rule(module.double(), batch(3, *shape), wrt="weight", second="skip")


sizes = st.integers(1, 3)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    data=st.data(),
    axes=st.integers(1, 3),
    groups=sizes,
    mode=st.sampled_from(MODES),
    wrt=st.sampled_from(["input", "weight"]),
)
def test_any_setting_of_a_convolution(data: st.DataObject, axes: int, groups: int, mode: str, wrt: str) -> None:
    kernel, dilation = (tuple(data.draw(sizes) for _ in range(axes)) for _ in range(2))
    largest = 5 if axes < 3 else 3
    spatial = tuple(data.draw(st.integers(1, largest)) for _ in range(axes))
    padding: Any = data.draw(st.sampled_from(["same", "valid", "numbers"]))
    stride = (1,) * axes if padding == "same" else tuple(data.draw(sizes) for _ in range(axes))
    if padding == "numbers":
        padding = tuple(data.draw(st.integers(0, 2)) for _ in range(axes))
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    i, o = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    torch.manual_seed(0)
    module = cls(i, o, kernel, stride, padding, dilation, groups, data.draw(st.booleans()), mode).double()  # type: ignore[arg-type]
    x = batch(2, i, *spatial)
    try:
        small = module(x).numel() <= 200
    except RuntimeError:  # a kernel wider than its input, or more padding than there is to reflect
        small = False
    assume(small)
    assert_products(module, x, wrt)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), axes=st.integers(1, 3), groups=sizes, wrt=st.sampled_from(["input", "weight"]))
def test_any_setting_of_a_transposed_convolution(data: st.DataObject, axes: int, groups: int, wrt: str) -> None:
    kernel, stride, dilation = (tuple(data.draw(sizes) for _ in range(axes)) for _ in range(3))
    spatial = tuple(data.draw(st.integers(1, 3)) for _ in range(axes))
    padding = tuple(data.draw(st.integers(0, 2)) for _ in range(axes))
    beyond = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    cls = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    i, o, bias = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2)), data.draw(st.booleans())
    torch.manual_seed(0)
    module = cls(i, o, kernel, stride, padding, beyond, groups, bias, dilation).double()  # type: ignore[arg-type]
    x = batch(2, i, *spatial)
    try:
        small = module(x).numel() <= 200
    except RuntimeError:  # more padding than output
        small = False
    assume(small)
    assert_products(module, x, wrt)


def test_circular_padding_is_not_ignored_backward() -> None:
    module = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False).double()
    torch.nn.init.ones_(module.weight)
    J = linearize(module, batch(3, 1, 5))[1]
    around = torch.eye(5, dtype=torch.float64) + torch.eye(5, dtype=torch.float64).roll(1, 0)
    around = around + torch.eye(5, dtype=torch.float64).roll(-1, 0)
    torch.testing.assert_close(J.dense(), around.expand(3, 5, 5))
    torch.testing.assert_close(J.T.dense(), around.T.expand(3, 5, 5))


def test_weights_of_taps_that_read_the_same_reflected_element_add_up_before_they_are_squared() -> None:
    module = nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect", bias=False).double()
    module.weight.data = torch.tensor([[[2.0, 3.0, 5.0]]], dtype=torch.float64)
    J = linearize(module, batch(3, 1, 3))[1]
    one = torch.ones(1, 3, 1, 3, dtype=torch.float64)
    expected = torch.tensor([9.0 + 49.0, 4.0 + 9.0 + 25.0, 49.0 + 9.0], dtype=torch.float64)
    torch.testing.assert_close(J.push_squared(one)[0, 0, 0], expected)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(2, 3, 2, groups=1, padding=1), (2, 2, 3)),
        (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 2, 2)),
        (nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), (6, 2, 1)),
        (nn.ConvTranspose2d(3, 2, 3, bias=False), (3, 3, 4)),
    ],
)
def test_both_ways_to_contract_weights_agree(module: nn.Module, shape: tuple[int, ...]) -> None:
    # few cotangents and many take different ways; the long way through whole weights is the base class's
    module = module.double()
    y, weight = module(batch(3, *shape)), weight_jacobian(module, batch(3, *shape))
    for k, n in ((1, 2), (23, 29)):
        W, V = batch(k, *y.shape, seed=4), batch(n, *y.shape, seed=5)
        U = batch(k, *y.shape, seed=6)
        torch.testing.assert_close(weight.pull_gram(W, V), gram(weight.pull(W), weight.pull(V)))
        torch.testing.assert_close(weight.pull_gram(W, W), gram(weight.pull(W), weight.pull(W)))
        torch.testing.assert_close(weight.pull_diag(W, U), (weight.pull(W) * weight.pull(U)).sum(0))
        torch.testing.assert_close(weight.pull_diag(W, W), weight.pull(W).square().sum(0))


def test_no_stack_of_weights_for_a_gram_matrix() -> None:
    # 50 cotangents of 2 samples times 64 x 64 x 3 x 3 weights would take 29 MB; the largest tensor stays far below
    module = nn.Conv2d(64, 64, 3, padding=1)
    J = weight_jacobian(module, torch.randn(2, 64, 2, 2))
    W = torch.randn(50, 2, 64, 2, 2)
    with torch.profiler.profile(profile_memory=True) as profile:
        J.pull_gram(W, W)
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 2e6


def test_a_chain_of_convolutions() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="replicate"),
        nn.Tanh(),
        nn.Conv2d(2, 3, 2, stride=2),
        nn.Flatten(),
        nn.Linear(6, 2),
    ).double()
    check_rule(encoder, batch(3, 1, 3, 4), wrt="weight", gradients=False, second="skip")


def test_parametrized_convolutions_keep_their_structure() -> None:
    for wrap in (parametrizations.weight_norm, parametrizations.spectral_norm):
        module = wrap(nn.Conv1d(2, 3, 2)).double().eval()
        x = batch(3, 2, 4)
        y, J = linearize(module, x)
        assert isinstance(J, LinearMap)
        torch.testing.assert_close(y, module(x))
        torch.testing.assert_close(J.dense(), oracles.dense_jacobian(module, x))


@pytest.mark.parametrize("module", [nn.Conv2d(3, 2, 2), nn.ConvTranspose2d(3, 2, 2)])
def test_an_image_without_batch_is_refused(module: nn.Module) -> None:
    # torch takes the first dimension for channels
    with pytest.raises(ShapeError, match=r"needs x of 4 dimensions.*unsqueeze"):
        linearize(module, torch.randn(3, 4, 5))
