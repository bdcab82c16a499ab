"""Flatten a latent space: train with a geometric regulariser until straight lines are geodesics.

If the pulled-back metric were ``c I`` everywhere, the decoder would be a scaled isometry: Euclidean distances of
latents would be distances of pictures, straight lines would be shortest paths, and nothing of this library would be
needed any more. That can be asked for in training, as ``G(z)`` is differentiable in the weights:

    loss = VAE + w mean ‖G(z) / c - I‖²,    c the mean of tr G / d over the batch,

at latents of the data and between them (``z`` is a random point on the line between two latents). A surface of pictures
need not be flat, so the price is looked at too: the error of reconstruction.

What it shows, for held-out digits, mean over two seeds:

== ================ ================= ================== =============== ====== ============
w  condition number std of log volume geodesic / ruler ± line / geodesic error  5 neighbours
== ================ ================= ================== =============== ====== ============
0  3.06             0.571             19.3 %             1.0231          0.0372 0.722
3  1.36             0.249             6.3 %              1.0043          0.0386 0.739
30 1.08             0.068             1.7 %              1.0004          0.0411 0.703
== ================ ================= ================== =============== ====== ============

``geodesic / ruler ±`` is the relative spread, over 150 pairs, of the ratio between geodesic and Euclidean distance: 0
for an isometry. With w = 30 a ruler on the plane measures geodesics to less than two percent, and straight lines are
shortest paths. It is not free: the error of reconstruction rises by a tenth.

Run it with ``python examples/flatten_a_latent_space.py``; a path as first argument is where the figure goes. It takes
about a minute.

Source: Chen, Klushyn, Ferroni, Bayer, van der Smagt, *Learning flat latent manifolds with VAEs*, ICML 2020; Lee, Yoon,
Son, Park, *Regularized autoencoders for isometric representation learning*, ICLR 2022.
"""

import sys

import torch
from plotly.subplots import make_subplots
from sklearn.neighbors import KNeighborsClassifier

from pullgeo import PullbackManifold, datasets, viz, zoo

WEIGHTS = (0.0, 3.0, 30.0)
SEEDS = 2
EPOCHS = 40
COLUMNS = ("condition number", "std of log volume", "geodesic / ruler ±", "line / geodesic", "error", "5 neighbours")


def train(images: torch.Tensor, weight: float, seed: int) -> zoo.VAE:
    """A plane of latents, from scratch."""
    generator = torch.Generator().manual_seed(seed)
    vae = zoo.untrained_digits_vae(generator)
    manifold = PullbackManifold(vae.decoder)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    batch = 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=EPOCHS * -(-len(images) // batch))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=generator).split(batch):
            loss = vae.loss(images[rows], generator)
            if weight > 0:
                z = vae.encode(images[rows]).detach()
                other = z[torch.randperm(len(z), generator=generator)]
                G = manifold.metric_matrix(torch.lerp(z, other, torch.rand(len(z), 1, generator=generator)))
                scale = G.diagonal(dim1=1, dim2=2).mean()
                loss = loss + weight * (G / scale - torch.eye(2)).square().sum((1, 2)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return vae.eval().requires_grad_(False)


def measure(vae: zoo.VAE, seen: datasets.LabelledImages, held: datasets.LabelledImages) -> list[float]:
    """How flat the plane is, and what it costs; in the order of the columns."""
    manifold = PullbackManifold(vae.decoder)
    z = vae.encode(held.images)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    z0, z1 = z[order[:150]], z[order[150:300]]
    solution = manifold.geodesic(z0, z1)
    assert bool(solution.converged.all())
    ratio = solution.length / (z1 - z0).norm(dim=1)
    steps = torch.linspace(0, 1, 129)[:, None, None]
    straight = vae.decoder(torch.lerp(z0, z1, steps).flatten(0, 1)).unflatten(0, (129, -1)).diff(dim=0).norm(dim=2)
    known = KNeighborsClassifier(5).fit(vae.encode(seen.images).numpy(), seen.labels.numpy())
    return [
        float(manifold.condition_number(z).median()),
        float(manifold.log_volume(z).std()),
        float(ratio.std() / ratio.mean()),
        float((straight.sum(0) / solution.length).mean()),
        float((vae(held.images) - held.images).square().mean()),
        float(known.score(z.numpy(), held.labels.numpy())),
    ]


def main(figure: str | None = None) -> None:
    """Train with each weight, measure, compare."""
    torch.set_num_threads(1)
    seen, held = datasets.digits().split()
    models = {weight: [train(seen.images, weight, seed) for seed in range(SEEDS)] for weight in WEIGHTS}
    table = {
        weight: torch.tensor([measure(vae, seen, held) for vae in vaes]).mean(0) for weight, vaes in models.items()
    }
    print("w    " + "".join(f"{name:>19s}" for name in COLUMNS))
    for weight, row in table.items():
        print(f"{weight:<5.0f}" + "".join(f"{value:19.4f}" for value in row.tolist()))

    plain, flat = table[WEIGHTS[0]], table[WEIGHTS[-1]]
    assert flat[0] < 1.2 < 2 < plain[0], "the metric is near a multiple of the identity"
    assert flat[2] < 0.03 < 0.1 < plain[2], "a ruler measures geodesics"
    assert flat[3] < 1.001 < 1.01 < plain[3], "straight lines are shortest paths"
    assert plain[4] < flat[4] < 1.3 * plain[4], "flatness has its price, and it is bounded"

    if figure is not None:
        drawn = make_subplots(1, 2, subplot_titles=("as trained", f"flattened, w = {WEIGHTS[-1]:.0f}"))
        for column, weight in enumerate((WEIGHTS[0], WEIGHTS[-1]), 1):
            vae = models[weight][0]
            z = vae.encode(held.images)
            where = {"figure": drawn, "row": 1, "col": column}
            viz.indicatrices(PullbackManifold(vae.decoder), z, **where)
            viz.latent_points(z, held.labels, **where)
        drawn.update_layout(width=660, height=380, template=viz.template(), showlegend=False, margin={"t": 40})
        drawn.write_html(figure, config={"displayModeBar": False})


if __name__ == "__main__":
    main(*sys.argv[1:2])
