"""The gRPC server by gRPC's own client, and by bytes that arrive in pieces."""

import asyncio
import contextlib
import socket
import struct
import threading
import time

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, TrailersReceived
from hyperframe.frame import DataFrame, PingFrame, RstStreamFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import wait_until
from pdk.kit import grpc_server, http2

LARGE = 5 << 20


class Service:
    """What the tests call."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.running = threading.Event()
        self.sent = 0

    async def echo(self, message):
        return message

    async def total(self, messages):
        return b"%d" % sum([len(message) async for message in messages])

    async def many(self, message):
        for number in range(int(message)):
            self.sent = number
            yield b"%d" % number * 1000

    async def both(self, messages):
        async for message in messages:
            yield message

    async def fails(self, message):
        raise ValueError(message.decode())

    async def hangs(self, message):
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture(scope="module")
def service():
    return Service()


@pytest.fixture(scope="module")
def server(service):
    def method(name, **kind):
        return grpc_server.Method(getattr(service, name), bytes, bytes, **{"streams_in": False, "streams_out": False} | kind)

    methods = {f"/t/{name}": method(name) for name in ("echo", "fails", "hangs")}
    methods |= {
        "/t/total": method("total", streams_in=True),
        "/t/many": method("many", streams_out=True),
        "/t/both": method("both", streams_in=True, streams_out=True),
    }
    explain = lambda error, path: grpc_server.Status(grpc_server.Code.UNKNOWN, str(error))  # noqa: E731
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = http2.Server(grpc_server.Answers(methods, lambda stream: None, explain), "127.0.0.1", port)
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.run())

    def run():
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0))  # connections that were closed come to their end
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield server
    loop.call_soon_threadsafe(task.cancel)
    thread.join()


@pytest.fixture(scope="module")
def port(server):
    return server.port


@pytest.fixture
def channel(port):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        yield channel


@pytest.mark.parametrize("size", [0, 1, 16379, 16384, 70_000, LARGE])
def test_messages_of_any_size_come_back(channel, size):
    message = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert channel.unary_unary("/t/echo")(message) == message
    assert list(channel.stream_stream("/t/both")(iter([message, b"", message]))) == [message, b"", message]


def test_many_small_messages(channel):
    assert channel.stream_unary("/t/total")(b"x" * (number % 50) for number in range(20_000)) == b"490000"
    assert list(channel.unary_stream("/t/many")(b"3000")) == [b"%d" % number * 1000 for number in range(3000)]


def test_a_slow_reader_holds_up_its_own_call_alone(channel, service):
    answers = channel.unary_stream("/t/many")(b"200000")
    assert next(answers) == b"0" * 1000
    assert channel.unary_unary("/t/echo")(b"meanwhile") == b"meanwhile"
    assert service.sent < 100_000
    answers.cancel()


def refusal(call, message, **options):
    with pytest.raises(grpc.RpcError) as error:
        call(message, **options)
    return error.value.code(), error.value.details()


def test_errors_arrive_with_their_words(channel):
    words = "50 % of “größer”\n" + "x" * 100
    assert refusal(channel.unary_unary("/t/fails"), words.encode()) == (grpc.StatusCode.UNKNOWN, words)
    code, cut = refusal(channel.unary_unary("/t/fails"), ("ü" * 20_000).encode())
    assert code is grpc.StatusCode.UNKNOWN
    assert set(cut) == {"ü"}
    assert refusal(channel.unary_unary("/t/absent"), b"") == (grpc.StatusCode.UNIMPLEMENTED, "unknown method /t/absent")


def test_what_is_not_offered_says_so(channel):
    code, words = refusal(channel.unary_unary("/t/echo"), b"x" * 1000, compression=grpc.Compression.Gzip)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "compressed" in words
    code, words = refusal(channel.unary_unary("/t/echo"), bytes(grpc_server.MESSAGE_LIMIT + 1))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert words == "grpc: received message larger than max (20971521 vs. 20971520)"


def test_who_gives_up_ends_the_work(channel, service):
    for give_up in (lambda call: call.cancel(), lambda call: call.exception()):  # the second one lets the deadline pass
        service.running.clear()
        service.cancelled.clear()
        call = channel.unary_unary("/t/hangs").future(b"", timeout=2)
        assert service.running.wait(20)
        give_up(call)
        assert service.cancelled.wait(20)


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100])
def test_what_is_no_http2_is_sent_away(port, words):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(words)
        while client.recv(65536):
            pass


def test_who_sends_more_than_granted_is_sent_away(port):
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    path = [(":method", "POST"), (":path", "/t/hangs"), (":scheme", "http"), (":authority", "x"), ("content-type", "application/grpc")]
    client.send_headers(1, path)
    message = struct.pack("!BI", 0, 100)  # whole, so nobody reads on behind it
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(client.data_to_send() + DataFrame(1, data=message + bytes(100)).serialize())
        with pytest.raises(ConnectionError):
            connection.sendall(100 * DataFrame(1, data=bytes(1 << 18)).serialize())


def client_bytes(path, messages, content_type="application/grpc"):
    """What a client sends for one call, and its side of the connection."""
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x"), ("content-type", content_type)])
    for message in messages:
        client.send_data(1, struct.pack("!BI", 0, len(message)) + message, pad_length=3 if len(message) % 3 == 2 else None)
    client.end_stream(1)
    return client, client.data_to_send()


def exchange(port, client, pieces):
    """Send bytes piece by piece; the content of the answer, and its trailers."""
    content, trailers = b"", None
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        while trailers is None and (data := connection.recv(65536)):
            for event in client.receive_data(data):
                if isinstance(event, DataReceived):
                    content += event.data
                elif isinstance(event, TrailersReceived):
                    trailers = dict(event.headers)
    return content, trailers


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=300), max_size=20), st.data())
def test_bytes_may_arrive_in_any_pieces(port, messages, data):
    client, sent = client_bytes("/t/total", messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=30)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True) if start < end]
    content, trailers = exchange(port, client, pieces)
    assert content[5:] == b"%d" % sum(map(len, messages))
    assert trailers == {"grpc-status": "0"}


HEADERS = [(":method", "POST"), (":path", "/t/total"), (":scheme", "http"), (":authority", "x"), ("content-type", "application/grpc")]


@contextlib.contextmanager
def hostile(port):
    """A client's connection, and its side of the protocol."""
    client = H2Connection(H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(client.data_to_send())
        yield connection, client


def ended_with(connection, client):
    """The code with which a server ends a connection; None where it only hangs up."""
    code = None
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 20):
            for event in client.receive_data(data):
                if isinstance(event, ConnectionTerminated):
                    code = event.error_code
    return code


