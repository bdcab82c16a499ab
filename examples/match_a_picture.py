"""Find the latent whose picture matches a target: plain Adam against Riemannian Adam, with geoopt.

A trained decoder f and a picture x are given, no encoder: the latent with the least ``‖f(z) - x‖²`` is to be found by
descent from a random place. The derivative says how the loss changes with the *coordinates* of the latent, and these
mean little: where the decoder is flat a long step does nothing, where it is steep a short one does too much. A manifold
of this library is a `geoopt.Manifold`, so geoopt's optimisers run on it as they are. They follow ``G⁻¹ ∂``, the
direction of steepest descent for steps whose length is measured in pictures.

Four optimisers start from the same 200 places with the same number of steps, each with the best of its learning rates:
gradient descent and Adam, plain and Riemannian. Then the same decoder gets other coordinates, ``z = A w`` with a
rotation and a stretch, and all have their learning rates chosen anew. The loss of the best latent on a fine grid is
what could be reached at all.

What it shows (mean loss; a latent counts as found if its loss is within 5 % of the grid's best):

============================ ================== ============== ============= ===================
optimiser                    coordinates        after 10 steps after 80      best latent found
============================ ================== ============== ============= ===================
gradient descent             as trained         5.01           4.17          34 %
Riemannian gradient descent  as trained         4.36           4.13          36 %
Adam                         as trained         5.07           3.04          59 %
Riemannian Adam              as trained         3.87           2.91          62 %
gradient descent             other coordinates  6.05           5.84          2 %
Riemannian gradient descent  other coordinates  4.36           4.13          36 %
Adam                         other coordinates  5.94           3.92          44 %
Riemannian Adam              other coordinates  3.87           2.91          62 %
============================ ================== ============== ============= ===================

In the coordinates that training has left behind, which the prior has made round, Riemannian Adam is *hardly better*
than plain Adam: what stops both is local minima, which no metric removes. What the metric buys is that coordinates do
not matter: its searches are the same in all of them, to rounding, with the same learning rates, and the others lose.

Run it with ``python examples/match_a_picture.py``; a path as first argument is where the figure goes. It takes half a
minute.
"""

import copy
import sys
from collections.abc import Callable

import geoopt
import plotly.graph_objects as go
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold, datasets, viz, zoo

STEPS = 80
PICTURES = 200
OPTIMIZERS = {
    "gradient descent": (torch.optim.SGD, (0.003, 0.01, 0.03, 0.1)),
    "Riemannian gradient descent": (geoopt.optim.RiemannianSGD, (0.1, 0.25, 0.5)),
    "Adam": (torch.optim.Adam, (0.1, 0.3, 0.5, 1.0)),
    "Riemannian Adam": (geoopt.optim.RiemannianAdam, (0.5, 1.0, 2.0)),
}


def descend(
    decoder: nn.Module, make: Callable[..., torch.optim.Optimizer], rate: float, start: Tensor, target: Tensor
) -> Tensor:
    """Losses ``(steps, b)`` of all searches, which run side by side."""
    is_plain = make.__module__.startswith("torch")
    z = geoopt.ManifoldParameter(start.clone(), geoopt.Euclidean() if is_plain else PullbackManifold(decoder))
    optimizer = make([z], lr=rate)
    losses = []
    for _ in range(STEPS):
        loss = (decoder(z) - target).square().sum(1)
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return torch.stack(losses)


def main(figure: str | None = None) -> None:
    """Search, compare, draw."""
    torch.set_num_threads(1)
    decoder = copy.deepcopy(zoo.digits_vae().decoder).double()
    target = datasets.digits().split()[1].images[:PICTURES].double()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(PICTURES, 2, generator=generator, dtype=torch.float64)
    axis = torch.linspace(-4, 4, 161, dtype=torch.float64)
    least = torch.cdist(target, decoder(torch.cartesian_prod(axis, axis))).square().amin(1)

    # w -> A w: a turn by 45° and a stretch by 5 and 1/5
    A = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5 @ torch.diag(start.new_tensor([5.0, 0.2]))
    change = nn.Linear(2, 2, bias=False).double().requires_grad_(False)
    change.weight.copy_(A)
    spaces = {
        "as trained": (decoder, start),
        "other coordinates": (nn.Sequential(change, decoder), torch.linalg.solve(A, start.mT).mT),
    }
    best: dict[tuple[str, str], Tensor] = {}
    print(f"{PICTURES} pictures; the best latent of a grid has a loss of {least.mean():.2f} in the mean\n")
    print(f"{'optimiser':28s} {'coordinates':18s} rate   after 10 steps   after {STEPS}   best latent found")
    for space, (network, begin) in spaces.items():
        for name, (make, rates) in OPTIMIZERS.items():
            runs = {rate: descend(network, make, rate, begin, target) for rate in rates}
            rate = min(runs, key=lambda rate: runs[rate][-1].mean().nan_to_num(torch.inf))
            losses = best[name, space] = runs[rate]
            found = (losses[-1] < 1.05 * least).double().mean()
            print(
                f"{name:28s} {space:18s} {rate:5.3g} {losses[10].mean():12.2f} {losses[-1].mean():13.2f} {found:13.0%}"
            )

    trained, changed = spaces
    for name in ("Riemannian gradient descent", "Riemannian Adam"):
        # the same search in any linear coordinates, but for rounding
        drift = (best[name, trained].mean(1) - best[name, changed].mean(1)).abs().max()
        print(f"{name}: the mean losses in both coordinates differ by at most {drift:.1e}")
        assert drift < 1e-6
    final = {key: float(losses[-1].mean()) for key, losses in best.items()}
    assert abs(final["Adam", trained] - final["Riemannian Adam", trained]) < 0.4, "no real difference was expected"
    assert final["Adam", changed] > final["Riemannian Adam", changed] + 0.5

    if figure is not None:
        drawn = go.Figure(layout={"template": viz.template(), "width": 640, "height": 480})
        for (name, space), losses in best.items():
            colour = viz.template().layout.colorway[list(OPTIMIZERS).index(name)]
            line = {"dash": "solid" if space == trained else "dot", "color": colour}
            drawn.add_scatter(y=losses.mean(1), name=f"{name}, {space}", line=line)
        drawn.update_layout(
            xaxis={"title": {"text": "step"}},
            yaxis={"title": {"text": "mean loss"}},
            legend={"orientation": "h", "y": -0.15},
        )
        drawn.write_html(figure, config={"displayModeBar": False})


if __name__ == "__main__":
    main(*sys.argv[1:2])
