"""Can latent distances be trusted? Distances between the same 100 pairs of images across retrained models.

A variational autoencoder of MNIST's digits 0, 5 and 7 is trained again and again, each time with another seed. If a
distance says something about the images, retrained models agree on it. Two numbers measure this:

* the coefficient of variation (CV) of a pair's distance across seeds, averaged over pairs: what the literature reports.
  A constant that is added to all distances lowers it, whether or not models agree on anything;
* the rank correlation (Spearman) of the 100 distances between two seeds, averaged over all pairs of seeds. Nothing that
  is added to all distances, and no rescaling, raises it.

What is compared: the Euclidean distance of latents; geodesic distances of the mean decoder, of the expected metric of
an ensemble (every member is the same all along the curve), of a decoder with a variance that grows away from the data
(radial basis functions), and Fisher-Rao distances of Bernoulli pixels; and the lengths of the literature on ensembles,
where every node of a curve is decoded by a member drawn anew. Those contain the members' variance once a node: a floor
that grows with the number of segments T.

One training makes ten decoders that share an encoder: at every step each image is decoded by all of them. Ensembles of
1, 2, 3 and 5 are the first of the ten. So all columns of one seed share their latents.

``python examples/trust_distances.py --seeds 10 --out study`` trains and measures, keeps every seed in the folder, and
goes on where it stopped; the table is in ``trust_distances.csv`` beside this file. ``--quick`` is a small version that
checks the claim about the floor in less than two minutes.

Source: Syrota, Moreno-Muñoz, Hauberg, *Decoder ensembling for learned latent geometries*, 2024.
"""

import argparse
import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn

from pullgeo import Newton, PullbackManifold, datasets
from pullgeo.geodesic import StraightLine
from pullgeo.likelihood import Bernoulli
from pullgeo.manifold import Ensemble, MeanAndDeviation, RBFDeviation
from pullgeo.stats import distance_uncertainty
from pullgeo.stats.uncertainty import rank_correlation

DIGITS = (0, 5, 7)
PAIRS = 100
SIZES = (1, 2, 3, 5, 10)
SEGMENTS = (16, 64, 256)
HIDDEN = (64, 128)
BATCH = 100
SOLVER = Newton(segments=16, starts=(StraightLine(),), tol=1e-5)


