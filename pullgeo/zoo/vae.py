"""The variational autoencoder that every model of the zoo is."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class VAE(nn.Module):
    """A variational autoencoder with a diagonal Gaussian posterior and a Gaussian likelihood of one shared variance.

    Under that likelihood, p(x|z) = N(decoder(z), σ²I), the Fisher-Rao metric pulled back to the latent space is JᵀJ/σ²
    with J the decoder's Jacobian: up to a constant, the Euclidean pullback.

    Args:
        encoder: Maps images ``(b, *pixels)`` to ``(b, 2d)``: the posterior's mean, then its log-variance.
        decoder: Maps latents ``(b, d)`` to images ``(b, *pixels)``.
        latent_dim: The dimension d of the latent space.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from pullgeo import zoo
        >>> vae = zoo.VAE(nn.Sequential(nn.Linear(7, 4)), nn.Sequential(nn.Linear(2, 7), nn.Sigmoid()), latent_dim=2)
        >>> vae.encode(torch.rand(3, 7)).shape, vae(torch.rand(3, 7)).shape
        (torch.Size([3, 2]), torch.Size([3, 7]))
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential, latent_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent_dim = latent_dim

    def posterior(self, x: Float[Tensor, "b *pixels"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Mean and log-variance of q(z|x), each ``(b, d)``."""
        mean, log_variance = self.encoder(x).split(self.latent_dim, dim=1)
        return mean, log_variance

    def encode(self, x: Float[Tensor, "b *pixels"]) -> Float[Tensor, "b d"]:
        """The posterior mean: the latent point that stands for an image."""
        return self.posterior(x)[0]

    def forward(self, x: Float[Tensor, "b *pixels"]) -> Float[Tensor, "b *pixels"]:
        """Decode the posterior mean of each image."""
        return self.decoder(self.encode(x))

    def loss(
        self, x: Float[Tensor, "b *pixels"], generator: torch.Generator, kl_weight: float = 1.0
    ) -> Float[Tensor, ""]:
        """The training loss in nats per image, averaged over the batch.

        D/2 (log 2πσ² + 1) + w KL(q(z|x) ‖ N(0, I)), with D pixels, w the ``kl_weight`` and σ² the mean squared error of
        this batch, which is the variance that maximises its likelihood. For w = 1 this estimates the negative evidence
        lower bound of log p(x) at that variance.

        Args:
            x: Images ``(b, *pixels)``.
            generator: Draws one sample of the posterior per image.
            kl_weight: Above 1 it draws the latents closer to the standard normal prior. That makes up for a likelihood
                that counts the many pixels of a stroke as independent evidence.

        Source:
            O. Rybkin, K. Daniilidis and S. Levine, "Simple and Effective VAE Training with Calibrated Decoders",
            ICML 2021 (the optimal variance); I. Higgins et al., "beta-VAE", ICLR 2017 (the weight).
        """
        mean, log_variance = self.posterior(x)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        variance = (self.decoder(mean + (0.5 * log_variance).exp() * noise) - x).square().mean()
        misfit = 0.5 * x[0].numel() * ((2 * math.pi * variance).log() + 1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()
        return misfit + kl_weight * divergence
