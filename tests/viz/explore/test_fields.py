"""Layers that are shipped."""

import numpy as np
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold
from pullgeo.manifold import Ensemble, MeanAndDeviation
from pullgeo.viz.explore.fields import decoder_uncertainty, latent_density, scalar_curvature
from pullgeo.viz.explore.packing import unpacked
from pullgeo.viz.explore.slice import Slice
from tests.viz.explore.decoders import mlp

BOX = ((-3.0, 3.0), (-2.0, 2.0))


def everything(d: int = 2) -> Slice:
    return Slice.of_dims(torch.zeros(3, d))


def test_the_density_integrates_to_one_and_peaks_at_the_latents() -> None:
    xy = np.random.default_rng(0).normal([1.0, -0.5], 0.3, (997, 2))
    field = latent_density(xy, *BOX, side=97)
    assert field is not None
    dx, dy = 6 / 96, 4 / 96
    assert abs(field.values.sum() * dx * dy - 1) < 0.02
    j, i = np.unravel_index(field.values.argmax(), field.values.shape)
    assert abs(-3 + i * dx - 1.0) < 0.3
    assert abs(-2 + j * dy + 0.5) < 0.3
    payload = field.payload()
    assert np.allclose(unpacked(payload["values"]), field.values)
    assert (payload["x"], payload["y"]) == ([-3.0, 3.0], [-2.0, 2.0])


def test_latents_that_fill_no_area_have_no_density() -> None:
    line = np.linspace(0, 1, 20)
    assert latent_density(np.stack([line, 2 * line], 1), *BOX) is None
    assert latent_density(np.zeros((2, 2)), *BOX) is None
    assert latent_density(np.random.default_rng(0).normal(size=(5000, 2)), *BOX, side=8) is not None


def test_uncertainty_is_that_of_the_decoder() -> None:
    deviation = nn.Sequential(mlp(outputs=5), nn.Softplus()).double()
    field = decoder_uncertainty(
        PullbackManifold(MeanAndDeviation(mlp(outputs=5), deviation)), everything(), *BOX, side=7
    )
    assert field is not None
    place = torch.tensor([[-3 + 6 * 2 / 6, -2 + 4 * 5 / 6]], dtype=torch.float64)
    assert np.isclose(field.values[5, 2], float(deviation(place).square().mean().sqrt().detach()))
    members = [mlp(seed=k).double() for k in range(4)]
    field = decoder_uncertainty(PullbackManifold(Ensemble(members)), everything(), *BOX, side=7)
    assert field is not None
    spread = torch.stack([member(place)[0] for member in members]).var(0).mean().sqrt()
    assert np.isclose(field.values[5, 2], float(spread.detach()))
    assert decoder_uncertainty(PullbackManifold(mlp()), everything(), *BOX) is None
    assert decoder_uncertainty(MetricManifold(lambda z: torch.eye(2).expand(len(z), 2, 2)), everything(), *BOX) is None


def test_scalar_curvature_of_the_whole_space() -> None:
    def sphere(z: Tensor) -> Tensor:
        s = z.square().sum(1, keepdim=True)
        return torch.cat([2 * z, s - 1], 1) / (1 + s)

    plane = Slice.of_dims(torch.zeros(3, 3), (0, 2))
    field = scalar_curvature(PullbackManifold(sphere), plane, (-1.0, 1.0), (-1.0, 1.0), side=5)
    assert field is not None
    assert np.allclose(field.values, 6.0, rtol=1e-8)
    assert scalar_curvature(PullbackManifold(sphere), everything(), *BOX) is None
    flat_nowhere = PullbackManifold(lambda z: 0 * z)
    assert scalar_curvature(flat_nowhere, plane, *BOX, side=3) is None
