"""Pooling by maxima, averages and power means."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError, ModuleError, ShapeError
from pullgeo.jacobian import IndexMap, Separable, linearize
from pullgeo.testing import check_rule, oracles

SAMPLES = torch.tensor([[[0.3, 0.8, 0.5], [0.6, 0.1, 0.9]]], dtype=torch.float64)
"""Where windows of fractional pooling stand: the same in all samples, for two channels and three axes."""

PROVEN: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "maxima that overlap": (nn.MaxPool2d(3, stride=1, padding=1), (2, 3, 4)),
    "averages in the ceiling mode": (nn.AvgPool2d((3, 2), 2, 1, ceil_mode=True, count_include_pad=False), (1, 4, 5)),
    "power means": (nn.LPPool2d(3, 2, ceil_mode=True), (1, 3, 5)),
}
MAXIMA: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1d": (nn.MaxPool1d(3, stride=2, padding=1), (2, 7)),
    "1d, overlapping": (nn.MaxPool1d(3, stride=1), (2, 7)),
    "1d, channels only": (nn.MaxPool1d(2), (7,)),
    "2d, dilation and ceiling": (nn.MaxPool2d((2, 3), stride=2, dilation=(2, 1), ceil_mode=True), (2, 5, 6)),
    "2d, overlapping and padded": (nn.MaxPool2d(3, stride=(1, 2), padding=1), (2, 3, 5)),
    "3d, overlapping": (nn.MaxPool3d((2, 1, 3), stride=1), (2, 3, 2, 5)),
    "adaptive 1d": (nn.AdaptiveMaxPool1d(3), (2, 5)),
    "adaptive 2d": (nn.AdaptiveMaxPool2d((3, None)), (2, 5, 2)),
    "adaptive 3d": (nn.AdaptiveMaxPool3d((2, 1, 3)), (2, 3, 2, 5)),
    "infinite power": (nn.LPPool1d(math.inf, 3, 2), (2, 7)),
    "least absolute value": (nn.LPPool2d(-math.inf, 2, 1), (2, 3, 4)),
    "infinite power 3d": (nn.LPPool3d(math.inf, 2), (1, 2, 5, 3)),
}
AVERAGES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1d": (nn.AvgPool1d(3, 2, 1), (2, 7)),
    "1d, padding not counted": (nn.AvgPool1d(3, 1, 1, count_include_pad=False), (2, 5)),
    "1d, ceiling": (nn.AvgPool1d(3, 2, 1, ceil_mode=True), (2, 6)),
    "2d": (nn.AvgPool2d((3, 2)), (2, 7, 5)),
    "2d, overlapping, padding not counted": (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (2, 3, 5)),
    "2d, ceiling and padding counted": (nn.AvgPool2d((3, 2), 2, (1, 0), ceil_mode=True), (2, 6, 5)),
    "2d, another divisor": (nn.AvgPool2d((3, 2), 1, 1, divisor_override=5), (2, 3, 5)),
    "2d without channels": (nn.AvgPool2d(2), (4, 5)),
    "3d": (nn.AvgPool3d((2, 1, 3), 2, (1, 0, 1)), (1, 3, 2, 5)),
    "3d, another divisor and ceiling": (nn.AvgPool3d(2, 2, divisor_override=3, ceil_mode=True), (1, 3, 2, 5)),
    "adaptive 1d": (nn.AdaptiveAvgPool1d(3), (2, 5)),
    "adaptive 2d": (nn.AdaptiveAvgPool2d((3, None)), (2, 5, 2)),
    "adaptive 3d to a larger size": (nn.AdaptiveAvgPool3d((2, 1, 7)), (2, 3, 2, 5)),
    "power 1": (nn.LPPool1d(1, 3, 2), (2, 7)),
    "power 2": (nn.LPPool1d(2, 3, 2, ceil_mode=True), (2, 6)),
    "power 3/2": (nn.LPPool2d(1.5, (2, 3), 1), (2, 3, 5)),
    "power 4, 3d": (nn.LPPool3d(4, 2), (1, 2, 5, 3)),
}


def batch(*shape: int) -> Tensor:
    return torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1


def assert_products(module: nn.Module, x: Tensor) -> None:
    """Value, dense Jacobian both ways and both squares, in float64; float32 in gives float32 out."""
    y, J = linearize(module, x)
    torch.testing.assert_close(y, module(x), rtol=1e-12, atol=1e-12)
    truth = oracles.dense_jacobian(module, x)
    s = J.signature
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(J.push(s.in_basis()).flatten(2).permute(1, 2, 0), truth, **close)
    torch.testing.assert_close(J.pull(s.out_basis()).flatten(2).permute(1, 0, 2), truth, **close)
    squared = J.push_squared_layerwise(s.in_basis()).flatten(2).permute(1, 2, 0)
    torch.testing.assert_close(squared, truth.square(), **close)
    squared = J.pull_squared_layerwise(s.out_basis()).flatten(2).permute(1, 0, 2)
    torch.testing.assert_close(squared, truth.square(), **close)
    single, K = linearize(module, x.float())
    pushed, pulled = K.push(K.signature.in_basis()), K.pull(K.signature.out_basis())
    assert single.dtype == pushed.dtype == pulled.dtype == torch.float32
    torch.testing.assert_close(pushed.flatten(2).permute(1, 2, 0), truth.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(PROVEN))
def test_pooling(name: str) -> None:
    module, shape = PROVEN[name]
    check_rule(module, batch(*shape))


@pytest.mark.parametrize("name", list(MAXIMA))
def test_maxima(name: str) -> None:
    module, shape = MAXIMA[name]
    assert_products(module, batch(*shape) - 0.5)


@pytest.mark.parametrize("name", list(AVERAGES))
def test_averages(name: str) -> None:
    module, shape = AVERAGES[name]
    assert_products(module, batch(*shape))


@pytest.mark.parametrize("settings", [{"output_size": (3, 2)}, {"output_ratio": 0.6}])
def test_fractional_maxima_of_given_windows(settings: dict[str, Any]) -> None:
    flat = nn.FractionalMaxPool2d(2, _random_samples=SAMPLES.expand(3, 2, 3)[..., :2], **settings)
    settings = {"output_size": (2, 3, 2)} if "output_size" in settings else settings
    deep = nn.FractionalMaxPool3d((1, 2, 2), _random_samples=SAMPLES.expand(3, 2, 3), **settings)
    for module, x in ((flat, batch(2, 5, 7)), (deep, batch(2, 3, 5, 4))):
        y, J = linearize(module, x)
        torch.testing.assert_close(y, module(x))
        torch.testing.assert_close(J.dense(), oracles.dense_jacobian(module, x))
        torch.testing.assert_close(J.T.dense(), J.dense().mT)


def test_cotangents_of_overlapping_maxima_add_up() -> None:
    x = torch.tensor([[[0.0, 7.0, 1.0, 2.0]]], dtype=torch.float64)
    J = linearize(nn.MaxPool1d(2, stride=1), x)[1]
    assert isinstance(J, IndexMap)
    pulled = J.pull(torch.tensor([[[[1.0, 10.0, 100.0]]]], dtype=torch.float64))
    torch.testing.assert_close(pulled, torch.tensor([[[[0.0, 11.0, 0.0, 100.0]]]], dtype=torch.float64))


def test_ties_are_broken_as_torch_breaks_them() -> None:
    x = torch.ones(3, 1, 4, 5, dtype=torch.float64)
    for module in (nn.MaxPool2d(3, stride=1), nn.AdaptiveMaxPool2d(2)):
        torch.testing.assert_close(linearize(module, x)[1].dense(), oracles.dense_jacobian(module, x))


def test_structure_of_averages_is_kept() -> None:
    assert isinstance(linearize(nn.AdaptiveAvgPool2d(1), batch(2, 3, 5))[1], Separable)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_power_means_of_zeros_have_the_derivative_that_torch_documents(power: int) -> None:
    # "if the sum to the power of p is zero, the gradient of this function is not defined. This implementation will
    # set the gradient to zero in this case"
    x = torch.tensor([[[0.0, 0.0, 1.0, 0.0]], [[2.0, 3.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    module = nn.LPPool1d(power, 2)
    J = linearize(module, x)[1]
    torch.testing.assert_close(J.dense(), oracles.dense_jacobian(module, x))
    leaf = x.clone().requires_grad_()
    total = linearize(module, leaf)[1].push(torch.ones(1, 3, 1, 4, dtype=torch.float64)).sum()
    assert bool(torch.isfinite(torch.autograd.grad(total, leaf)[0]).all())


@pytest.mark.parametrize("axes", [2, 3])
def test_random_windows_are_refused_in_eval_mode_too(axes: int) -> None:
    cls = {2: nn.FractionalMaxPool2d, 3: nn.FractionalMaxPool3d}[axes]
    network = nn.Sequential(nn.Identity(), cls(2, output_size=2)).eval()
    with pytest.raises(CoupledSamplesError, match=r"FractionalMaxPool.d \(1\) draws.*_random_samples"):
        linearize(network, torch.randn(3, 2, *[5] * axes))


@pytest.mark.parametrize(
    "module",
    [
        nn.MaxPool2d(2, return_indices=True),
        nn.AdaptiveMaxPool2d(2, return_indices=True),
        nn.FractionalMaxPool2d(2, output_size=2, return_indices=True, _random_samples=SAMPLES[..., :2]),
    ],
)
def test_indices_beside_values_are_refused(module: nn.Module) -> None:
    with pytest.raises(ModuleError, match="return_indices=False"):
        linearize(module, torch.randn(3, 2, 5, 5))


def test_unpooling_says_that_it_needs_indices() -> None:
    for module, shape in (
        (nn.MaxUnpool1d(2), (2, 4)),
        (nn.MaxUnpool2d(2), (2, 4, 4)),
        (nn.MaxUnpool3d(2), (2, 2, 2, 2)),
    ):
        with pytest.raises(ModuleError, match="takes the values and the indices"):
            linearize(module, torch.randn(3, *shape))


def test_a_row_without_batch_is_refused() -> None:
    for module in (nn.MaxPool1d(2), nn.AvgPool1d(2), nn.LPPool1d(2, 2), nn.AdaptiveAvgPool1d(2)):
        with pytest.raises(ShapeError, match=r"one more for the batch.*unsqueeze"):
            linearize(module, torch.randn(5))
