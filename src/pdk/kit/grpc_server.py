"""gRPC on top of `http2`: messages, status codes, deadlines.

As the protocol says (grpc/grpc, doc/PROTOCOL-HTTP2.md), without compression, which a client learns from an UNIMPLEMENTED that says so.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import urllib.parse
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from pdk.errors import WireError
from pdk.kit.http2_stream import Stream, TooMuchHeld

log = logging.getLogger(__name__)
MESSAGE_LIMIT = 20 << 20  # bytes
HEAD = 5  # bytes before a message: whether it is compressed, and its length
TEXT_LIMIT = 6000  # bytes of an error's text; clients refuse headers of more than 8 KB
UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}  # of grpc-timeout
HEADERS = ((":status", "200"), ("content-type", "application/grpc"))


class Code(enum.IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Status(WireError):
    """What ends a call that did not succeed."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True)
class Method:
    """One method: how its messages are read and written, and what answers.

    `handler` takes a message, or with `streams_in` an iterator of them, and returns an awaitable message, or with `streams_out` an
    iterator of them.
    """

    handler: Callable[[Any], Any]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    streams_in: bool
    streams_out: bool


async def messages(stream: Stream, decode: Callable[[bytes], Any]) -> AsyncGenerator[Any]:
    """Give the messages of a request.

    Raises:
        Status: a message is too large, compressed, cut off, or none of the expected kind.
    """
    rest, needed = bytearray(), HEAD
    while data := await _read(stream, len(rest)):
        rest += data
        if len(rest) < needed:
            continue
        data, position = bytes(rest), 0
        while len(data) - position >= HEAD:
            size = int.from_bytes(data[position + 1 : position + HEAD], "big")
            if data[position]:
                raise Status(Code.UNIMPLEMENTED, "the message is compressed, which this server does not offer; send it as it is")
            if size > MESSAGE_LIMIT:
                raise Status(Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({size} vs. {MESSAGE_LIMIT})")
            needed = HEAD + size
            if len(data) - position < needed:
                break
            try:
                message = decode(data[position + HEAD : position + needed])
            except DecodeError as error:
                raise Status(Code.INTERNAL, f"grpc: error unmarshalling request: {error}") from error
            position, needed = position + needed, HEAD
            yield message
        rest = bytearray(data[position:])
    if rest:
        raise Status(Code.INTERNAL, "the request ended within a message")


async def _read(stream: Stream, kept: int) -> bytes:
    try:
        return await stream.read(kept)
    except TooMuchHeld as error:
        raise Status(Code.RESOURCE_EXHAUSTED, str(error)) from None


def seconds(timeout: str | None) -> float | None:
    """Return a ``grpc-timeout`` header as seconds.

    Raises:
        Status: it is not a timeout.
    """
    if timeout is None:
        return None
    if timeout[-1:] not in UNITS or not (timeout[:-1].isascii() and timeout[:-1].isdigit()) or len(timeout) > 9:
        raise Status(Code.INTERNAL, f"malformed grpc-timeout: {timeout!r}")
    return int(timeout[:-1]) * UNITS[timeout[-1]]


def trailers(code: Code, text: str) -> list[tuple[str, str]]:
    """Return what ends an answer."""
    found = [("grpc-status", str(int(code)))]
    if text:
        # printable ASCII stands for itself; a cut must not leave half of an escape
        spelled = urllib.parse.quote(text.encode(errors="replace"), safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}~")[:TEXT_LIMIT]
        found.append(("grpc-message", spelled.rpartition("%")[0] if "%" in spelled[-2:] else spelled))
    return found


class Answers:
    """Answers every request of a server.

    Args:
        methods: by path (``/pfs_v2.API/ListRepo``).
        admit: raises where a caller is not let in.
        explain: the code and words for an exception of a handler.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        admit: Callable[[Stream], None],
        explain: Callable[[Exception, str], Status],
    ) -> None:
        self.methods, self.admit, self.explain = methods, admit, explain

    async def __call__(self, stream: Stream) -> None:
        """Answer one."""
        if not stream.headers.get("content-type", "").startswith("application/grpc"):
            stream.end(((":status", "415"),))
            return
        stream.start(HEADERS)
        path = stream.headers.get(":path", "")
        try:
            async with asyncio.timeout(seconds(stream.headers.get("grpc-timeout"))) as deadline:
                await self._answer(stream, path)
            status = Status(Code.OK, "")
        except Status as error:
            status = error
        except TimeoutError as error:
            status = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded") if deadline.expired() else self.explain(error, path)
        except Exception as error:  # noqa: BLE001 - a handler's error is the call's, whatever it is
            status = self.explain(error, path)
        stream.end(trailers(status.code, status.text))

    async def _answer(self, stream: Stream, path: str) -> None:
        method = self.methods.get(path)
        if method is None:
            raise Status(Code.UNIMPLEMENTED, f"unknown method {path}")
        self.admit(stream)
        async with aclosing(messages(stream, method.decode)) as incoming:
            argument: Any = incoming if method.streams_in else await anext(incoming, None)
            if argument is None:
                raise Status(Code.INTERNAL, "the request holds no message")
            if not method.streams_out:
                self._write(stream, method.encode(await method.handler(argument)))
                return
            async with aclosing(method.handler(argument)) as answers:
                async for answer in answers:
                    self._write(stream, method.encode(answer))
                    if stream.full:
                        await stream.drain()

    def _write(self, stream: Stream, message: bytes) -> None:
        stream.write(b"\0" + len(message).to_bytes(4, "big") + message)
