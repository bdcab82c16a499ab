"""``pullgeo report``: the latent space of a user's own model."""

from argparse import Namespace

import numpy as np

from pullgeo.cli.load import load_latents, load_manifold
from pullgeo.cli.output import bars_shown, check_output, write_map
from pullgeo.cli.pairs import choose_pairs, name_pairs
from pullgeo.errors import OptionError
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.viz.explore.slice import Slice
from pullgeo.viz.page import Section
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
    z, labels = load_latents(arguments)
    chosen = choose_pairs(z, labels, arguments.pairs, np.random.default_rng(arguments.seed))
    planes = {name: Slice.named(z.double(), name) for name in arguments.plane or ()}
    manifold = load_manifold(arguments, z)

    print(f"{len(z)} latents of dimension {z.shape[1]}. Solving for {len(chosen)} geodesics ...")
    solution = manifold.geodesic(z[chosen[:, 0]].double(), z[chosen[:, 1]].double(), solver, progress=bars_shown())
    converged = int(solution.converged.sum())
    print(f"{converged} of {len(chosen)} converged. Drawing ...")
    names = name_pairs(chosen, labels)
    sections = latent_report(
        manifold, z, labels, solution, names=names, image_shape=arguments.image_shape, progress=bars_shown()
    )[1:]
    lead = _LEAD.format(
        decoder=arguments.decoder,
        n=len(z),
        d=z.shape[1],
        pairs=len(chosen),
        seed=arguments.seed,
        converged=converged,
        what=manifold.measured,
    )
    write_map(
        manifold,
        z,
        labels,
        arguments.output,
        solution=solution,
        names=names,
        image_shape=arguments.image_shape,
        plane=planes or None,
        sections=[Section("What this is", lead), *sections],
    )
