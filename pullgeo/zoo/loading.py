"""Put weights into a model: from a safetensors file, or freshly drawn."""

from importlib.resources.abc import Traversable
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pullgeo.errors import DataError
from pullgeo.zoo.vae import VAE


def load_weights(empty: VAE, file: Path | Traversable) -> VAE:
    """Give a model the weights in a safetensors file, which holds numbers only and cannot run code when it is read.

    Args:
        empty: A model on the ``meta`` device, which has shapes but no memory; it becomes the result.
        file: One floating-point tensor for each parameter, under the parameter's name.

    Returns:
        The model on the CPU in the file's dtype, in eval mode, its parameters with ``requires_grad=False``.

    Raises:
        DataError: The file cannot be read, is not a safetensors file, or holds other names, shapes or dtypes than the
            model's, or NaN or infinity.
    """
    tensors = _read(file)
    _check(tensors, empty.state_dict(), file)
    empty.load_state_dict(tensors, assign=True)
    return empty.requires_grad_(False).eval()


def draw_weights(empty: VAE, generator: torch.Generator) -> VAE:
    """Give a model random weights: Xavier-uniform matrices and kernels, zero biases, in float32.

    Args:
        empty: A model on the ``meta`` device; it becomes the result.
        generator: Draws the weights, in the order of the parameters; the model goes to its device.

    Source:
        X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
        AISTATS 2010, equation (16).
    """
    vae = empty.to(torch.float32).to_empty(device=generator.device)
    for parameter in vae.parameters():
        if parameter.ndim == 1:
            torch.nn.init.zeros_(parameter)
        else:
            torch.nn.init.xavier_uniform_(parameter, generator=generator)
    return vae


def _read(file: Path | Traversable) -> dict[str, Tensor]:
    try:
        # Bytes rather than a memory map: the file may lie in a zipped package, or be overwritten later.
        return safetensors.torch.load(file.read_bytes())
    except OSError as error:
        raise DataError(f"zoo: expected a readable file of weights at {file}, got: {error}. Check the path.") from error
    except SafetensorError as error:
        raise DataError(
            f"zoo: expected a safetensors file at {file}, got: {error}. "
            "Write one with safetensors.torch.save_file(vae.state_dict(), path)."
        ) from error


def _check(tensors: dict[str, Tensor], expected: dict[str, Tensor], file: Path | Traversable) -> None:
    fix = "Is it the file of another architecture or latent dimension?"
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise DataError(
            f"zoo: expected one tensor per parameter of the model in {file}, "
            f"got no {missing}, and unknown ones named {surplus}. {fix}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise DataError(
                f"zoo: expected {name} of shape {tuple(expected[name].shape)} in {file}, "
                f"got {tuple(tensor.shape)}. {fix}"
            )
        if not tensor.is_floating_point():
            raise DataError(f"zoo: expected {name} in a floating-point dtype in {file}, got {tensor.dtype}. {fix}")
        if not tensor.isfinite().all():
            raise DataError(f"zoo: expected finite numbers in {name} in {file}, got NaN or infinity. Train it again.")