def test_calls_that_are_begun_and_given_up_are_bounded(port, channel):
    """What is known as rapid reset (CVE-2023-44487)."""
    with hostile(port) as (connection, client):
        with contextlib.suppress(ConnectionError):
            for number in range(1, 20_000, 2):
                client.send_headers(number, HEADERS)
                client.reset_stream(number, ErrorCodes.CANCEL)
                connection.sendall(client.data_to_send())
        assert ended_with(connection, client) in (ErrorCodes.ENHANCE_YOUR_CALM, None)
    assert channel.unary_unary("/t/echo")(b"others") == b"others"


def test_frames_that_carry_nothing_are_bounded(port, channel):
    with hostile(port) as (connection, client):
        sent, waits = 0, []
        with contextlib.suppress(ConnectionError):
            for _turn in range(100):
                connection.sendall(PingFrame(0, opaque_data=b"12345678").serialize() * 1000)
                sent += 1000
                began = time.monotonic()
                assert channel.unary_unary("/t/echo")(b"others") == b"others"
                waits.append(time.monotonic() - began)
        assert sent < 100_000
        assert sorted(waits)[len(waits) // 2] < 0.5
        ended_with(connection, client)


def test_messages_that_are_not_whole_have_bounded_room(server, port, channel):
    with hostile(port) as (connection, client):
        refused, part = 0, struct.pack("!BI", 0, 2 << 20) + bytes(1 << 20)
        for number in range(1, 200, 2):  # 100 MB of halves
            client.send_headers(number, HEADERS)
            connection.sendall(client.data_to_send() + b"".join(
                DataFrame(number, data=part[start : start + 16_384]).serialize() for start in range(0, len(part), 16_384)
            ))  # fmt: skip
        while refused < 30:
            for event in client.receive_data(connection.recv(1 << 20)):
                refused += isinstance(event, TrailersReceived) and dict(event.headers)["grpc-status"] == "8"  # RESOURCE_EXHAUSTED
        assert http2.HELD // 2 < server.held <= http2.HELD
        assert channel.unary_unary("/t/echo")(b"others") == b"others"
        connection.sendall(RstStreamFrame(1, error_code=ErrorCodes.CANCEL).serialize())
    wait_until(lambda: server.held == 0, 20, "the room")  # it is everybody's again
    assert channel.stream_unary("/t/total")(bytes(10 << 20) for _ in range(12)) == b"%d" % (120 << 20)
