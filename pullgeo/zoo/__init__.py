"""Small generative models, trained on the data of :mod:`pullgeo.datasets`, to try geometry on."""

from pullgeo.zoo.models import digits_vae, mnist_vae, untrained_digits_vae, untrained_mnist_vae
from pullgeo.zoo.vae import VAE

__all__ = ["VAE", "digits_vae", "mnist_vae", "untrained_digits_vae", "untrained_mnist_vae"]
