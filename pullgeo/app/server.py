"""The address of a page and of the exact answers that it asks for."""

import asyncio
import hmac
import ipaddress
import json
import socket
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pullgeo.app.pool import Pool
from pullgeo.errors import OptionError, PullgeoError
from pullgeo.viz.explore.exact import Exact, refusal

MAX_BODY = 2**18
"""Bytes of a request that are read; a lasso around 500 latents has some thousand."""

_DRAINED = 2**26
_PATIENCE = 10.0
_DRAWING = 300.0
"""Seconds that the map of another plane may take."""
_LONGEST_CLIENT = 64

_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def application(page: str, exact: Exact, pool: Pool, token: str, host: str = "127.0.0.1") -> ASGIApp:
    """The server, as an ASGI application: ``GET /<token>/`` is the page, ``POST /<token>/solve`` a question.

    A question is ``{"client": ..., "kind": ..., ...}``, see `Exact.task`; ``client`` is any name that a page gives
    itself. Every answer but the page is JSON with ``status`` and ``text``, whatever went wrong. The HTTP status is 200
    where a solve was tried, whether it converged or not; 400 where the question makes no sense, 403 without the token,
    from another origin or under another name of the host, 413 where it is longer than 256 kB, 503 where too many wait.

    Args:
        page: the HTML to serve.
        exact: answers.
        pool: where they are solved.
        token: what the address must hold; compared in constant time.
        host: the address that the server is bound to. One that others can reach is answered under any IP address and
            the names of this machine; the loopback addresses under those alone, which a page from elsewhere that
            lets its own name point here does not use.
    """

    async def show(request: Request) -> Response:
        return HTMLResponse(page)

    async def solve(request: Request) -> Response:
        body = await _body(request)
        try:
            message = json.loads(body, parse_constant=_refuse_constant)
            client = message.get("client") if isinstance(message, dict) else None
            if not isinstance(client, str) or not 1 <= len(client) <= _LONGEST_CLIENT:
                raise OptionError(f"client must be a name of 1 to {_LONGEST_CLIENT} characters.")
            task = exact.task(message)
        except (ValueError, RecursionError) as error:
            return JSONResponse(_reason("REFUSED", _what(error)), 400)
        limit = _DRAWING if message["kind"] == "map" else None
        answer = await asyncio.wrap_future(pool.submit(client, task, limit))
        return JSONResponse(answer, 503 if answer["status"] in ("BUSY", "CLOSED") else 200)

    async def refuse(request: Request, error: Exception) -> Response:
        code = error.status_code if isinstance(error, HTTPException) else 500
        text = error.detail if isinstance(error, HTTPException) else refusal(error)["text"]
        return JSONResponse(_reason("REFUSED", text), code)

    async def close(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody is there to read it

    app = Starlette(
        routes=[Route("/", show, methods=["GET"]), Route("/solve", solve, methods=["POST"])],
        exception_handlers={HTTPException: refuse, ClientDisconnect: close, Exception: refuse},
    )
    return _Gate(app, token, host)


class _Gate:
    """Lets a request pass that has the token, comes from the server's own page and means this machine."""

    def __init__(self, inner: ASGIApp, token: str, host: str) -> None:
        self._inner, self._token, self._host = inner, token.encode(), host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "there are no web sockets here"})
            return

        async def send_more(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        reason = self._reason_against(scope)
        if reason is not None:
            await JSONResponse(_reason("REFUSED", reason), 403)(scope, receive, send_more)
            return
        inner = {**scope, "path": "/" + scope["path"].split("/", 2)[2], "root_path": ""}
        await self._inner(inner, receive, send_more)

    def _reason_against(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        name = headers.get("host", "")
        if not _is_ours(name, self._host):
            return "the request was sent to another name than this server's; open the address that was printed"
        origin = headers.get("origin")
        # browsers tell the origin of every question, not that of a page that is opened
        if origin != f"http://{name}" and (origin is not None or scope["method"] not in ("GET", "HEAD")):
            return "the request comes from another page than this server's own"
        parts = scope["path"].split("/", 2)
        given = parts[1] if len(parts) == 3 else ""
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token):
            return "the address lacks the token, or has another one; open the address that was printed, with its last /"
        return None


def _is_ours(header: str, host: str) -> bool:
    """Whether the ``Host`` of a request means this machine, and not a name that another one made point here."""
    name = header.rsplit(":", 1)[0] if header.rpartition(":")[2].isdecimal() else header
    name = name.strip("[]").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        names = {"localhost", host.lower()}
        return name in names or (not is_loopback(host) and name in _names_of_this_machine())
    return address.is_loopback or not is_loopback(host)


@cache
def _names_of_this_machine() -> set[str]:
    return {socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


async def _body(request: Request) -> bytes:
    """The body of a request, or a refusal of a long or a slow one.

    A long one is read to its end and dropped, piece by piece: most clients read an answer after they have sent all.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(400, "the content type must be application/json")
    kept, size = bytearray(), 0
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in request.stream():
                size += len(piece)
                if size <= MAX_BODY:
                    kept += piece
                else:
                    kept.clear()
                if size > _DRAINED:
                    break
    except TimeoutError as error:
        raise HTTPException(408, f"the request was not complete after {_PATIENCE:g} s") from error
    if size > MAX_BODY:
        raise HTTPException(413, f"a question may have {MAX_BODY} bytes, this one has more")
    return bytes(kept)


def _refuse_constant(name: str) -> None:
    raise OptionError(f"{name} is no number in JSON, and no coordinate of a point.")


def _what(error: Exception) -> str:
    if isinstance(error, PullgeoError):
        return str(error)
    if isinstance(error, RecursionError):
        return "the message is nested too deeply."
    return f"the message is not JSON: {str(error)[:200]}."


def _reason(status: str, text: str) -> dict[str, Any]:
    return {"converged": False, "status": status, "text": text}
