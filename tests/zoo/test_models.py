"""The shipped models are what their docstrings say, and good enough to do geometry on."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from pullgeo import datasets, zoo
from pullgeo.errors import OptionError

SHIPPED = {
    "digits": lambda: zoo.digits_vae(),
    "mnist-2": lambda: zoo.mnist_vae(2),
    "mnist-10": lambda: zoo.mnist_vae(10),
}
SHAPES = {"digits": (2, (64,)), "mnist-2": (2, (1, 28, 28)), "mnist-10": (10, (1, 28, 28))}


@cache
def data_of(name: str) -> datasets.LabelledImages:
    return datasets.digits() if name == "digits" else datasets.mnist5000()


@pytest.fixture(params=SHIPPED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def vae(name: str) -> zoo.VAE:
    return SHIPPED[name]()


def test_shapes_and_ranges(name: str, vae: zoo.VAE) -> None:
    d, pixels = SHAPES[name]
    assert vae.latent_dim == d
    z = vae.encode(data_of(name).images[:5])
    assert z.shape == (5, d)
    decoded = vae.decoder(5 * z)
    assert decoded.shape == (5, *pixels)
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_layers_are_plain_modules_of_torch(vae: zoo.VAE) -> None:
    for network in (vae.encoder, vae.decoder):
        assert type(network) is torch.nn.Sequential
        assert all(type(layer).__module__.startswith("torch.nn.modules") for layer in network)


def test_frozen_in_eval_mode_yet_differentiable_in_latents(name: str, vae: zoo.VAE) -> None:
    assert not any(module.training for module in vae.modules())
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    z = torch.zeros(3, SHAPES[name][0], requires_grad=True)
    vae.decoder(z).sum().backward()
    assert (z.grad.abs() > 0).all()


def test_loading_repeats_itself_and_leaves_global_state_alone(name: str) -> None:
    state = torch.get_rng_state()
    first = SHIPPED[name]().state_dict()
    torch.set_default_dtype(torch.float64)
    second = SHIPPED[name]().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert tensor.dtype == second[key].dtype == torch.float32
        assert torch.equal(tensor, second[key])
        tensor.zero_()
        assert second[key].any()


# How much of the mean image's squared error on held-out images may remain.
@pytest.mark.parametrize(("name", "remainder"), [("digits", 0.45), ("mnist-2", 0.65), ("mnist-10", 0.25)])
def test_reconstructs_images_it_has_not_seen(name: str, vae: zoo.VAE, remainder: float) -> None:
    train, test = data_of(name).split()
    baseline = (test.images - train.images.mean(dim=0)).square().mean()
    assert (vae(test.images) - test.images).square().mean() < remainder * baseline


@pytest.mark.parametrize(("name", "accuracy"), [("digits", 0.87), ("mnist-2", 0.70), ("mnist-10", 0.92)])
def test_neighbours_in_latent_space_share_their_class(name: str, vae: zoo.VAE, accuracy: float) -> None:
    data = data_of(name)
    scores = cross_val_score(KNeighborsClassifier(5), vae.encode(data.images).numpy(), data.labels.numpy(), cv=5)
    assert scores.mean() > accuracy


def test_latents_fill_the_middle_of_the_space(name: str, vae: zoo.VAE) -> None:
    z = vae.encode(data_of(name).images)
    assert (z.abs() <= 3).float().mean() > 0.95
    assert ((z.std(dim=0) > 0.7) & (z.std(dim=0) < 1.5)).all()


@pytest.mark.parametrize("make", [zoo.untrained_digits_vae, zoo.untrained_mnist_vae])
def test_untrained_model_draws_from_its_generator_alone(make: Callable[..., zoo.VAE]) -> None:
    state = torch.get_rng_state()
    first, second, other = (make(torch.Generator().manual_seed(seed), 3) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.training
    assert first.latent_dim == 3
    for one, two, three in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert one.requires_grad
        assert one.dtype == torch.float32
        assert torch.equal(one, two)
        assert not one.any() if one.ndim == 1 else not torch.equal(one, three)


def test_untrained_weights_have_the_spread_of_xavier(generator: torch.Generator) -> None:
    weight = zoo.untrained_digits_vae(generator).encoder[0].weight.detach()
    limit = (6 / (64 + 128)) ** 0.5
    assert 0.99 * limit < weight.abs().max() <= limit
    assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.02)


def test_dimension_without_weights_is_refused() -> None:
    with pytest.raises(OptionError, match=r"mnist_vae: expected d in \(2, 10\).*got 3.*train_mnist_vae.py --latent 3"):
        zoo.mnist_vae(3)


@pytest.mark.parametrize("make", [zoo.digits_vae, zoo.mnist_vae])
def test_latent_dimension_is_positive(make: Callable[..., zoo.VAE]) -> None:
    with pytest.raises(OptionError, match="at least 1, got 0"):
        make(0)
