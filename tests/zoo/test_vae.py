"""The autoencoder and its loss."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from pullgeo import zoo

PIXELS, LATENT, BATCH = 7, 3, 5


@pytest.fixture
def vae() -> zoo.VAE:
    encoder = nn.Sequential(nn.Linear(PIXELS, 11), nn.Tanh(), nn.Linear(11, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, PIXELS), nn.Sigmoid())
    return zoo.VAE(encoder, decoder, LATENT).double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(BATCH, PIXELS, dtype=torch.float64)


@pytest.mark.parametrize("kl_weight", [1.0, 4.0])
def test_loss_is_the_bound_at_the_best_variance(vae: zoo.VAE, images: torch.Tensor, kl_weight: float) -> None:
    noise = torch.randn(BATCH, LATENT, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    codes = vae.encoder(images)
    posterior = Normal(codes[:, :LATENT], codes[:, LATENT:].exp().sqrt())
    decoded = vae.decoder(posterior.mean + posterior.stddev * noise)
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum() / BATCH

    def bound(std: float) -> float:
        return (kl_weight * divergence - Normal(decoded, std).log_prob(images).sum() / BATCH).item()

    best = (decoded - images).square().mean().sqrt().item()
    loss = vae.loss(images, torch.Generator().manual_seed(3), kl_weight).item()
    assert loss == pytest.approx(bound(best), rel=1e-12)
    assert loss < min(bound(0.99 * best), bound(1.01 * best))


def test_loss_trains_every_parameter(vae: zoo.VAE, images: torch.Tensor, generator: torch.Generator) -> None:
    vae.loss(images, generator).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in vae.parameters())


def test_encode_and_forward_use_the_mean(vae: zoo.VAE, images: torch.Tensor) -> None:
    mean, log_variance = vae.posterior(images)
    assert torch.equal(torch.cat([mean, log_variance], dim=1), vae.encoder(images))
    assert torch.equal(vae.encode(images), mean)
    assert torch.equal(vae(images), vae.decoder(mean))
