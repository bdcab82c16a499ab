"""Measures the costs that stand on docs/choosing.rst: ``python docs/choosing.py``, with one thread.

Times are processor times, so that other work on the machine matters little. Sections: ``metrics``, ``likelihoods``,
``decoders``, ``distances``; all of them if none is named.
"""

import sys
import time
import warnings
from collections.abc import Callable

import geoopt
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Gamma, Independent

from pullgeo import MetricManifold, Newton, PullbackManifold, datasets, pairwise_distances, zoo
from pullgeo.geodesic import GraphPath, LatticeSearch
from pullgeo.likelihood import (
    Bernoulli,
    BernoulliProbability,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    LogStd,
    Poisson,
    TorchDistribution,
)
from pullgeo.manifold import (
    ConformalMetric,
    Ensemble,
    KernelDensity,
    LandMetric,
    MeanAndDeviation,
    ProjectOnto,
    RBFDeviation,
)
from pullgeo.metric import Dense, Diagonal
from pullgeo.stats import NeighbourGraph, kneighbors_graph

PAIRS = 64
digits = datasets.digits()
vae = zoo.digits_vae()
decoder = vae.decoder
z = vae.encode(digits.images).detach()
order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
z0, z1 = z[order[:PAIRS]], z[order[PAIRS : 2 * PAIRS]]


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Processor seconds, the least of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def cost(name: str, manifold: PullbackManifold | MetricManifold, pairs: int = PAIRS) -> None:
    """Print the time that geodesics take; of few pairs where they take long, as if it were that of all."""
    solution = manifold.geodesic(z0[:pairs], z1[:pairs])
    taken = seconds(lambda: manifold.geodesic(z0[:pairs], z1[:pairs]), 3 if pairs == PAIRS else 1) * PAIRS / pairs
    steps = solution.iterations.double().mean()
    print(
        f"{name:34} {taken:7.3f} s  {taken / UNIT:6.1f} x  {int(solution.converged.sum())}/{pairs} converged, "
        f"{steps:.1f} steps, error {(solution.error_estimate / solution.length).median():.0e}",
        flush=True,
    )


class Shrunk(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return 0.08 * y


class Matrices(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return torch.diag_embed(1 / (y.flatten(1).square() + 0.1))


UNIT = seconds(lambda: PullbackManifold(decoder).geodesic(z0, z1))
logits = nn.Sequential(*list(decoder)[:-1])


def metrics() -> None:
    torch.manual_seed(0)
    root = torch.randn(64, 64, dtype=torch.float64)
    print(f"{PAIRS} geodesics of the digits decoder, {UNIT:.3f} s")
    cost("none", PullbackManifold(decoder))
    cost("Diagonal, constant", PullbackManifold(decoder, ambient=Diagonal(torch.rand(64).add(0.5))))
    cost("Dense, constant", PullbackManifold(decoder, ambient=Dense(root @ root.mT / 64)))
    cost("function to Diagonal", PullbackManifold(decoder, ambient=lambda y: Diagonal(1 / (y.flatten(1) ** 2 + 0.1))))
    cost("function to matrices", PullbackManifold(decoder, ambient=Matrices()))
    cost("geoopt.Sphere", PullbackManifold(nn.Sequential(decoder, ProjectOnto(geoopt.Sphere())), geoopt.Sphere()))
    ball = geoopt.PoincareBall()
    cost("geoopt.PoincareBall", PullbackManifold(nn.Sequential(decoder, Shrunk()), ball))
    features = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 32))
    cost("behind a feature network", PullbackManifold(nn.Sequential(decoder, features)))
    centres = z[order[:100]]
    cost("LandMetric, 100 centres", MetricManifold(LandMetric(centres, sigma=0.5, rho=1e-2)))
    cost("ConformalMetric, 100 centres", MetricManifold(ConformalMetric(KernelDensity(centres, 0.5), 1e-2, 1.0)))


