"""``pullgeo report``: the latent space of a user's own model."""

from argparse import Namespace

import numpy as np

from pullgeo.cli.load import load_array, load_decoder, try_out
from pullgeo.cli.output import check_output, write_page
from pullgeo.cli.pairs import choose_pairs, name_pairs
from pullgeo.errors import OptionError, ShapeError
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.stats.points import as_points
from pullgeo.viz.report import latent_report

_MOST_PAIRS = 100

_LEAD = """\
The latent space of {decoder}: {n} latents of dimension {d}, and {pairs} geodesics between latents drawn at random
(seed {seed}), of which {converged} converged. Distances are those between {what}.
"""


def run(arguments: Namespace) -> None:
    """Load, solve, draw, write.

    Raises:
        PullgeoError: something named on the command line cannot be used; the message says what and why.
    """
    check_output(arguments.output)
    if not 1 <= arguments.pairs <= _MOST_PAIRS:
        raise OptionError(f"--pairs: expected a number from 1 to {_MOST_PAIRS}, got {arguments.pairs}.")
    if arguments.seed < 0:
        raise OptionError(f"--seed: expected a whole number from 0 upwards, got {arguments.seed}.")
    solver = Newton(segments=arguments.segments)
    z = as_points(f"--latents {arguments.latents}", load_array("--latents", arguments.latents))
    if min(z.shape) < 2:
        raise ShapeError(
            f"--latents: expected an array (n, d) with n and d at least 2, got {tuple(z.shape)} in {arguments.latents}."
        )
    labels = None if arguments.labels is None else load_array("--labels", arguments.labels)
    if labels is not None and labels.shape != (len(z),):
        raise ShapeError(
            f"--labels: expected an array of shape ({len(z)},), one class for each latent, got {labels.shape} in "
            f"{arguments.labels}."
        )
    chosen = choose_pairs(z, labels, arguments.pairs, np.random.default_rng(arguments.seed))
    decoder = load_decoder(arguments.decoder)
    manifold = PullbackManifold(decoder, output=arguments.decoder_output)
    try_out(manifold, z)

    print(f"{len(z)} latents of dimension {z.shape[1]}. Solving for {len(chosen)} geodesics ...")
    solution = manifold.geodesic(z[chosen[:, 0]].double(), z[chosen[:, 1]].double(), solver)
    converged = int(solution.converged.sum())
    print(f"{converged} of {len(chosen)} converged. Drawing ...")
    names = name_pairs(chosen, labels)
    sections = latent_report(manifold, z, labels, solution, names=names, image_shape=arguments.image_shape)
    lead = _LEAD.format(
        decoder=arguments.decoder,
        n=len(z),
        d=z.shape[1],
        pairs=len(chosen),
        seed=arguments.seed,
        converged=converged,
        what=manifold.measured,
    )
    write_page(sections, arguments.output, title="Latent geometry", lead=lead)
