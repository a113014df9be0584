"""What every HTTP server of `pdk up` does alike: guard the door, answer /healthz, start and stop with its process.

A page in a user's browser can send requests to 127.0.0.1. So on loopback too the Host header must be a name of this machine (against
DNS rebinding), a body must say its type, and be of one that a form cannot send, an Origin that is not the installation's own page is
refused, and cookies do not exist here. Off loopback a bearer token is required as well, and on loopback of whoever is another user of
this machine (`pdk.kit.peers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pdk.errors import TemporaryError, UserError
from pdk.installation import Installation, is_loopback
from pdk.kit import peers
from pdk.kit.http1 import Bounded

log = logging.getLogger(__name__)
FORM_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")  # what a foreign page may send unasked
SIGNED = "AWS4-HMAC-SHA256 "  # how the Authorization header of a signed S3 request begins
STRANGER = (
    "this installation belongs to another user of this machine, whose own programs need no credential; send its secret as a bearer token "
    "(the file `secret` in its state folder, which only that user can read)"
)
SAFE_METHODS = frozenset({"GET", "HEAD"})
Checks = Mapping[str, Callable[[], str]]
KEEP_ALIVE_S = 75  # idle connections: with a short time clients meet a connection that is being closed as they send


def host_of(header: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name = header.rsplit(":", 1)[0] if (not header.endswith("]") and header.count(":") == 1) or "]:" in header else header
    return name.strip("[]").lower()


def is_navigation(headers: Mapping[str, str]) -> bool:
    """Say whether a browser asks for what it shows in place of the page before: somebody followed a link."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def has_body(headers: Mapping[str, str]) -> bool:
    """Say whether a request brings a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def origins_of(installation: Installation) -> frozenset[str]:
    """Return the origins that the installation's own page has in a browser."""
    names = ("127.0.0.1", "localhost", "[::1]", installation.host)
    return frozenset(f"http://{name}:{installation.ports.web}" for name in names)


@dataclass(frozen=True)
class Door:
    """Who may come in.

    Args:
        bind: the address that the server listens on.
        token: the installation's secret.
        hosts: further names that a Host header may carry.
        origins: those of the installation's own page, which alone may send requests from a browser.
        pages: whether a link on a page of another site may lead here.
        form_types: whether bodies of form types are let in (for clients that are known to send them, with a safe protocol).
        open_paths: paths that never need the token.
        always: whether the token is needed of this machine's own user on loopback too.
        strangers: whether other users of this machine are let in, and bodies without a type (which Determined's SDK sends), for whoever
            answers asks everybody for credentials.
        signed: whether requests may carry a signature of S3 instead, which whoever answers them checks.
    """

    bind: str
    token: str
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    pages: bool = False
    form_types: bool = False
    open_paths: Collection[str] = ("/healthz",)
    always: bool = False
    signed: bool = False
    strangers: bool = False

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason when the request is refused."""
        headers, safe = Headers(scope=scope), scope["method"] in SAFE_METHODS
        if len(headers.getlist("host")) > 1:
            return 400, "the request has several Host headers"
        host = host_of(headers.get("host", ""))
        if is_loopback(self.bind) and not (is_loopback(host) or host in self.hosts):
            return 421, f"this server answers to 127.0.0.1 and localhost, not to the host name {host!r}"
        if scope["path"] not in self.open_paths and not self.authorized(headers):
            if self.always or not is_loopback(self.bind):
                return 401, "a bearer token is required; `pdk env` prints where it is kept"
            signed = self.signed and headers.get("authorization", "").startswith(SIGNED)
            if not signed and not self.strangers and not peers.of_scope(scope):
                return 401, STRANGER
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins:
            return 403, f"requests from pages of {origin!r} are not answered"
        if headers.get("sec-fetch-site") == "cross-site" and not (self.pages and safe and is_navigation(headers)):
            return 403, "requests from pages of other sites are not answered"
        if not safe and not self.form_types:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind in FORM_TYPES or (not kind and has_body(headers) and not self.strangers):
                return 415, f"the content type {kind!r} is not accepted here; send application/json"
        return None

    def authorized(self, headers: Mapping[str, str]) -> bool:
        """Return whether the bearer token is right."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(value.strip().encode(), self.token.encode())


class Guard:
    """ASGI middleware that keeps a `Door`."""

    def __init__(self, app: ASGIApp, door: Door, error_body: Callable[[int, str], object]) -> None:
        self.app, self.door, self.error_body = app, door, error_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "http" and (refused := self.door.refusal(scope)):
            status, reason = refused
            await JSONResponse(self.error_body(status, reason), status_code=status)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def healthz(checks: Checks) -> Route:
    """Return the route /healthz: every check by name, ``ok`` or what fails (an empty answer of a check means ok)."""

    def answer(_request: Request) -> JSONResponse:
        results = {name: check() or "ok" for name, check in checks.items()}
        healthy = all(result == "ok" for result in results.values())
        return JSONResponse({"status": "ok" if healthy else "failing", "checks": results}, status_code=200 if healthy else 503)

    return Route("/healthz", answer)


def free_ports(bind: str, count: int) -> list[int]:
    """Find so many ports that nobody listens on, all different. Whoever can listen at once does not need this (`serve_on`)."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(listen(bind, 0)).getsockname()[1] for _ in range(count)]


def listen(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; `port` 0 takes a free one.

    Raises:
        OSError: with the address in its text.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # connections inherit it; asyncio sets it only on sockets that name their protocol, and without it an answer waits 40 ms for an ACK
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.listen(1024)
    sock.setblocking(False)
    return sock


def server(app: ASGIApp, *, tls: tuple[str, str] | None = None, drain_s: int = 5) -> uvicorn.Server:
    """Return a uvicorn server without signal handlers or access log of its own.

    Args:
        tls: files of the certificate and its key.
        drain_s: seconds that open requests get when it stops.
    """
    config = uvicorn.Config(
        app,
        http=Bounded,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=drain_s,
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
        server_header=False,
        proxy_headers=False,  # nobody stands before these servers: who a request says it comes from is nobody's word
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    made = uvicorn.Server(config)
    made.capture_signals = _NoSignals  # type: ignore[method-assign,assignment]
    return made


class _NoSignals:
    """Stands in for uvicorn's signal handling: the process's own main function stops its servers."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def serve(app: ASGIApp, bind: str, port: int, tls: tuple[str, str] | None = None) -> None:
    """Serve `app` at an address until cancelled; open requests get their time to end."""
    await serve_on(listen(bind, port), app, tls)


async def serve_on(listener: socket.socket, app: ASGIApp, tls: tuple[str, str] | None = None) -> None:
    """Serve `app` on a socket that listens already; as `serve`."""
    made = server(app, tls=tls)
    task = asyncio.create_task(made.serve(sockets=[listener]))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        made.should_exit = True
        await task
        raise


async def until_signal() -> None:
    """Wait for SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


def defect(request: Request, error: Exception) -> str:
    """Write what nobody expected into the log, and return the words for whoever asked: it is not his fault."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return f"a defect of the local server ({type(error).__name__}); its log has the details: `pdk up` names the folder"


class TooLarge(UserError):
    """A request's body is larger than it may be."""


async def read_body(request: Request, limit: int) -> bytes:
    """Return the request's whole body.

    Raises:
        TooLarge: it has more than `limit` bytes.
        TemporaryError: it does not come whole.
    """
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise TooLarge(f"the request is larger than {limit:,} bytes")
            parts.append(part)
    except ClientDisconnect:
        raise TemporaryError("the client went away before its request was whole") from None
    return b"".join(parts)
