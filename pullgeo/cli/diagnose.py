"""``pullgeo diagnose``: whether geometry is worth it for a user's own model."""

from argparse import Namespace

import torch

from pullgeo.cli.load import load_array, load_decoder, try_out
from pullgeo.cli.output import bars_shown
from pullgeo.errors import OptionError
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.stats.diagnosis import diagnose
from pullgeo.stats.points import as_points

_MOST_PAIRS = 10_000


def run(arguments: Namespace) -> None:
    """Load, measure, print.

    Raises:
        PullgeoError: something named on the command line cannot be used; the message says what and why.
    """
    if not 1 <= arguments.pairs <= _MOST_PAIRS:
        raise OptionError(f"--pairs: expected a number from 1 to {_MOST_PAIRS}, got {arguments.pairs}.")
    if arguments.seed < 0:
        raise OptionError(f"--seed: expected a whole number from 0 upwards, got {arguments.seed}.")
    solver = Newton(segments=arguments.segments)
    z = as_points(f"--latents {arguments.latents}", load_array("--latents", arguments.latents))
    manifold = PullbackManifold(load_decoder(arguments.decoder), output=arguments.decoder_output)
    try_out(manifold, z)
    generator = torch.Generator().manual_seed(arguments.seed)
    print(f"{len(z)} latents of dimension {z.shape[1]}. Distances are those between {manifold.measured}.")
    options = {"pairs": arguments.pairs, "solver": solver, "generator": generator, "progress": bars_shown()}
    print(diagnose(manifold, z, **options))
