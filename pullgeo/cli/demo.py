"""``pullgeo demo``: the latent space of handwritten digits."""

from argparse import Namespace
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pullgeo import datasets, zoo
from pullgeo.cli.output import check_output, write_map
from pullgeo.curve.discrete import straight_line
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.viz.page import Section
from pullgeo.viz.report import latent_report

_SOLVER = Newton()
_SHOWN = 6
_PER_CLASS = 2

_LEAD = """\
A variational autoencoder learned to write 8 × 8 images of handwritten digits from two numbers each. Those two numbers
are a map of all digits it can write, but a distorted one: equal distances on it are not equal changes of the image.

Its decoder says how distorted. The Jacobian J of the decoder pulls the distance between images back to the map, as the
metric G = JᵀJ; with it, lengths, volumes and shortest paths on the map are those of the images.

Of the {total} geodesics between ten digits, each represented by its most central image, {converged} were found, in
{iterations} Newton steps or fewer. Shown are the {shown} that gain most on the straight line, no digit in more than two
of them.
"""


def run(arguments: Namespace) -> None:
    """Solve, choose, draw, write.

    Raises:
        DataError: the page cannot be written.
    """
    check_output(arguments.output)
    data, vae = datasets.digits(), zoo.digits_vae()
    z = vae.encode(data.images).detach()
    print(f"A variational autoencoder of handwritten digits: {len(z)} images of 8 x 8 pixels, two latents each.")
    manifold = PullbackManifold(vae.decoder)

    centres = central_points(z, data.labels).double()
    pairs = torch.tensor(list(combinations(range(len(centres)), 2)))
    z0, z1 = centres[pairs[:, 0]], centres[pairs[:, 1]]
    print(f"Geodesics between {len(pairs)} pairs of digits ...")
    everything = manifold.geodesic(z0, z1, _SOLVER)
    converged = int(everything.converged.sum())
    print(f"{converged} of {len(pairs)} converged, in at most {int(everything.iterations.max())} Newton steps.")

    straight = straight_line(z0, z1).length(manifold.in_double().decode)
    gain = torch.where(everything.converged, 1 - everything.length / straight, -torch.inf)
    chosen = most_gaining(gain, pairs)
    solution = manifold.geodesic(z0[chosen], z1[chosen], _SOLVER)
    names = [f"{first} → {second}" for first, second in pairs[chosen].tolist()]
    print(f"Drawing the {len(chosen)} that gain most on the straight line: {', '.join(names)}.")

    sections = latent_report(manifold, z, data.labels, solution, names=names, image_shape=data.image_shape)[1:]
    lead = _LEAD.format(
        total=len(pairs), converged=converged, iterations=int(everything.iterations.max()), shown=len(chosen)
    )
    write_map(
        manifold,
        z,
        data.labels,
        arguments.output,
        solution=solution,
        names=names,
        pictures=data.images,
        image_shape=data.image_shape,
        title="The shape of a latent space",
        sections=[Section("What this is", lead), *sections],
    )


def central_points(z: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "k d"]:
    """For each class the latent closest to the middle of the class, its coordinate-wise median."""
    central = []
    for label in labels.unique():
        members = z[labels == label]
        middle = members.median(0).values
        central.append(members[(members - middle).norm(dim=1).argmin()])
    return torch.stack(central)


def most_gaining(gain: Float[Tensor, " p"], pairs: Int[Tensor, "p 2"]) -> list[int]:
    """The pairs with the greatest gain, greatest first, such that every point has its share."""
    chosen: list[int] = []
    uses = [0] * (int(pairs.max()) + 1)
    for i in gain.argsort(descending=True).tolist():
        first, second = pairs[i].tolist()
        if len(chosen) < _SHOWN and max(uses[first], uses[second]) < _PER_CLASS:
            chosen.append(i)
            uses[first] += 1
            uses[second] += 1
    return chosen
