"""Decoded latents as 8-bit pictures."""

import numpy as np
import pytest
import torch
from torch import nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.errors import NonFiniteError, OptionError, ShapeError
from pullgeo.viz.pictures import pictures_of


class Shaped(nn.Module):
    """Two latents written into an output of any shape, scaled."""

    def __init__(self, *shape: int, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.shape, self.scale, self.shift = shape, scale, shift

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        n = int(np.prod(self.shape))
        ramp = torch.arange(n, dtype=z.dtype) / (n - 1)
        return self.shift + self.scale * (ramp * z[:, :1]).reshape(-1, *self.shape)


ONES = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("out", "shape"),
    [((3, 5), (1, 3, 5)), ((1, 3, 5), (1, 3, 5)), ((3, 5, 7), (3, 5, 7)), ((15,), None), ((2, 3, 5), None)],
)
def test_outputs_of_the_shape_of_a_picture_are_pictures(out: tuple[int, ...], shape: tuple[int, ...] | None):
    pictures = pictures_of("f", PullbackManifold(Shaped(*out)), ONES)
    assert (pictures and pictures.shape) == shape


def test_flat_outputs_are_pictures_when_told():
    pictures = pictures_of("f", PullbackManifold(Shaped(15)), ONES, (3, 5))
    expected = np.round(np.arange(15) / 14 * 255).reshape(3, 5, 1)
    np.testing.assert_array_equal(pictures(ONES)[2], expected)


def test_channels_come_last():
    pictures = pictures_of("f", PullbackManifold(Shaped(3, 2, 5)), ONES)
    values = np.round(np.arange(30) / 29 * 255).reshape(3, 2, 5)
    np.testing.assert_array_equal(pictures(ONES)[0], np.moveaxis(values, 0, -1))


def test_values_in_the_unit_interval_keep_their_brightness():
    pictures = pictures_of("f", PullbackManifold(Shaped(3, 5, scale=0.5)), ONES)
    assert pictures(ONES).max() == 128


def test_other_values_span_black_to_white():
    pictures = pictures_of("f", PullbackManifold(Shaped(3, 5, scale=9.0, shift=-2.0)), ONES)
    shown = pictures(ONES)[0]
    assert (shown.min(), shown.max()) == (0, 255)
    assert pictures(2 * ONES).max() == 255


def test_large_pictures_are_averaged_down():
    pictures = pictures_of("f", PullbackManifold(Shaped(8, 4)), ONES)
    small = pictures(ONES, max_side=4)
    assert small.shape == (3, 4, 2, 1)
    values = (np.arange(32) / 31).reshape(4, 2, 2, 2).mean((1, 3))
    np.testing.assert_array_equal(small[0, :, :, 0], np.round(values * 255))


@pytest.mark.parametrize("shape", [(15,), (3, 5, 0), (2, 3, 5), (1, 1, 3, 5), (3.0, 5), 15, "3,5"])
def test_image_shape_must_be_one(shape: object):
    with pytest.raises(OptionError, match="f: image_shape must be"):
        pictures_of("f", PullbackManifold(Shaped(15)), ONES, shape)


def test_image_shape_must_fit():
    with pytest.raises(ShapeError, match=r"image_shape=\(4, 5\) has 20 entries and the decoder returns 15"):
        pictures_of("f", PullbackManifold(Shaped(15)), ONES, (4, 5))


def test_a_given_metric_decodes_nothing():
    manifold = MetricManifold(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))
    assert pictures_of("f", manifold, ONES) is None
    with pytest.raises(OptionError, match="decodes nothing"):
        pictures_of("f", manifold, ONES, (3, 5))


def test_nan_is_no_picture():
    with pytest.raises(NonFiniteError, match="NaN or infinity at z"):
        pictures_of("f", PullbackManifold(Shaped(3, 5, scale=float("nan"))), ONES)
