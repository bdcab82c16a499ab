"""A page and its exact answers at an address of this machine, until it is interrupted."""

import logging
import os
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import import_module
from threading import Thread
from types import FrameType

from pullgeo.errors import DataError, OptionError
from pullgeo.viz.explore.exact import Exact

_INSTALL = 'pip install "pullgeo[app]"'


def listen(
    draw: Callable[[], str],
    exact: Exact,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int = 2,
    limit: float | int = 10.0,
    announce: Callable[[str], None] = print,
    browser: bool = False,
) -> None:
    """Serve a page until Ctrl-C.

    The address has a random token, without which nothing is answered. Nothing is served from disk.

    Args:
        draw: makes its HTML, which asks ``solve`` beside it, see `pullgeo.app.application`; called once the address is
            had, since it may take a while.
        exact: answers its questions.
        host: the address to bind to; with another one than 127.0.0.1 whoever reaches this machine and knows the token
            can have geodesics solved.
        port: a free one is chosen if 0.
        threads: how many solves run at the same time.
        limit: seconds that a solve may take.
        announce: is told the address once it answers.
        browser: open it there.

    Raises:
        DataError: Starlette or uvicorn is missing, or the address cannot be had.
        OptionError: port, threads or limit is out of range.
    """
    check_installed()
    if not 0 <= port <= 65535:
        raise OptionError(f"--port: expected a number from 0 (any that is free) to 65535, got {port}.")
    import uvicorn

    from pullgeo.app.pool import Pool
    from pullgeo.app.server import application

    with _bound(host, port) as bound, closing(Pool(threads, limit)) as pool:
        token = secrets.token_urlsafe(24)
        page = draw()

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                # those who wait get their answer, so that nothing holds up the end; not here, between two lines of code
                Thread(target=pool.close).start()
                super().handle_exit(sig, frame)

        config = uvicorn.Config(
            application(page, exact, pool, token, host),
            log_level=logging.ERROR,
            access_log=False,  # it would hold the token
            server_header=False,
            timeout_graceful_shutdown=3,
            ws="none",
        )
        address = f"http://{_in_url(host)}:{bound.getsockname()[1]}/{token}/"
        bound.listen()  # from here on nobody is turned away
        announce(address)
        if browser:
            webbrowser.open(address)
        server = Server(config)
        # an interrupt is the way to end it; one that comes before the server listens to signals itself, while its loop
        # is made, would leave a coroutine behind that nobody awaits
        with suppress(KeyboardInterrupt), server.capture_signals():
            server.run(sockets=[bound])


def check_installed() -> None:
    """Raise `DataError` with the line to install them where the server's packages are missing."""
    for name in ("starlette", "uvicorn"):
        try:
            import_module(name)
        except ImportError as error:
            raise DataError(f"the server needs {name}, which is not installed. Run: {_INSTALL}") from error


def _bound(host: str, port: int) -> socket.socket:
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        if os.name == "posix":  # elsewhere it would let two programs share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        raise DataError(
            f"--host {host} --port {port}: cannot listen there: {error}. Leave out --port to have a free one chosen."
        ) from error
    return bound


def _in_url(host: str) -> str:
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"[{shown}]" if ":" in shown else shown
