"""Clients that take their time, or too much room, over HTTP/1; and those that do not, beside them."""

import asyncio
import contextlib

import pytest
import uvicorn

from pdk.kit import web
from pdk.kit.http1 import HEAD_LIMIT, Bounded

GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n"


class Quick(Bounded):
    """As `Bounded`, in a hurry."""

    head_s, body_s, look_s, connections_limit = 0.6, 0.6, 0.05, 5


@contextlib.asynccontextmanager
async def served(*, pause=0.0, app=None):
    """Connects to a server that reads bodies and answers after a pause, and what it has seen."""
    seen = []

    async def reads(scope, receive, send):
        while True:
            message = await receive()
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                return
            await asyncio.sleep(pause)
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    listener, clients = web.listen("127.0.0.1", 0), []

    async def connect():
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        clients.append(writer)
        return reader, writer

    server = uvicorn.Server(uvicorn.Config(app or reads, http=Quick, lifespan="off", log_level="error", timeout_graceful_shutdown=1))
    task = asyncio.create_task(server._serve(sockets=[listener]))
    yield connect, seen
    for writer in clients:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    server.should_exit = True
    await task


async def answer(reader):
    """All that a server sends until it closes."""
    return await asyncio.wait_for(reader.read(), 20)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET[:-2], GET[:-2] + b"x: " + b"a" * 1000], ids=["nothing", "line", "headers", "long"])
def test_a_head_that_does_not_come_ends_the_connection(sent):
    async def run():
        async with served() as (connect, seen):
            reader, writer = await connect()
            writer.write(sent)
            assert (await answer(reader)).startswith(b"HTTP/1.1 408 ")
            assert not seen

    asyncio.run(run())


def test_a_head_that_dribbles_in_has_no_more_time():
    async def run():
        async with served() as (connect, _):
            reader, writer = await connect()
            reading = asyncio.create_task(answer(reader))
            for _turn in range(200):
                if reading.done():
                    break
                writer.write(b"G" if not _turn else b"E")
                await asyncio.wait([reading], timeout=0.1)
            assert (await reading).startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))

    asyncio.run(run())


def test_a_body_that_stops_coming_ends_the_connection_and_the_request():
    async def run():
        async with served() as (connect, seen):
            reader, writer = await connect()
            writer.write(POST + b"x" * 1000)
            assert await answer(reader) == b""
            assert seen == ["http.request", "http.disconnect"]

    asyncio.run(run())


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_that_is_too_large_is_refused(end):
    async def run():
        async with served() as (connect, seen):
            reader, writer = await connect()
            writer.write(GET[:-2] + b"".join(b"x%d: %s\r\n" % (number, b"a" * 1000) for number in range(HEAD_LIMIT // 1000 + 1)) + end)
            assert (await answer(reader)).startswith(b"HTTP/1.1 431 ")
            assert not seen
            reader, writer = await connect()  # as large as may be
            writer.write(GET[:-2] + b"x: " + b"a" * (HEAD_LIMIT - 100) + b"\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())


def test_who_waits_for_the_server_is_left_alone():
    async def run():
        async with served(pause=1.5) as (connect, _):
            reader, writer = await connect()
            for _turn in range(2):  # a slow answer, then a slow client with the same connection
                writer.write(GET)
                assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(1.0)
            writer.write(POST + b"x" * 1_000_000)  # read by the server in pauses that are longer than a client may make
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 60)).startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())


def test_one_connection_too_many_is_refused():
    async def run():
        async with served(pause=1.0) as (connect, _):
            open_ = [await connect() for _ in range(5)]
            for _, writer in open_:
                writer.write(GET)
            reader, _ = await connect()
            assert (await answer(reader)).startswith(b"HTTP/1.1 503 ")
            for reader, _ in open_:
                assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())


def test_who_waits_for_leave_to_send_is_answered_and_begins_anew():
    """A client that is refused before it sent its body does not send it: what it sends next is another request."""

    async def refuse(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 501, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def run():
        async with served(app=refuse) as (connect, _):
            reader, writer = await connect()
            writer.write(POST[:-2] + b"expect: 100-continue\r\n\r\n")
            said = await answer(reader)
            assert said.startswith(b"HTTP/1.1 501 ")
            assert b"connection: close" in said
        async with served() as (connect, _):  # who reads the body gives leave for it
            reader, writer = await connect()
            writer.write(POST[:-2] + b"expect: 100-continue\r\n\r\n")
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"x" * 1_000_000)
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 20)).startswith(b"HTTP/1.1 200 ")

    asyncio.run(run())
