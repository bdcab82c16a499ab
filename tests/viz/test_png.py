"""Pictures as PNG."""

import numpy as np
import pytest

from pullgeo.viz.png import data_uri, png
from tests.viz.reading import decode_png, pixels


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 1), (5, 2, 3)])
def test_what_is_written_is_read(shape: tuple[int, int, int]):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(decode_png(png(values)).reshape(shape), values)
    np.testing.assert_array_equal(pixels(data_uri(values)).reshape(shape), values)
