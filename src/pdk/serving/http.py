"""Runs an ASGI application on an inherited socket: until told to stop, then until open requests have ended."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import uvicorn

from pdk.kit.http1 import Bounded
from pdk.settings import Serving


def described() -> dict[str, Any]:
    """V2's server metadata."""
    return {"name": "pdk", "version": version("pdk"), "extensions": ["binary_tensor_data"]}


async def serve(app: Any, sock: socket.socket, stop: asyncio.Event, started: Callable[[], None]) -> None:
    """Accept on `sock` until `stop` is set, then let open requests end.

    Args:
        started: called once requests are answered.
    """
    config = uvicorn.Config(
        app, access_log=False, log_config=None, lifespan="off", timeout_graceful_shutdown=Serving.drain_s, server_header=False,
        date_header=False, timeout_keep_alive=Serving.keep_alive_s, proxy_headers=False, ws="none", http=Bounded, interface="asgi3",
    )  # fmt: skip
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[sock]))  # noqa: SLF001 - the public one installs its own signal handlers
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.001)
    if server.started:
        started()
    await asyncio.wait([task, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await task


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that several processes may accept on."""
    sock = socket.create_server((host, port), backlog=2048, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it: no answer waits for an ACK
    sock.setblocking(False)
    return sock
