"""Time series: nearest neighbours in a latent plane, on two sets of the UCR archive.

``aeon`` ships a few sets of the UCR archive with their official splits. On *GunPoint* (a hand that draws a gun, or only
points) and *ArrowHead* (outlines of three kinds of arrowheads) small variational autoencoders with two latents are
trained on all series, without labels; then each series of the official test part takes the label of its nearest
neighbours in the training part, by three distances:

* Euclidean between the series themselves, which is the archive's own baseline: with one neighbour its published
  accuracies are 0.913 and 0.800, and the same numbers must come out here;
* Euclidean between latents;
* geodesic, in the metric of the decoded series: shortest paths over a graph with fifty neighbours.

What it shows, accuracy on the official test parts, mean and standard deviation over six seeds:

=================== ============== ==============
distance            GunPoint       ArrowHead
=================== ============== ==============
series, Euclidean   0.913          0.800
latents, Euclidean  0.801 ± 0.011  0.702 ± 0.010
geodesic            0.802 ± 0.008  0.692 ± 0.015
=================== ============== ==============

*Geodesics do not help here* (p = 1.0 and 0.4, Wilcoxon over seeds). What is lost is lost by going to two latents, and
the metric does not bring it back.

Run it with ``python examples/time_series.py`` after ``pip install aeon``; a path as first argument is where the figure
goes. It takes a minute.

Source: Dau et al., *The UCR time series archive*, IEEE/CAA Journal of Automatica Sinica 2019.
"""

import sys
import warnings

import numpy as np
import plotly.graph_objects as go
import torch
from scipy.spatial.distance import cdist
from scipy.stats import wilcoxon
from torch import Tensor, nn

from pullgeo import PullbackManifold, pairwise_distances, viz
from pullgeo.stats import GeodesicKNeighbors, NeighbourGraph

SEEDS = 6
PUBLISHED = {"GunPoint": 0.913, "ArrowHead": 0.800}
NAMES = ("series, Euclidean", "latents, Euclidean", "geodesic")


def series(name: str) -> tuple[Tensor, np.ndarray, int]:
    """All series ``(n, time)``, their labels, and how many of them, the first, are for training."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of aeon about optional packages
        from aeon.datasets import load_classification

        (x, y), (test_x, test_y) = (load_classification(name, split=split) for split in ("train", "test"))
    return torch.from_numpy(np.concatenate([x, test_x])[:, 0]).float(), np.concatenate([y, test_y]), len(x)


def train(x: Tensor, seed: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder, from scratch, on all series at once."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(x.shape[1], 64), nn.SiLU(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, x.shape[1]))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    for _ in range(800):
        mean, log_variance = encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        loss = 10 * (decoder(z) - x).square().sum(1).mean() / 2 + divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder.requires_grad_(False), decoder.requires_grad_(False)


def accuracy(D: np.ndarray, y: np.ndarray, known: int, neighbours: int = 1) -> float:
    """Of the test series, by their neighbours among the training series."""
    model = GeodesicKNeighbors("precomputed", neighbours).fit(D[:known, :known], y[:known])
    return float(model.score(D[known:, :known], y[known:]))


def main(figure: str | None = None) -> None:
    """Train, classify, compare."""
    torch.set_num_threads(1)
    table = {}
    for name, published in PUBLISHED.items():
        x, y, known = series(name)
        raw = cdist(x.double().numpy(), x.double().numpy())
        assert abs(accuracy(raw, y, known) - published) < 1e-3, "the archive's own number"
        scores = np.zeros((SEEDS, len(NAMES)))
        for seed in range(SEEDS):
            encoder, decoder = train(x, seed)
            z = encoder(x)[:, :2]
            flat = cdist(z.double().numpy(), z.double().numpy())
            curved = pairwise_distances(PullbackManifold(decoder), z, method=NeighbourGraph(neighbours=50))
            scores[seed] = [accuracy(D, y, known) for D in (raw, flat, curved)]
        table[name] = scores
        print(f"{name}: accuracy of the nearest neighbour, mean ± standard deviation of {SEEDS} seeds")
        for way, values in zip(NAMES, scores.T, strict=True):
            print(f"    {way:20s} {values.mean():.3f} ± {values.std(ddof=1):.3f}")
        difference = scores[:, 2] - scores[:, 1]
        print(f"    geodesic minus Euclidean latents: {difference.mean():+.3f}, p = {wilcoxon(difference).pvalue:.2f}")
        raw_score, flat_score, curved_score = scores.mean(0)
        assert abs(curved_score - flat_score) < 0.03, "geodesics were not expected to matter"
        assert raw_score > max(flat_score, curved_score) + 0.05, "two latents lose what the series know"

    if figure is not None:
        drawn = go.Figure(layout={"template": viz.template(), "width": 560, "height": 380})
        for k, way in enumerate(NAMES):
            means = [scores[:, k].mean() for scores in table.values()]
            error = {"type": "data", "array": [scores[:, k].std(ddof=1) for scores in table.values()]}
            drawn.add_bar(x=list(table), y=means, error_y=error, name=way)
        drawn.update_layout(yaxis={"range": [0, 1], "title": {"text": "accuracy"}}, legend={"orientation": "h"})
        drawn.write_html(figure, config={"displayModeBar": False})


if __name__ == "__main__":
    main(*sys.argv[1:2])
