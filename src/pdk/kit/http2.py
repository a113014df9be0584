"""HTTP/2 without TLS, for gRPC: the protocol by `h2`, the contents of requests read straight from their frames.

A client that puts many small files sends each as one or two frames. `h2` spends tens of microseconds on a frame, and a gRPC server on top
of the grpcio library 65 on a message; what is read here costs about two.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RemoteSettingsChanged, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import FlowControlError, H2Error
from h2.settings import SettingCodes, Settings

from pdk.kit import peers

log = logging.getLogger(__name__)
WINDOW = 4 << 20  # bytes of a request that wait for their reader, at most
CONNECTION_WINDOW = 64 << 20  # bytes that a connection may send before they are read
FULL = 256 << 10  # bytes of an answer that wait for the client before its writer has to
FRAME_LIMIT = 1 << 20  # bytes of a frame
STREAMS = 10_000  # calls open at once on a connection
PREFACE = 24  # bytes of what a client says first
HEAD = 9  # bytes of a frame's head
DATA, WINDOW_UPDATE = 0, 8  # kinds of frames

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
        self._unread += len(data)
        if self._unread > WINDOW + FRAME_LIMIT:
            raise FlowControlError(f"{self._unread} bytes of a request wait for their reader, {WINDOW} were granted")
        self._incoming.append(data)
        self._arrived.set()

    def feed_end(self) -> None:
        """All of the content has come."""
        self.ended = True
        self._arrived.set()

    async def read(self) -> bytes:
        """All that has come since the last time; waits for at least one byte, empty at the end."""
        while not self._incoming:
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
        """Whether `drain` is due before more is written."""
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
        """The headers that have not been sent yet; once."""
        headers, self._headers = self._headers, ()
        return headers


class Connection(asyncio.Protocol):
    """A client; `answer` is run for each of its requests."""

    def __init__(self, answer: Answer, connections: set[Connection]) -> None:
        self.answer, self.connections = answer, connections
        self.streams: dict[int, Stream] = {}
        self._buffer = bytearray()
        self._preface = PREFACE
        self._owed = 0
        self._paused = False
        config = H2Configuration(
            client_side=False, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = H2Connection(config)
        values = {
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.MAX_FRAME_SIZE: FRAME_LIMIT,
        }
        self._h2.local_settings = Settings(client=False, initial_values=values)
        self._h2.max_inbound_frame_size = FRAME_LIMIT

    # what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        client, server = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.trusted = peers.trusted(client and client[:2], server and server[:2])
        self.connections.add(self)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        for stream in list(self.streams.values()):
            self._give_up(stream)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._push_all()

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data)
        except H2Error as error:  # not HTTP/2, or not as it should be
            log.info("a client was sent away: %s", error or type(error).__name__)
            self._flush()
            self._transport.close()

    # what comes in

    def _take(self, data: bytes) -> None:
        """Whole frames: plain content goes to its stream, all else through `h2`."""
        if self._preface:
            head, data = data[: self._preface], data[self._preface :]
            self._preface -= len(head)
            self._handle(head)
        if self._buffer:
            self._buffer += data
            data = bytes(self._buffer)
            self._buffer.clear()
        position, length_of_all, streams = 0, len(data), self.streams
        while length_of_all - position >= HEAD:
            kind_and_flags = data[position + 3 : position + 5]
            end = position + HEAD + int.from_bytes(data[position : position + 3], "big")
            if end > length_of_all and end - position <= HEAD + FRAME_LIMIT:
                break
            stream = None
            if kind_and_flags == b"\0\0":  # content, without padding and not the end
                stream = streams.get(int.from_bytes(data[position + 5 : position + HEAD], "big") & 0x7FFFFFFF)
            if stream is None:
                self._handle(data[position:end])
            else:
                stream.feed(data[position + HEAD : end])
                self._owed += end - position - HEAD
            position = end
        self._buffer += data[position:]
        if self._owed > CONNECTION_WINDOW // 2:
            self.grant(0, self._owed)
            self._owed = 0

    def _handle(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            self._happened(event)
        self._flush()

    def _happened(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            stream = Stream(self, event.stream_id, {str(name): str(value) for name, value in event.headers})
            self.streams[stream.id] = stream
            stream.task = asyncio.create_task(self._run(stream))
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            self._push_all()
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if (found := self.streams.get(event.stream_id)) and event.data:
                found.feed(bytes(event.data))
        elif isinstance(event, StreamEnded):
            if found := self.streams.get(event.stream_id):
                found.feed_end()
        elif isinstance(event, StreamReset) and (found := self.streams.get(event.stream_id)):
            self._give_up(found)

    async def _run(self, stream: Stream) -> None:
        try:
            await self.answer(stream)
        except Exception:
            log.exception("%s", stream.headers.get(":path"))
            if stream.id in self.streams:
                self._h2.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
                self._flush()
        finally:
            if stream.trailers is None:
                self.streams.pop(stream.id, None)

    def _give_up(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        if stream.task is not None:
            stream.task.cancel()

    def grant(self, id_: int, count: int) -> None:
        """Let the client send so many bytes more, on a stream or (0) on all of them."""
        self._transport.write(struct.pack("!HBBBII", 0, 4, WINDOW_UPDATE, 0, id_, count))

    # what goes out

    def send(self, stream: Stream, out: bytearray) -> bool:
        """Send from `out` what the client takes now, and the end when that is due; whether anything was taken."""
        if stream.id not in self.streams or self._paused:
            return False
        if headers := stream.begin():
            self._h2.send_headers(stream.id, list(headers))
        before, size = len(out), self._h2.max_outbound_frame_size
        while out and (room := min(size, self._h2.local_flow_control_window(stream.id))) > 0:
            self._h2.send_data(stream.id, bytes(out[:room]))
            del out[:room]
        if not out and stream.trailers is not None:
            self._finish(stream, stream.trailers)
        self._flush()
        return len(out) < before

    def _finish(self, stream: Stream, trailers: Headers) -> None:
        self._h2.send_headers(stream.id, list(trailers), end_stream=True)
        del self.streams[stream.id]
        if not stream.ended:
            self._h2.reset_stream(stream.id, ErrorCodes.NO_ERROR)  # the client need not send the rest

    def _push_all(self) -> None:
        for stream in list(self.streams.values()):
            stream.push()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._transport.write(data)

    def close(self) -> None:
        """Say goodbye and hang up."""
        if not self._transport.is_closing():
            self._h2.close_connection()
            self._flush()
            self._transport.close()


class Server:
    """Listens, as long as `run` runs."""

    def __init__(self, answer: Answer, host: str, port: int) -> None:
        self.answer, self.host, self.port = answer, host, port
        self.connections: set[Connection] = set()

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(partial(Connection, self.answer, self.connections), self.host, self.port)
        try:
            await server.serve_forever()
        finally:
            for connection in list(self.connections):
                connection.close()
