"""Upsampling, padding, shuffling and folding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import ModuleError, ShapeError
from pullgeo.jacobian import linearize
from pullgeo.testing import check_rule
from tests.jacobian.test_pooling import assert_products

PROVEN: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "bicubic": (nn.Upsample(scale_factor=1.7, mode="bicubic"), (1, 2, 3)),
    "reflection": (nn.ReflectionPad2d((1, 2, 0, 1)), (1, 2, 3)),
    "constants and cropping": (nn.ConstantPad2d((-1, 2, 1, -1), 3.5), (2, 3, 4)),
    "pixels": (nn.PixelShuffle(2), (4, 2, 3)),
    "fold": (nn.Fold((3, 4), (2, 3), stride=(1, 2), padding=1), (6, 8)),
}
SHAPES = {"linear": (2, 5), "bilinear": (1, 3, 5), "bicubic": (1, 3, 5), "trilinear": (1, 2, 3, 2)}
SIZES = {1: (7,), 2: (7, 2), 3: (3, 2, 5)}
PADS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "zeros 1d": (nn.ZeroPad1d((2, 1)), (2, 3)),
    "zeros 2d": (nn.ZeroPad2d((2, 1, 0, 3)), (2, 3, 5)),
    "zeros 3d": (nn.ZeroPad3d((1, 0, 0, 2, 1, 1)), (1, 3, 2, 1)),
    "cropping": (nn.ZeroPad2d((-2, -1, -1, 0)), (2, 3, 5)),
    "constant 1d": (nn.ConstantPad1d((2, -1), -4.0), (2, 3)),
    "constant 3d": (nn.ConstantPad3d((1, -1, 0, 2, -1, 1), 2.5), (1, 3, 2, 2)),
    "reflection 1d": (nn.ReflectionPad1d((2, 4)), (2, 5)),
    "reflection 1d without channels": (nn.ReflectionPad1d((2, 1)), (5,)),
    "reflection 3d": (nn.ReflectionPad3d((1, 0, 0, 2, 1, 1)), (1, 2, 3, 2)),
    "replication 1d": (nn.ReplicationPad1d((5, 2)), (2, 3)),
    "replication 2d": (nn.ReplicationPad2d((2, 1, 0, 3)), (2, 3, 2)),
    "replication 3d": (nn.ReplicationPad3d((1, 0, 0, 2, 1, 1)), (1, 2, 3, 2)),
    "circular 1d": (nn.CircularPad1d((3, 2)), (2, 3)),
    "circular 2d": (nn.CircularPad2d((2, 1, 0, 3)), (2, 3, 2)),
    "circular and cropping": (nn.CircularPad2d((-1, 2, 1, 0)), (2, 3, 5)),
    "circular 3d": (nn.CircularPad3d((1, 0, 0, 2, 1, 1)), (1, 2, 3, 2)),
}
ORDERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "pixels from channels": (nn.PixelShuffle(3), (18, 2, 1)),
    "channels from pixels": (nn.PixelUnshuffle(2), (3, 2, 4)),
    "channels from pixels, with more dimensions": (nn.PixelUnshuffle(2), (2, 1, 4, 2)),
    "channels": (nn.ChannelShuffle(2), (6, 5)),
    "channels of volumes": (nn.ChannelShuffle(3), (6, 1, 2, 1)),
    "unfold": (nn.Unfold((2, 3), dilation=(1, 2), padding=(0, 1), stride=(2, 1)), (2, 4, 5)),
    "fold, overlapping": (nn.Fold((4, 3), 2), (8, 6)),
}


def batch(*shape: int) -> Tensor:
    return torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(PROVEN))
def test_rules(name: str) -> None:
    module, shape = PROVEN[name]
    check_rule(module, batch(*shape))


def resampled(mode: str, axes: int) -> list[dict[str, Any]]:
    """Settings that make different grids of the same input."""
    some: list[dict[str, Any]] = [
        {"scale_factor": 2},
        {"scale_factor": 1.7},
        {"scale_factor": 1.7, "recompute_scale_factor": True},
        {"size": SIZES[axes]},
        {"scale_factor": tuple(0.8 + 0.6 * i for i in range(axes))},
    ]
    if axes == 3:  # many outputs for the oracle, and nothing new
        some = some[2:4]
    if mode in ("linear", "bilinear", "bicubic", "trilinear"):
        some = some[-3:] + [{**settings, "align_corners": True} for settings in some[-3:]]
    return some


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "area", "linear", "bilinear", "bicubic", "trilinear"])
def test_upsampling(mode: str) -> None:
    for shape in [SHAPES[mode]] if mode in SHAPES else [(2, 5), (1, 3, 5), (1, 2, 3, 2)]:
        for settings in resampled(mode, len(shape) - 1):
            assert_products(nn.Upsample(mode=mode, **settings), batch(*shape))


def test_upsampling_of_images() -> None:
    assert_products(nn.UpsamplingNearest2d(scale_factor=2), batch(2, 3, 2))
    assert_products(nn.UpsamplingBilinear2d(size=(5, 7)), batch(2, 3, 2))


def test_bilinear_upsampling_is_not_treated_as_nearest() -> None:
    J = linearize(nn.Upsample(scale_factor=2, mode="bilinear"), batch(1, 1, 2))[1]
    row = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(J.dense(), torch.cat([row, row]).expand(3, 8, 2))
    w = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64).repeat(2).reshape(1, 1, 1, 2, 4).expand(1, 3, 1, 2, 4)
    torch.testing.assert_close(J.pull(w)[0, 0, 0, 0], 2 * row.T @ torch.tensor([1.0, 2.0, 4.0, 8.0]).double())


@pytest.mark.parametrize("name", list(PADS))
def test_padding(name: str) -> None:
    module, shape = PADS[name]
    assert_products(module, batch(*shape))


@pytest.mark.parametrize("name", list(ORDERS))
def test_shuffling_and_folding(name: str) -> None:
    module, shape = ORDERS[name]
    assert_products(module, batch(*shape))


def test_an_empty_batch_is_unshuffled_too() -> None:
    # torch hands it on in its old shape
    y, J = linearize(nn.PixelUnshuffle(2), torch.zeros(0, 1, 4, 6))
    assert y.shape == (0, 4, 2, 3)
    assert J.pull(torch.zeros(5, 0, 4, 2, 3)).shape == (5, 0, 1, 4, 6)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.ZeroPad1d(1), (5,)),
        (nn.CircularPad2d(1), (3, 5)),
        (nn.PixelShuffle(2), (4, 2, 3)),
        (nn.PixelUnshuffle(2), (1, 4, 6)),
        (nn.ChannelShuffle(2), (4, 3)),
    ],
)
def test_a_sample_without_batch_is_refused(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"one more for the batch.*unsqueeze"):
        linearize(module, torch.randn(*shape))


@pytest.mark.parametrize(
    ("module", "shape"),
    [(nn.Unfold(2), (3, 4, 5)), (nn.Fold((3, 3), 2), (4, 4)), (nn.Upsample(scale_factor=2), (3, 5))],
)
def test_layers_of_a_fixed_number_of_dimensions_say_so(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"needs x of . dimensions"):
        linearize(module, torch.randn(*shape))


def test_products_of_two_inputs_are_refused() -> None:
    with pytest.raises(ModuleError, match="takes two tensors"):
        linearize(nn.Bilinear(2, 3, 5), torch.randn(3, 2))


def test_a_decoder_of_resized_images() -> None:
    torch.manual_seed(0)
    decoder = nn.Sequential(
        nn.Linear(2, 4),
        nn.Unflatten(1, (1, 2, 2)),
        nn.Upsample(size=(3, 2), mode="bilinear"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(1, 4, 3),
        nn.Softplus(),
        nn.PixelShuffle(2),
        nn.AvgPool2d(2),
    ).double()
    x = batch(2)
    check_rule(decoder, x, gradients=False, second="skip")
