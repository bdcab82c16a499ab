"""A file of weights that does not fit is refused by name, and no file can run code."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pullgeo import zoo
from pullgeo.errors import DataError


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return zoo.digits_vae().state_dict()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


def test_own_weights_come_back_in_their_dtype(file: Path, weights: dict[str, Tensor]) -> None:
    save_file({name: (2 * tensor).double() for name, tensor in weights.items()}, file)
    loaded = zoo.digits_vae(weights=str(file)).state_dict()
    for name, tensor in weights.items():
        assert torch.equal(loaded[name], 2 * tensor.double())


def test_loaded_model_outlives_its_file(file: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, file)
    vae = zoo.digits_vae(weights=file)
    file.write_bytes(bytes(file.stat().st_size))
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_missing_file(file: Path) -> None:
    with pytest.raises(DataError, match=r"weights\.safetensors.*No such file"):
        zoo.digits_vae(weights=file)


def test_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return (tmp_path / "ran").touch, ()

    file = tmp_path / "weights.pt"
    torch.save(Payload(), file)
    with pytest.raises(DataError, match="expected a safetensors file"):
        zoo.digits_vae(weights=file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("decoder.0.bias", None, r"no \['decoder.0.bias'\], and unknown ones named \[\]"),
        ("decoder.9.bias", torch.zeros(2), r"no \[\], and unknown ones named \['decoder.9.bias'\]"),
        ("decoder.0.weight", torch.zeros(2, 64), r"decoder.0.weight of shape \(64, 2\).*got \(2, 64\)"),
        ("decoder.0.bias", torch.zeros(64, dtype=torch.int64), "floating-point dtype.*got torch.int64"),
        ("decoder.0.bias", torch.full((64,), torch.nan), "finite numbers in decoder.0.bias"),
    ],
)
def test_file_that_does_not_fit(
    file: Path, weights: dict[str, Tensor], name: str, changed: Tensor | None, message: str
) -> None:
    others = {key: tensor for key, tensor in weights.items() if key != name}
    save_file(others if changed is None else {**others, name: changed}, file)
    with pytest.raises(DataError, match=message):
        zoo.digits_vae(weights=file)


def test_weights_of_another_dimension(file: Path) -> None:
    save_file(zoo.mnist_vae(10).state_dict(), file)
    with pytest.raises(DataError, match="another architecture or latent dimension"):
        zoo.mnist_vae(2, weights=file)
