"""One call of an HTTP/2 connection: its content as it comes in, its answer as it goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from h2.exceptions import FlowControlError

from pdk.errors import UserError

if TYPE_CHECKING:
    from pdk.kit.http2 import Connection

WINDOW = 4 << 20  # bytes of a request that wait for their reader, at most
FULL = 256 << 10  # bytes of an answer that wait for the client before its writer has to
FRAME_LIMIT = 1 << 20  # bytes of a frame
HELD, HELD_IN_ALL = 64 << 20, 256 << 20  # bytes of unfinished messages: of a connection, and of all of a server's


class TooMuchHeld(UserError):
    """There is no more room for messages that are not whole."""


Headers = Sequence[tuple[str, str]]
Answer = Callable[["Stream"], Awaitable[None]]


class Stream:
    """One request and its answer.

    `headers` are the request's, `read` gives its content, `write` and `end` answer. The task that answers is cancelled when the client
    gives up.
    """

    def __init__(self, connection: Connection, id_: int, headers: Mapping[str, str]) -> None:
        self.connection, self.id, self.headers = connection, id_, headers
        self.task: asyncio.Task[None] | None = None
        self._incoming: list[bytes] = []
        self._unread = 0
        self._arrived = asyncio.Event()
        self._held = 0  # bytes that count for the limits of unfinished messages
        self.refused = False
        self.ended = False  # the client has sent everything
        self._owed = 0  # bytes read that the client may send anew
        self._out = bytearray()
        self._room = asyncio.Event()
        self._headers: Headers = ()
        self.trailers: Headers | None = None  # what ends the answer, once it is known

    # the request

    def feed(self, data: bytes) -> None:
        """More of the content has come.

        Raises:
            FlowControlError: more than the client was granted.
        """
        if self.refused:
            return
        self._unread += len(data)
        if self._unread > WINDOW + FRAME_LIMIT:
            raise FlowControlError(f"{self._unread} bytes of a request wait for their reader, {WINDOW} were granted")
        if self.connection.hold(len(data)):
            self._held += len(data)
            self._incoming.append(data)
        else:
            self.refuse()
        self._arrived.set()

    def feed_end(self) -> None:
        """All of the content has come."""
        self.ended = True
        self._arrived.set()

    def refuse(self) -> None:
        """Take no more of the content, and forget what waits for its reader: there is no room for it, or nobody reads it any more."""
        self.refused = True
        self._incoming.clear()
        self._release(self._held)

    def _release(self, count: int) -> None:
        self._held -= count
        self.connection.hold(-count)

    async def read(self, kept: int = 0) -> bytes:
        """Return all that has come since the last time; waits for at least one byte, empty at the end.

        Args:
            kept: bytes of what was read before that the reader still holds, of a message that is not whole.

        Raises:
            TooMuchHeld: the unfinished messages of this connection, or of all, have no more room.
        """
        if not self.refused:
            self._release(self._held - self._unread - kept)
        while not self._incoming:
            if self.refused:
                raise TooMuchHeld(f"more than {HELD >> 20} MB of messages that are not whole are on their way; send fewer at once")
            if self.ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._incoming)
        self._incoming.clear()
        self._unread = 0
        self._owed += len(data)
        if self._owed > WINDOW // 2 and not self.ended:
            self.connection.grant(self.id, self._owed)
            self._owed = 0
        return data

    # the answer

    def start(self, headers: Headers) -> None:
        """The headers of the answer; they are sent with its first bytes."""
        self._headers = headers

    def write(self, data: bytes) -> None:
        """More of the answer; sent together with what follows at once."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self.push)
        self._out += data

    @property
    def full(self) -> bool:
        """Return whether `drain` is due before more is written."""
        return len(self._out) > FULL // 4

    async def drain(self) -> None:
        """Send, let others have their turn, and wait while the client is far behind."""
        self.push()
        await asyncio.sleep(0)
        while len(self._out) > FULL:
            self._room.clear()
            await self._room.wait()

    def end(self, trailers: Headers) -> None:
        """End the answer, as soon as all of it is sent."""
        self.trailers = trailers
        self.push()

    def push(self) -> None:
        """Send what the client takes now."""
        if self.connection.send(self, self._out):
            self._room.set()

    def begin(self) -> Headers:
        """Return the headers that have not been sent yet; once."""
        headers, self._headers = self._headers, ()
        return headers
