"""Every public call that may take more than two seconds shows a bar with ``progress=True``, and nothing without."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pullgeo import Newton, PullbackManifold, solve, stats, viz
from pullgeo.geodesic import BoundaryValue, EnergyMinimizer, Georce
from pullgeo.likelihood import Gaussian
from pullgeo.manifold import Ensemble, FinslerSpace, MeanAndDeviation, RBFDeviation

GENERATOR = torch.Generator


def decoder(outputs: int = 5) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, outputs)).double()


@pytest.fixture(scope="module")
def manifold() -> PullbackManifold:
    torch.manual_seed(0)
    return PullbackManifold(decoder())


Z = torch.randn(11, 2, dtype=torch.float64, generator=GENERATOR().manual_seed(1))
LABELS = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
COARSE = Newton(segments=8)


def drawn() -> torch.Generator:
    return GENERATOR().manual_seed(0)


def finsler() -> FinslerSpace:
    return FinslerSpace(PullbackManifold(MeanAndDeviation(decoder(), nn.Sequential(decoder(), nn.Softplus()))))


CALLS: dict[str, tuple[Callable, Callable[[PullbackManifold, bool], object]]] = {
    "geodesic": (PullbackManifold.geodesic, lambda m, p: m.geodesic(Z[:3], Z[3:6], COARSE, progress=p)),
    "georce": (PullbackManifold.geodesic, lambda m, p: m.geodesic(Z[:3], Z[3:6], Georce(segments=8), progress=p)),
    "minimizer": (
        PullbackManifold.geodesic,
        lambda m, p: m.geodesic(Z[:3], Z[3:6], EnergyMinimizer(segments=8, max_steps=3), progress=p),
    ),
    "finsler": (FinslerSpace.geodesic, lambda m, p: finsler().geodesic(Z[:3], Z[3:6], COARSE, progress=p)),
    "solve": (solve, lambda m, p: solve(BoundaryValue(m, Z[:3], Z[3:6]), COARSE, progress=p)),
    "logarithm": (PullbackManifold.logarithm, lambda m, p: m.logarithm(Z[:3], Z[3:6], progress=p)),
    "random_walk": (PullbackManifold.random_walk, lambda m, p: m.random_walk(Z[:3], 3, 1e-3, drawn(), progress=p)),
    "sample": (
        PullbackManifold.sample,
        lambda m, p: m.sample(lambda z: -z.square().sum(1), Z[:3], 3, 1e-3, drawn(), progress=p),
    ),
    "of_laplace": (
        Ensemble.of_laplace,
        lambda m, p: Ensemble.of_laplace(
            nn.Linear(2, 70, dtype=torch.float64), Z, Gaussian(), "diag", generator=drawn(), progress=p
        ),
    ),
    "RBFDeviation.fit": (
        RBFDeviation.fit,
        lambda m, p: RBFDeviation.fit(Z, m.decode(Z).square(), floor=0.1, centers=3, generator=drawn(), progress=p),
    ),
    "RBFDeviation.select": (
        RBFDeviation.select,
        lambda m, p: RBFDeviation.select(
            Z, m.decode(Z).square(), floor=0.1, centers=(2, 3), spreads=(4.0,), generator=drawn(), progress=p
        ),
    ),
    "pairwise_distances": (
        stats.pairwise_distances,
        lambda m, p: stats.pairwise_distances(m, Z[:5], solver=COARSE, progress=p),
    ),
    "pairwise_distances, graph": (
        stats.pairwise_distances,
        lambda m, p: stats.pairwise_distances(m, Z, method=stats.NeighbourGraph(3, check_pairs=3), progress=p),
    ),
    "kneighbors_graph": (
        stats.kneighbors_graph,
        lambda m, p: stats.kneighbors_graph(m, Z, 3, check_pairs=3, progress=p),
    ),
    "frechet_mean": (stats.frechet_mean, lambda m, p: stats.frechet_mean(m, Z, groups=LABELS, progress=p)),
    "frechet_median": (stats.frechet_median, lambda m, p: stats.frechet_median(m, Z, groups=LABELS, progress=p)),
    "tangent_pca": (stats.tangent_pca, lambda m, p: stats.tangent_pca(m, Z[:5], progress=p)),
    "TangentPCA.project": (
        stats.TangentPCA.project,
        lambda m, p: stats.tangent_pca(m, Z[:5], base=Z[0]).project(Z[5:], progress=p),
    ),
    "geodesic_regression": (
        stats.geodesic_regression,
        lambda m, p: stats.geodesic_regression(m, torch.arange(3.0), Z[:3], max_steps=1, progress=p),
    ),
    "fit_land": (
        stats.fit_land,
        lambda m, p: stats.fit_land(m, 0.1 * Z, generator=drawn(), samples=7, max_steps=2, progress=p),
    ),
    "LAND.of": (
        stats.LAND.of,
        lambda m, p: stats.LAND.of(m, Z[0], 0.01 * torch.eye(2).double(), generator=drawn(), samples=7, progress=p),
    ),
    "diagnose": (stats.diagnose, lambda m, p: stats.diagnose(m, Z, pairs=5, progress=p)),
    "distance_uncertainty": (
        stats.distance_uncertainty,
        lambda m, p: stats.distance_uncertainty([decoder(), decoder()], Z[:3], Z[3:6], progress=p),
    ),
    "FrechetKMeans": (
        stats.FrechetKMeans,
        lambda m, p: stats.FrechetKMeans(m, 2, solver=COARSE, random_state=0, progress=p).fit(Z),
    ),
    "GeodesicKNeighbors": (
        stats.GeodesicKNeighbors,
        lambda m, p: stats.GeodesicKNeighbors(m, 2, solver=COARSE, progress=p).fit(Z, LABELS).predict(Z[:2]),
    ),
    "GeodesicNeighborsTransformer": (
        stats.GeodesicNeighborsTransformer,
        lambda m, p: stats.GeodesicNeighborsTransformer(m, 3, progress=p).fit_transform(Z),
    ),
    "PrincipalGeodesicAnalysis": (
        stats.PrincipalGeodesicAnalysis,
        lambda m, p: stats.PrincipalGeodesicAnalysis(m, progress=p).fit(Z[:5]),
    ),
    "latent_map": (viz.latent_map, lambda m, p: viz.latent_map(m, Z, resolution=7, progress=p)),
    "layer_map": (viz.layer_map, lambda m, p: viz.layer_map(m, Z, resolution=7, progress=p)),
    "indicatrices": (viz.indicatrices, lambda m, p: viz.indicatrices(m, Z, count=3, progress=p)),
    "embedded_surface": (viz.embedded_surface, lambda m, p: viz.embedded_surface(m, Z, resolution=7, progress=p)),
    "geodesic_fan": (viz.geodesic_fan, lambda m, p: viz.geodesic_fan(m, Z[0], 0.1, directions=5, progress=p)),
    "latent_report": (
        viz.latent_report,
        lambda m, p: viz.latent_report(m, Z, None, m.geodesic(Z[:2], Z[2:4], COARSE), progress=p),
    ),
}


@pytest.mark.quick(11)
@pytest.mark.parametrize("name", CALLS)
def test_a_bar_is_shown_where_it_is_asked_for(name: str, manifold: PullbackManifold, capsys: pytest.CaptureFixture):
    call, run = CALLS[name]
    keyword = inspect.signature(call).parameters["progress"]
    assert (keyword.kind, keyword.default) == (keyword.KEYWORD_ONLY, False)
    run(manifold, False)
    assert capsys.readouterr() == ("", "")
    run(manifold, True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "[00:00" in err


def test_a_page_is_drawn_with_a_bar(manifold: PullbackManifold, tmp_path: Path, capsys: pytest.CaptureFixture):
    viz.explore(manifold, Z, path=tmp_path / "map.html", progress=True)
    assert "explore: " in capsys.readouterr().err


def test_results_do_not_depend_on_the_bar(manifold: PullbackManifold):
    D, E = (stats.pairwise_distances(manifold, Z[:5], solver=COARSE, progress=p) for p in (False, True))
    np.testing.assert_array_equal(D, E)
