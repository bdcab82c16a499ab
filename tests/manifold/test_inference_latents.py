"""Latents that a trainer predicts come from inference mode: geometry takes them as it takes their copies."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import MetricManifold, PullbackManifold, pairwise_distances, stats, viz
from pullgeo.curve import DiscreteCurve
from pullgeo.errors import GradModeError
from pullgeo.likelihood import Gaussian
from pullgeo.manifold import ConformalMetric, KernelDensity, LandMetric, Manifold, RHVAEMetric
from pullgeo.metric import Dense

Answer = Callable[[Manifold, Tensor, Tensor, Tensor], object]

ANSWERS: dict[str, Answer] = {
    "metric": lambda m, z, u, w: m.metric(z).dense(),
    "inner product": lambda m, z, u, w: m.inner(z, u, w),
    "volume": lambda m, z, u, w: m.log_volume(z),
    "connection": lambda m, z, u, w: m.connection(z, u, w),
    "Christoffel symbols": lambda m, z, u, w: m.christoffel(z),
    "gradient": lambda m, z, u, w: m.egrad2rgrad(z, u),
    "scalar curvature": lambda m, z, u, w: m.scalar_curvature(z),
    "sectional curvature": lambda m, z, u, w: m.sectional_curvature(z, u, w),
    "Laplacian": lambda m, z, u, w: m.laplace_beltrami(lambda x: x.square().sum(1), z),
    "exponential": lambda m, z, u, w: m.expmap(z, 0.2 * u),
    "transport with it": lambda m, z, u, w: m.expmap_transp(z, 0.2 * u, w)[1],
    "transport along a curve": lambda m, z, u, w: m.parallel_transport(
        DiscreteCurve(torch.stack([z, z + 0.1 * u, z + 0.2 * u], 1)), w
    ),
    "Jacobi field": lambda m, z, u, w: m.exp_differential(z, 0.2 * u, w),
    "logarithm": lambda m, z, u, w: m.logmap(z[:1], z[1:2]),
    "distance": lambda m, z, u, w: m.dist(z[:1], z[1:2]),
    "curve": lambda m, z, u, w: m.geodesic(z[0], z[1]).curve(torch.linspace(0, 1, 3, dtype=z.dtype)),
    "random walk": lambda m, z, u, w: m.random_walk(z, 2, 1e-3, torch.Generator().manual_seed(0)),
    "mean": lambda m, z, u, w: stats.frechet_mean(m, z).point,
}


def predicted(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def decoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 5)).double()


def of_weights() -> MetricManifold:
    linear = decoder()
    return MetricManifold(lambda z: (1 + linear(z).square().sum(1))[:, None, None] * torch.eye(2, dtype=z.dtype))


MANIFOLDS: dict[str, Callable[[], Manifold]] = {
    "module": lambda: PullbackManifold(decoder()),
    "bound method": lambda: PullbackManifold(decoder().forward),
    "function": lambda: (lambda f: PullbackManifold(lambda z: f(z)))(decoder()),
    "given metric": of_weights,
}


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z, u, w = 0.5 * torch.randn(3, 3, 2, dtype=torch.float64, generator=generator)
    return z, u, w


@pytest.mark.quick(24)
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_predicted_latents_give_what_their_copies_give(manifold: str, answer: str) -> None:
    space, arguments = MANIFOLDS[manifold](), batch()
    got, expected = (ANSWERS[answer](space, *a) for a in (map(predicted, arguments), arguments))
    assert isinstance(got, Tensor)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert bool(torch.isfinite(got).all())


def test_metrics_made_of_predicted_data() -> None:
    z, u, _ = batch()
    factors = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    for make in (
        lambda data: LandMetric(data, sigma=0.5, rho=0.1),
        lambda data: RHVAEMetric(data, predicted(factors) if data.is_inference() else factors, 0.5, 0.1),
        lambda data: ConformalMetric(KernelDensity(data, 0.3), 0.1),
    ):
        got, expected = (MetricManifold(make(data)).expmap(z, 0.1 * u) for data in (predicted(z), z))
        torch.testing.assert_close(got, expected)


def test_ambient_metrics_made_in_inference_mode() -> None:
    z, u, _ = batch()
    matrix, sigma = torch.diag(torch.arange(1.0, 6.0)).double(), torch.arange(1.0, 6.0).double()
    for make in (lambda t: Dense(t[0]), lambda t: Gaussian(t[1])):
        got, expected = (
            PullbackManifold(decoder(), make(t)).expmap(z, 0.1 * u)
            for t in ((predicted(matrix), predicted(sigma)), (matrix, sigma))
        )
        torch.testing.assert_close(got, expected)


def test_pictures_and_distances_of_predicted_latents() -> None:
    manifold, z = PullbackManifold(decoder()), batch()[0]
    distances = pairwise_distances(manifold, predicted(z))
    assert (distances == pairwise_distances(manifold, z)).all()
    labels = predicted(torch.tensor([0, 1, 1]))
    drawn = viz.latent_map(manifold, predicted(z), labels=labels, resolution=5)
    assert drawn.to_json() == viz.latent_map(manifold, z, labels=labels.clone(), resolution=5).to_json()


def test_gradients_flow_to_weights() -> None:
    gradients = []
    for z in (predicted(batch()[0]), batch()[0]):
        net = decoder()
        PullbackManifold(net).dist(z[:1], z[1:2]).sum().backward()
        gradients.append(net[0].weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("answer", ["metric", "exponential", "distance", "Christoffel symbols"])
def test_decoders_made_in_inference_mode_are_refused_by_name(answer: str) -> None:
    with torch.inference_mode():
        net = decoder()
    with pytest.raises(GradModeError, match=r"copy\.deepcopy\(module\)"):
        ANSWERS[answer](PullbackManifold(net), *batch())
