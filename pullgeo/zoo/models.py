"""The models of the zoo: their layers, and the functions that make them, trained or untrained.

Every activation is smooth, so that a decoder has the two derivatives that geodesics and curvature ask for.
"""

from collections.abc import Callable
from importlib.resources import files
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from pullgeo.errors import OptionError
from pullgeo.zoo.loading import draw_weights, load_weights
from pullgeo.zoo.vae import VAE

_SHIPPED = {"digits": (2,), "mnist": (2, 10)}


def digits_vae(d: int = 2, weights: str | PathLike[str] | None = None) -> VAE:
    """A trained variational autoencoder of the 8 x 8 digits of :func:`pullgeo.datasets.digits`.

    The decoder maps latents ``(b, d)`` to pixels ``(b, 64)`` in [0, 1]: three linear layers, with tanh, softplus and a
    sigmoid after them. The result is in eval mode on the CPU, in float32, and its parameters have
    ``requires_grad=False``, because geodesics need derivatives for latents only; ``vae.requires_grad_(True).train()``
    makes it ready for training.

    The shipped weights (33,604 numbers) come from ``examples/train_digits_vae.py`` with its defaults: 300 epochs on the
    first part of ``datasets.digits().split()``, final loss -22.9 nats per image. On the held-out part the mean squared
    error per pixel is 0.0296, that of the mean image 0.0732. 98 % of all latent coordinates lie in [-3, 3]. The five
    nearest neighbours in the plane tell the class of 90 % of all images in five-fold cross-validation, and of 86 % of
    the held-out images with the others as neighbours.

    Args:
        d: Latent dimension. Weights ship for 2.
        weights: A safetensors file to load instead of the shipped one.

    Raises:
        OptionError: No weights ship for this ``d``, and no file was named.
        DataError: The file cannot be read or does not fit the model.

    Example:
        >>> import torch
        >>> from pullgeo import zoo
        >>> vae = zoo.digits_vae()
        >>> vae.decoder(torch.zeros(3, 2)).shape
        torch.Size([3, 64])
    """
    return _trained("digits", _digits_architecture, d, weights)


def mnist_vae(d: int = 2, weights: str | PathLike[str] | None = None) -> VAE:
    """A trained convolutional variational autoencoder of the images of :func:`pullgeo.datasets.mnist5000`.

    The decoder maps latents ``(b, d)`` to images ``(b, 1, 28, 28)`` in [0, 1]: two linear layers, an ``Unflatten``, two
    transposed convolutions, with SiLU between them and a sigmoid at the end. The result is in eval mode on the CPU, in
    float32, and its parameters have ``requires_grad=False``, because geodesics need derivatives for latents only;
    ``vae.requires_grad_(True).train()`` makes it ready for training.

    The shipped weights come from ``examples/train_mnist_vae.py`` with its defaults: 60 epochs on the first part of
    ``datasets.mnist5000().split()``. Loss: the last epoch's, with the KL term weighted by 4. Error: mean squared, per
    pixel of the held-out part, where the mean image has 0.0669. Neighbours: how often the five nearest latents tell the
    class, for all images in five-fold cross-validation, and for held-out images with the others as neighbours.

    ===  =======  ===========  ======  ===============  ==================
    d    numbers  loss (nats)  error   neighbours       latents in [-3, 3]
    ===  =======  ===========  ======  ===============  ==================
    2    206,901  -155.9       0.0410  77 %, 73 %       98 %
    10   209,989  -584.6       0.0144  94 %, 94 %       99 %
    ===  =======  ===========  ======  ===============  ==================

    Args:
        d: Latent dimension. Weights ship for 2 and 10.
        weights: A safetensors file to load instead of the shipped one.

    Raises:
        OptionError: No weights ship for this ``d``, and no file was named.
        DataError: The file cannot be read or does not fit the model.

    Example:
        >>> import torch
        >>> from pullgeo import zoo
        >>> vae = zoo.mnist_vae(d=10)
        >>> vae.decoder(torch.zeros(3, 10)).shape
        torch.Size([3, 1, 28, 28])
    """
    return _trained("mnist", _mnist_architecture, d, weights)


def untrained_digits_vae(generator: torch.Generator, d: int = 2) -> VAE:
    """The model of :func:`digits_vae` with random weights, in train mode, ready to be trained.

    Args:
        generator: Draws the weights; the model goes to its device.
        d: Latent dimension, at least 1.

    Raises:
        OptionError: ``d`` is below 1.
    """
    return draw_weights(_empty("untrained_digits_vae", _digits_architecture, d), generator)


def untrained_mnist_vae(generator: torch.Generator, d: int = 2) -> VAE:
    """The model of :func:`mnist_vae` with random weights, in train mode, ready to be trained.

    Args:
        generator: Draws the weights; the model goes to its device.
        d: Latent dimension, at least 1.

    Raises:
        OptionError: ``d`` is below 1.
    """
    return draw_weights(_empty("untrained_mnist_vae", _mnist_architecture, d), generator)


def _trained(name: str, architecture: Callable[[int], VAE], d: int, weights: str | PathLike[str] | None) -> VAE:
    empty = _empty(f"{name}_vae", architecture, d)
    if weights is not None:
        return load_weights(empty, Path(weights))
    if d not in _SHIPPED[name]:
        raise OptionError(
            f"zoo.{name}_vae: expected d in {_SHIPPED[name]}, for which weights ship, got {d}. "
            f"Train others with examples/train_{name}_vae.py --latent {d}, and pass the file as weights=."
        )
    return load_weights(empty, files("pullgeo.zoo") / "weights" / f"{name}_vae_d{d}.safetensors")


def _empty(where: str, architecture: Callable[[int], VAE], d: int) -> VAE:
    if d < 1:
        raise OptionError(f"zoo.{where}: expected a latent dimension d of at least 1, got {d}. Try d=2.")
    # On the meta device the layers draw no initial weights, so the caller's global random state stays as it was.
    with torch.device("meta"):
        return architecture(d)


def _digits_architecture(d: int) -> VAE:
    encoder = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, 2 * d))
    decoder = nn.Sequential(
        nn.Linear(d, 64), nn.Tanh(), nn.Linear(64, 128), nn.Softplus(), nn.Linear(128, 64), nn.Sigmoid()
    )
    return VAE(encoder, decoder, latent_dim=d)


def _mnist_architecture(d: int) -> VAE:
    encoder = nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(8, 16, kernel_size=4, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 128),
        nn.SiLU(),
        nn.Linear(128, 2 * d),
    )
    decoder = nn.Sequential(
        nn.Linear(d, 128),
        nn.SiLU(),
        nn.Linear(128, 16 * 7 * 7),
        nn.SiLU(),
        nn.Unflatten(1, (16, 7, 7)),
        nn.ConvTranspose2d(16, 8, kernel_size=4, stride=2, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(8, 1, kernel_size=4, stride=2, padding=1),
        nn.Sigmoid(),
    )
    return VAE(encoder, decoder, latent_dim=d)
