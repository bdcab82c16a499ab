"""The living map of a latent space beside a server that solves exactly."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pullgeo.app.listen import check_installed, listen
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.stats.arguments import check_manifold
from pullgeo.stats.points import Points, as_points
from pullgeo.viz.classes import Labels
from pullgeo.viz.explore.bundle import bundle
from pullgeo.viz.explore.exact import Exact
from pullgeo.viz.explore.page import explorer_html
from pullgeo.viz.explore.payload import Plane, payload_of, slice_of
from pullgeo.viz.page import POLICY

_POLICY = f"{POLICY}; connect-src 'self'"


def serve(
    manifold: Manifold,
    latents: Points,
    labels: Labels | None = None,
    *,
    plane: Plane = None,
    image_shape: tuple[int, ...] | None = None,
    solver: Solver | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 2,
    limit: float | int = 10.0,
    announce: Callable[[str], None] = print,
    browser: bool = False,
    title: str = "Latent geometry",
) -> None:
    """Serve the living map of a latent space until Ctrl-C; geodesics on it are solved exactly, in all d dimensions.

    While a pointer moves, the page answers by itself; where it rests, the server does, with status and error estimate.
    The address that is announced has a random token, without which nothing is answered. Nothing is served from disk.

    Args:
        manifold: the latent space.
        latents: ``(n, d)``.
        labels: the class of each latent, if there are classes.
        plane: what is shown first of more than two dimensions, as for `explore`; others can be chosen on the page.
        image_shape: ``(height, width)`` or ``(channels, height, width)`` of what the decoder returns, seen along the
            geodesic; outputs of such a shape need not be told.
        solver: how geodesics are found exactly; `Newton()` if ``None``.
        host: the address to bind to. With another one than 127.0.0.1 whoever reaches this machine and knows the token
            can have geodesics solved.
        port: a free one is chosen if 0.
        threads: how many solves run at the same time.
        limit: seconds that a solve may take, before its page is told so.
        announce: is called with the address.
        browser: open it in a browser.
        title: above the map.

    Raises:
        DataError: Starlette or uvicorn is missing (``pip install "pullgeo[app]"``), or nothing can listen at the
            address.
        OptionError: port, threads or limit is out of range.
        ShapeError, DtypeError, NonFiniteError: the latents are no finite ``(n, d)``, or labels or image_shape do not
            fit.

    Cost: that of writing the page, and one solve for each question.
    """
    check_installed()
    check_manifold("serve", manifold)
    z = as_points("serve", latents)
    shown = slice_of(z.double().cpu(), plane)
    draw = partial(payload_of, manifold, z, labels, image_shape=image_shape, title=title)
    exact = Exact(manifold, shown, z, solver or Newton(), lambda plane: draw(plane=plane))
    listen(
        lambda: _page(draw(plane=shown)),
        exact,
        host=host,
        port=port,
        threads=threads,
        limit=limit,
        announce=announce,
        browser=browser,
    )


def _page(payload: dict[str, Any]) -> str:
    """The page: everything but the answers is inside it, and its policy lets it ask this server alone."""
    host = f"{bundle('hosts/server.js')}\nglobalThis.pullgeoHost = serverHost();"
    promise = "Where the pointer rests, the server beside it solves exactly."
    return explorer_html({"": payload}, title=payload["title"], policy=_POLICY, host=host, promise=promise)