def likelihoods() -> None:
    torch.manual_seed(0)
    scale = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 64))
    both = _Joined(decoder, scale)
    cost("Gaussian", PullbackManifold(decoder, ambient=Gaussian(0.1)))
    cost("Bernoulli (logits)", PullbackManifold(logits, ambient=Bernoulli()))
    cost("BernoulliProbability", PullbackManifold(decoder, ambient=BernoulliProbability()))
    classes = nn.Sequential(decoder, nn.Linear(64, 10))
    cost("Categorical, 10 classes", PullbackManifold(classes, ambient=Categorical()))
    cost("Poisson", PullbackManifold(logits, ambient=Poisson()))
    cost("HeteroscedasticGaussian", PullbackManifold(both, ambient=HeteroscedasticGaussian(LogStd())))
    cost('Gaussian, output="mean+logstd"', PullbackManifold(_Pair(decoder, scale), output="mean+logstd"))
    gamma = TorchDistribution(lambda eta: Independent(Gamma(eta[:, :8].exp(), eta[:, 8:].exp()), 1))
    few = nn.Sequential(decoder, nn.Linear(64, 16), nn.Tanh())
    cost("TorchDistribution, Gamma of 8", PullbackManifold(few, ambient=gamma), pairs=8)


class _Joined(nn.Module):
    def __init__(self, mean: nn.Module, scale: nn.Module) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.mean(x), self.scale(x)], 1)


class _Pair(_Joined):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(x), self.scale(x)


def decoders() -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        errors = (decoder(z) - digits.images).square()
    start = time.process_time()
    rbf = RBFDeviation.fit(z, errors, centers=64, floor=1e-2, generator=generator)
    print(f"RBFDeviation.fit: {time.process_time() - start:.1f} s")
    cost("MeanAndDeviation, RBF", PullbackManifold(MeanAndDeviation(decoder, rbf)))
    for samples in (3, 10):
        start = time.process_time()
        members = Ensemble.of_laplace(decoder, z, Gaussian(0.2), "diag", samples=samples, generator=generator)
        print(f"Ensemble.of_laplace, {samples}: {time.process_time() - start:.1f} s")
        cost(f"Ensemble of {samples}", PullbackManifold(members))
    dropped = nn.Sequential(*[part for layer in decoder for part in (layer, *_dropout(layer))])
    masks = Ensemble.of_dropout(dropped, z[:1], 10, generator)
    cost("Ensemble.of_dropout, 10", PullbackManifold(masks))


def _dropout(layer: nn.Module) -> list[nn.Module]:
    return [] if isinstance(layer, nn.Linear | nn.Sigmoid) else [nn.Dropout(0.1)]


def distances() -> None:
    manifold = PullbackManifold(decoder)
    noise = torch.Generator().manual_seed(1)

    def around(n: int) -> Tensor:
        chosen = torch.randint(len(z), (n,), generator=noise)
        return z[chosen] + 0.05 * torch.randn(n, 2, generator=noise)

    for n in (100, 300):
        points = z[order[:n]]
        start = time.process_time()
        pairwise_distances(manifold, points)
        print(f"exact, n = {n}: {time.process_time() - start:.1f} s", flush=True)
    for n in (100, 1000, 5000):
        points = z[order[:n]] if n <= len(z) else around(n)
        start = time.process_time()
        _, report = pairwise_distances(manifold, points, method=NeighbourGraph(min(50, n - 1)), return_status=True)
        print(f"graph, n = {n}: {time.process_time() - start:.1f} s; {report}", flush=True)
    for n in (100, 1000, 10_000):
        points = z[order[:n]] if n <= len(z) else around(n)
        start = time.process_time()
        _, report = kneighbors_graph(manifold, points, 15, return_report=True)
        print(f"kneighbors_graph, n = {n}: {time.process_time() - start:.1f} s; {report}", flush=True)


def solvers() -> None:
    manifold = PullbackManifold(decoder)
    best = np.full(PAIRS, np.inf)
    found = {}
    graph = Newton(starts=(LatticeSearch(), GraphPath(z[:300])))
    for name, solver in (("Newton()", Newton()), ("thorough", Newton(search="thorough")), ("with GraphPath", graph)):
        solution = manifold.geodesic(z0, z1, solver)
        found[name] = solution.length.detach().numpy()
        best = np.fmin(best, found[name])
        print(f"{name}: {seconds(lambda s=solver: manifold.geodesic(z0, z1, s)) / UNIT:.1f} x")
    for name, length in found.items():
        print(f"{name}: {(length > 1.001 * best).sum()} of {PAIRS} longer by a thousandth than the best")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sections = {f.__name__: f for f in (metrics, likelihoods, decoders, solvers, distances)}
    for section in sys.argv[1:] or sections:
        print(f"\n{section}")
        sections[section]()