class EnsembleVAE(nn.Module):
    """One dense encoder, and several dense decoders to the logits of Bernoulli pixels."""

    def __init__(self, decoders: int) -> None:
        super().__init__()
        low, high = HIDDEN
        self.encoder = nn.Sequential(
            nn.Linear(784, high), nn.SiLU(), nn.Linear(high, low), nn.SiLU(), nn.Linear(low, 4)
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(2, low), nn.SiLU(), nn.Linear(low, high), nn.SiLU(), nn.Linear(high, 784))
            for _ in range(decoders)
        )

    def encode(self, x: Tensor) -> Tensor:
        """Means of the latents."""
        return self.encoder(x)[:, :2]

    def loss(self, x: Tensor) -> Tensor:
        """Negative evidence in nats an image, averaged over the decoders."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        fit = sum(
            nn.functional.binary_cross_entropy_with_logits(f(z), x, reduction="none").sum(1).mean()
            for f in self.decoders
        )
        return fit / len(self.decoders) + kl


def images() -> Tensor:
    """The 1500 images, ``(1500, 784)``."""
    data = datasets.mnist5000()
    return data.images[torch.isin(data.labels, torch.tensor(DIGITS))].flatten(1)


def train(seed: int, x: Tensor, decoders: int, epochs: int) -> EnsembleVAE:
    """One model from scratch. The seed decides first weights, order of images and noise."""
    torch.manual_seed(seed)
    vae = EnsembleVAE(decoders)
    optimizer = torch.optim.Adam(vae.parameters(), lr=2e-3)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            loss = vae.loss(x[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return vae.eval().requires_grad_(False)


def measure(vae: EnsembleVAE, x: Tensor, pairs: Tensor, seed: int) -> dict[str, Tensor]:
    """All distances of the pairs, one column for each way to measure; NaN where a geodesic did not converge."""
    z = vae.encode(x)
    z0, z1 = z[pairs[:, 0]], z[pairs[:, 1]]
    means = [nn.Sequential(logits, nn.Sigmoid()) for logits in vae.decoders]
    found = {"Euclidean latent distance": (z1 - z0).norm(dim=1)}

    def distance(manifold: PullbackManifold) -> Tensor:
        solution = manifold.geodesic(z0, z1, SOLVER)
        return torch.where(solution.converged, solution.length, torch.nan)

    found["mean decoder"] = distance(PullbackManifold(means[0]))
    for size in (size for size in SIZES if 1 < size <= len(means)):
        result = distance_uncertainty(means[:size], z0, z1, segments=16, solver=SOLVER)
        found[f"expected metric, {size} members"] = result.expected
        found[f"independent, {size} members, 16 segments"] = result.independent
    curve = PullbackManifold(Ensemble(means)).geodesic(z0, z1, SOLVER).curve
    for segments in SEGMENTS:
        found[f"independent along the expected metric's geodesic, {segments} segments"] = node_by_node(
            means, curve.resample(segments).nodes
        )
    errors = (x - means[0](z)).square()
    deviation = RBFDeviation.fit(z, errors, centers=64, floor=4.0, generator=torch.Generator().manual_seed(seed))
    found["RBF variance"] = distance(PullbackManifold(MeanAndDeviation(means[0], deviation.requires_grad_(False))))
    found["Fisher-Rao Bernoulli"] = distance(PullbackManifold(vae.decoders[0], Bernoulli()))
    return {name: values.double() for name, values in found.items()}


def node_by_node(means: Sequence[nn.Module], nodes: Tensor) -> Tensor:
    """``√E`` of given curves with members drawn independently at each node: ``E = T Σ |Δm|² + V_i + V_{i+1}``."""
    lengths = []
    for curve in nodes:
        images = torch.stack([f(curve) for f in means]).double()
        mean = images.mean(0)
        variance = (images - mean).square().sum(2).mean(0)
        chords = mean.diff(dim=0).square().sum(1) + variance[1:] + variance[:-1]
        lengths.append((len(chords) * chords.sum()).sqrt())
    return torch.stack(lengths)


def table(seeds: Sequence[dict[str, Tensor]]) -> list[dict[str, str]]:
    """Agreement across seeds for each way to measure, over the pairs that every seed solved."""
    rows = []
    for name in seeds[0]:
        values = torch.stack([found[name] for found in seeds])
        known = ~values.isnan().any(0)
        values = values[:, known]
        ranks = rank_correlation(values)
        pairs = torch.stack([ranks[i, j] for i, j in combinations(range(len(seeds)), 2)])
        cv = (values.std(0) / values.mean(0)).mean()
        # one factor for each seed, as the unit of latents or outputs is no part of the question
        rescaled = values / values.mean(1, keepdim=True)
        rows.append(
            {
                "distance": name,
                "mean": f"{values.mean():.3g}",
                "cv": f"{cv:.3f}",
                "cv, each seed rescaled to mean 1": f"{(rescaled.std(0) / rescaled.mean(0)).mean():.3f}",
                "rank correlation": f"{pairs.mean():.3f}",
                "pairs": str(int(known.sum())),
            }
        )
    return rows


def study(seeds: int, decoders: int, epochs: int, pairs: int, folder: Path | None) -> list[dict[str, Tensor]]:
    """Train and measure each seed, unless the folder holds it."""
    x = images()
    choice = torch.Generator().manual_seed(0)
    chosen = torch.stack([torch.randperm(len(x), generator=choice)[:2] for _ in range(pairs)])
    done = []
    for seed in range(seeds):
        file = None if folder is None else folder / f"seed{seed}.pt"
        if file is not None and file.exists():
            done.append(torch.load(file))
            continue
        vae = train(seed, x, decoders, epochs)
        with torch.no_grad():
            error = (vae.decoders[0](vae.encode(x)).sigmoid() - x).square().mean()
        found = measure(vae, x, chosen, seed)
        print(f"seed {seed}: mean squared error a pixel {error:.4f}", flush=True)
        if file is not None:
            torch.save(found, file)
        done.append(found)
    return done


def check_floor(rows: Sequence[dict[str, str]]) -> None:
    """The claim: lengths with independent members grow with the number of segments, as a floor does."""
    lengths = [float(row["mean"]) for row in rows if row["distance"].startswith("independent along")]
    assert lengths[1] > 2 * lengths[0], lengths
    # four times the segments, at least three times the length: most of it is floor
    assert lengths[2] > 3 * lengths[1], lengths


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, print the table, and write it."""
    parser = argparse.ArgumentParser(description="Agreement of latent distances across retrained models.")
    parser.add_argument("--seeds", type=int, default=10, help="models to train (default: 10)")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the images (default: 60)")
    parser.add_argument("--out", type=Path, help="folder that keeps the distances of each seed")
    parser.add_argument("--table", type=Path, help="CSV file to write")
    parser.add_argument("--quick", action="store_true", help="two seeds of three decoders, 12 pairs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    if options.quick:
        found = study(2, 3, 10, 12, options.out)
    else:
        found = study(options.seeds, max(SIZES), options.epochs, PAIRS, options.out)
    rows = table(found)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    check_floor(rows)
    if options.table is not None:
        with options.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
