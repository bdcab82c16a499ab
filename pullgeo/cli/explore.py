"""``pullgeo explore``: the living map of a user's own model, beside a server that solves exactly."""

from argparse import Namespace

from pullgeo.app.listen import check_installed
from pullgeo.app.serve import serve
from pullgeo.cli.load import load_latents, load_manifold
from pullgeo.geodesic.solvers.newton import Newton


def run(arguments: Namespace) -> None:
    """Load, then serve until Ctrl-C.

    Raises:
        PullgeoError: something named on the command line cannot be used; the message says what and why.
    """
    check_installed()
    solver = Newton(segments=arguments.segments)
    z, labels = load_latents(arguments)
    manifold = load_manifold(arguments, z)
    print(f"{len(z)} latents of dimension {z.shape[1]}. Drawing the map ...")
    serve(
        manifold,
        z,
        labels,
        plane=arguments.plane,
        image_shape=arguments.image_shape,
        solver=solver,
        host=arguments.host,
        port=arguments.port,
        threads=arguments.threads,
        limit=arguments.time_limit,
        announce=_announce,
        browser=not arguments.no_browser,
    )
    print("Stopped.")


def _announce(address: str) -> None:
    print(f"The map is at {address} until you press Ctrl-C.", flush=True)
