"""HTTP/2 without TLS, for gRPC: the protocol by `h2`, the contents of requests read straight from their frames.

A client that puts many small files sends each as one or two frames. `h2` spends tens of microseconds on a frame, and a gRPC server on top
of the grpcio library 65 on a message; what is read here costs about two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time
from functools import partial

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RemoteSettingsChanged, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from pdk.kit import peers
from pdk.kit.http2_stream import FRAME_LIMIT, HELD, HELD_IN_ALL, WINDOW, Answer, Headers, Stream

log = logging.getLogger(__name__)
CONNECTION_WINDOW = 64 << 20  # bytes that a connection may send before they are read
STREAMS = 10_000  # calls open at once on a connection
RESETS, RESETS_PER_S = 1000, 100.0  # calls that a client may begin and give up: at once, and in the long run
CONTROLS, CONTROLS_PER_S = 10_000, 1000.0  # frames beside content and calls (PING, SETTINGS, windows): likewise,
CONTROL_BYTES = 1024  # and one more for so many bytes of content that travel, for clients measure a fast connection by PINGs
TURN = 300  # frames that go through `h2` before others have their turn: some 20 ms
PREFACE = 24  # bytes of what a client says first
HEAD = 9  # bytes of a frame's head
DATA, WINDOW_UPDATE = 0, 8  # kinds of frames
CONTENT = frozenset((0, 1, 9))  # content and headers; what they cost has its own limits
QUIET_S = 10.0  # between two lines of the log about clients that were sent away


class Budget:
    """What a client may do at once, and how fast it may do it again.

    Args:
        most: at once.
        per_s: that come back each second.
    """

    def __init__(self, most: int, per_s: float) -> None:
        self.most, self.per_s, self.left, self.at = float(most), per_s, float(most), time.monotonic()

    def spend(self, count: float = 1.0) -> bool:
        """Take `count`; whether there was as much."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self.at) * self.per_s) - count
        self.at = now
        return self.left >= 0


class Connection(asyncio.Protocol):
    """A client; `answer` is run for each of its requests."""

    def __init__(self, answer: Answer, server: Server) -> None:
        self.answer, self.server, self.connections = answer, server, server.connections
        self._held = 0  # bytes of unfinished messages
        self._resets, self._controls = Budget(RESETS, RESETS_PER_S), Budget(CONTROLS, CONTROLS_PER_S)
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
        """The client does not read what it is sent: nothing more is read of it either, or its acknowledgements would fill the memory."""
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        self._push_all()
        self._go_on()

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data)
        except H2Error as error:  # not HTTP/2, or not as it should be
            self._send_away(str(error) or type(error).__name__)

    def _send_away(self, why: str) -> None:
        self.server.sent_away(why)
        self._flush()
        self._transport.close()

    def _calm(self, why: str) -> None:
        """End a connection whose client asks for more work than it may."""
        self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
        self._send_away(why)

    def _go_on(self) -> None:
        """Read again, what waits in the buffer first."""
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
            self.data_received(b"")

    def hold(self, count: int) -> bool:
        """Count bytes of unfinished messages, or (less than 0) that they are done with; whether there is room for them."""
        if count > 0 and (self._held + count > HELD or self.server.held + count > HELD_IN_ALL):
            return False
        self._held += count
        self.server.held += count
        return True

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
        position, length_of_all, streams, handled = 0, len(data), self.streams, 0
        while length_of_all - position >= HEAD and not self._paused and not self._transport.is_closing():
            if handled >= TURN:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_later(0, self._go_on)
                break
            kind_and_flags = data[position + 3 : position + 5]
            end = position + HEAD + int.from_bytes(data[position : position + 3], "big")
            if end > length_of_all and end - position <= HEAD + FRAME_LIMIT:
                break
            stream = None
            if kind_and_flags == b"\0\0":  # content, without padding and not the end
                stream = streams.get(int.from_bytes(data[position + 5 : position + HEAD], "big") & 0x7FFFFFFF)
            if stream is None:
                handled += 1
                if kind_and_flags[0] not in CONTENT and not self._controls.spend():
                    self._calm("it sent too many frames that carry nothing")
                    break
                self._handle(data[position:end])
            else:
                stream.feed(data[position + HEAD : end])
                self._owed += end - position - HEAD
            position = end
        self._buffer += data[position:]
        if self._owed > CONNECTION_WINDOW // 2:
            self._controls.spend(-self._owed / CONTROL_BYTES)
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
        elif isinstance(event, StreamReset):
            if not self._resets.spend():
                self._calm("it gave up too many calls")
            if found := self.streams.get(event.stream_id):
                self._give_up(found)

    async def _run(self, stream: Stream) -> None:
        try:
            await self.answer(stream)
        except Exception:
            log.exception("%s", stream.headers.get(":path"))
            if stream.id in self.streams:
                with contextlib.suppress(H2Error):  # it is closed already, with its connection
                    self._h2.reset_stream(stream.id, ErrorCodes.INTERNAL_ERROR)
                self._flush()
        finally:
            stream.refuse()  # what still comes is nobody's
            if stream.trailers is None:
                self.streams.pop(stream.id, None)

    def _give_up(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        stream.refuse()
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
            self._controls.spend(-room / CONTROL_BYTES)
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
        self.held = 0  # bytes of unfinished messages
        self._sent_away, self._told = 0, -QUIET_S

    def sent_away(self, why: str) -> None:
        """Note that a client was sent away; with many of them the log has a line now and then, not one for each."""
        self._sent_away += 1
        if (now := time.monotonic()) - self._told >= QUIET_S:
            log.info("%d clients were sent away, the last one because: %s", self._sent_away, why)
            self._sent_away, self._told = 0, now

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(partial(Connection, self.answer, self), self.host, self.port)
        try:
            await server.serve_forever()
        finally:
            for connection in list(self.connections):
                connection.close()
