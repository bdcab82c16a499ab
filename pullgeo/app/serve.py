"""The living map of a latent space beside a server that solves exactly."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from pullgeo.app.listen import check_installed, listen
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.classes import Labels, classes_of
from pullgeo.viz.explore.exact import Exact
from pullgeo.viz.explore.slice import Slice


def serve(
    manifold: Manifold,
    latents: Points,
    labels: Labels | None = None,
    *,
    solver: Solver | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 2,
    limit: float = 10.0,
    announce: Callable[[str], None] = print,
    browser: bool = False,
    **options: Any,
) -> None:
    """Serve the living map of a latent space until Ctrl-C; geodesics on it are solved exactly, in all d dimensions.

    While a pointer moves, the page answers by itself; where it rests, the server does, with status and error estimate.
    The address that is announced has a random token, without which nothing is answered. Nothing is served from disk.

    Args:
        manifold: the latent space.
        latents: ``(n, d)``.
        labels: the class of each latent, if there are classes.
        solver: how geodesics are found exactly; `Newton()` if ``None``.
        host: the address to bind to. With another one than 127.0.0.1 whoever reaches this machine and knows the token
            can have geodesics solved.
        port: a free one is chosen if 0.
        threads: how many solves run at the same time.
        limit: seconds that a solve may take, before its page is told so.
        announce: is called with the address.
        browser: open it in a browser.
        **options: of the page.

    Raises:
        DataError: Starlette or uvicorn is missing (``pip install "pullgeo[app]"``), or nothing can listen at the
            address.
        OptionError: port, threads or limit is out of range.
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``, or labels do not fit.

    Cost: that of writing the page, and one solve for each question.
    """
    check_installed()
    check_manifold("serve", manifold)
    z = as_points("serve", latents)
    if labels is not None:
        classes_of("serve", labels, len(z))
    exact = Exact(manifold, Slice.of_dims(z), z, solver or Newton())
    listen(_page(), exact, host=host, port=port, threads=threads, limit=limit, announce=announce, browser=browser)


def _page() -> str:
    script = files("pullgeo.viz.explore").joinpath("front/hosts/server.js").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f"<title>Latent geometry</title></head><body><script>{script.replace('export function', 'function')}\n"
        f"globalThis.pullgeo = {{host: serverHost({json.dumps('solve')})}};</script></body></html>"
    )
