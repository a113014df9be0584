"""HTTP/1 with bounds on clients that take their time: uvicorn's protocol, which waits for them for ever."""

from __future__ import annotations

import asyncio
import enum
import resource
from typing import Any, ClassVar

from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT = 64 << 10  # bytes of a request's first line and headers
HEAD_S = 10.0  # until they must be there, counted from the connection's or the request's first byte
BODY_S = 60.0  # that a body may bring nothing new
LOOK_S = 2.0  # between two looks at a connection: one timer costs a request nothing, a timer for each would
OPEN_SHARE = 0.75  # of the files that a process may have open that may be connections; the rest is for its work


class At(enum.Enum):
    """What a connection waits for."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()  # the server's own, or the client's next request, for which uvicorn has a limit


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP/1, which ends connections that bring no whole head, a head that is too large, or no more of a body."""

    head_s: ClassVar[float] = HEAD_S
    body_s: ClassVar[float] = BODY_S
    look_s: ClassVar[float] = LOOK_S
    connections_limit: ClassVar[int] = 0  # 0: by the process's limit of open files

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it where there are too many."""
        super().connection_made(transport)
        self._at, self._since, self._size, self._chunk = At.HEAD, self.loop.time(), 0, 0
        limit = self.connections_limit or int(resource.getrlimit(resource.RLIMIT_NOFILE)[0] * OPEN_SHARE)
        if len(self.connections) > limit:
            self._refuse(503, "Service Unavailable", f"{limit} connections are open, more are not taken; try again later")
            return
        self.loop.call_later(self.look_s, self._look)

    def data_received(self, data: bytes) -> None:
        """Take what a client sent."""
        self._chunk = len(data)
        super().data_received(data)
        if self._at is At.HEAD:
            self._size += len(data)
            if self._size > HEAD_LIMIT:
                self._too_large()
        elif self._at is At.BODY:
            self._since = self.loop.time()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        if self._at is not At.HEAD:  # else it is the connection's first, whose time counts from its beginning
            self._at, self._since = At.HEAD, self.loop.time()
        self._size = 0

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        if (
            self._size + self._chunk > HEAD_LIMIT
            and sum(map(len, (self.url, *(text for pair in self.headers for text in pair)))) > HEAD_LIMIT
        ):
            self._too_large()
            return
        self._at = At.BODY
        if not self.expect_100_continue:
            super().on_headers_complete()
            return
        app, self.app = self.app, _answered_first(self.app)
        super().on_headers_complete()
        self.app = app

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._at = At.ANSWER
        if not self.transport.is_closing():
            super().on_message_complete()

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        waited = self.loop.time() - self._since
        if self._at is At.HEAD and waited > self.head_s:
            self._refuse(408, "Request Timeout", f"the request's head did not arrive within {self.head_s:g} s")
        elif self._at is At.BODY and waited > self.body_s and not self.flow.read_paused:
            self.transport.close()
        else:
            self.loop.call_later(self.look_s, self._look)

    def _too_large(self) -> None:
        self._refuse(431, "Request Header Fields Too Large", f"the request's head has more than {HEAD_LIMIT >> 10} KiB")

    def _refuse(self, status: int, name: str, why: str) -> None:
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status} {name}\r\ncontent-type: text/plain\r\ncontent-length: {len(why)}\r\nconnection: close\r\n\r\n"
            self.transport.write((head + why).encode())
            self.transport.close()


def _answered_first(app: ASGI3Application) -> ASGI3Application:
    """Return an application that ends the connection where it answers a client that waits for leave to send its body.

    That client will not send it; what it sends next would be taken for the body, and refused as no request.
    """

    async def answer(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        asked = False

        async def read() -> Any:
            nonlocal asked
            asked = True
            return await receive()

        async def write(message: Any) -> None:
            if message["type"] == "http.response.start" and not asked:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, read, write)

    return answer


def raise_limit() -> None:
    """Let this process have as many files open as the machine lets it: 1,024 is the usual limit, and few connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
