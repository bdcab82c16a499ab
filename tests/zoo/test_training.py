"""The scripts that train the models of the zoo, run for one epoch."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pullgeo import datasets, zoo

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The scripts set the number of threads; give the other tests theirs back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def script(name: str) -> Callable[[list[str]], None]:
    return runpy.run_path(str(EXAMPLES / name))["main"]


def error_of(vae: zoo.VAE, images: torch.Tensor) -> float:
    with torch.no_grad():
        return (vae(images) - images).square().mean().item()


@pytest.mark.parametrize(
    ("name", "data", "load", "untrained"),
    [
        ("digits", datasets.digits, zoo.digits_vae, zoo.untrained_digits_vae),
        ("mnist", datasets.mnist5000, zoo.mnist_vae, zoo.untrained_mnist_vae),
    ],
)
def test_one_epoch_writes_a_better_model(
    name: str,
    data: Callable[[], datasets.LabelledImages],
    load: Callable[..., zoo.VAE],
    untrained: Callable[[torch.Generator, int], zoo.VAE],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "trained.safetensors"
    script(f"train_{name}_vae.py")(["--epochs", "1", "--latent", "3", "--out", str(out)])
    _, test = data().split()
    before = error_of(untrained(torch.Generator().manual_seed(0), 3), test.images)
    after = error_of(load(3, weights=out), test.images)
    assert after < 0.7 * before
    printed = capsys.readouterr().out
    assert f"{after:.5f}" in printed
    assert str(out) in printed


def test_same_seed_writes_the_same_file(tmp_path: Path) -> None:
    train = script("train_digits_vae.py")
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, seed in zip(files, "445", strict=True):
        train(["--epochs", "1", "--seed", seed, "--out", str(file)])
    first, second, other = (file.read_bytes() for file in files)
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--epochs", "0"], "at least 1"), (["--out", "no/such/folder/file"], "there is no folder")],
)
def test_bad_options_stop_before_training(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        script("train_digits_vae.py")(options)
    captured = capsys.readouterr()
    assert message in captured.err
    assert "epoch " not in captured.out
