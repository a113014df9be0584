"""In front of several models: every request goes to the workers of the model that its path names."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pdk.serving import bodies, http
from pdk.serving.metrics import together
from pdk.serving.runner import Rejected
from pdk.settings import Serving

DROPPED = frozenset(("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host", "expect"))


class Router:
    """An ASGI application for several models.

    Args:
        ports: of each model's workers on this machine, by the model's name.
        metrics: the folder in which the workers keep their counts.
    """

    def __init__(self, ports: Mapping[str, int], metrics: Path, session: aiohttp.ClientSession) -> None:
        self.ports, self.metrics, self.session = ports, metrics, session

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/v1/models", self.models),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/healthz", self.ready),
            Route("/", self.live),
            Route("/metrics", self.exposition),
            Route("/v{protocol:int}/models/{rest:path}", self.forward, methods=["GET", "POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={Rejected: self.refuse})

    async def refuse(self, _request: Request, error: Exception) -> JSONResponse:
        """Answer a refused request."""
        assert isinstance(error, Rejected)
        return JSONResponse({"error": str(error)}, error.status, {"retry-after": "1"} if error.status == 503 else None)

    async def models(self, _request: Request) -> JSONResponse:
        """Return all routes."""
        return JSONResponse({"models": sorted(self.ports)})

    async def server(self, _request: Request) -> JSONResponse:
        """V2's server metadata."""
        return JSONResponse(http.described())

    async def live(self, _request: Request) -> JSONResponse:
        """The process answers."""
        return JSONResponse({"live": True, "status": "alive"})

    async def ready(self, _request: Request) -> JSONResponse:
        """Return whether all models answer."""
        states = dict[str, bool]()
        for name, port in self.ports.items():
            states[name] = False
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.session.get(f"http://127.0.0.1:{port}/v2/health/ready", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                    states[name] = answer.status == 200
        return JSONResponse({"ready": all(states.values()), "models": states}, 200 if all(states.values()) else 503)

    async def exposition(self, _request: Request) -> Response:
        """Prometheus' view of all workers."""
        content, kind = together(str(self.metrics))
        return Response(content, headers={"content-type": kind})

    async def forward(self, request: Request) -> Response:
        """Answer a request of one model."""
        name = str(request.path_params["rest"]).partition("/")[0].partition(":")[0]
        if name not in self.ports:
            raise Rejected(404, f"Model with name {name} does not exist.")
        body = await bodies.read(request, Serving())
        headers = [(key, value) for key, value in request.headers.items() if key not in DROPPED]
        target = f"http://127.0.0.1:{self.ports[name]}{request.scope['raw_path'].decode('ascii')}"
        call: Any = {"headers": headers, "data": body or None, "allow_redirects": False}
        try:
            async with self.session.request(request.method, target, **call) as answer:
                kept = {key.lower(): value for key, value in answer.headers.items() if key.lower() not in DROPPED}
                return Response(await answer.read(), answer.status, kept)
        except aiohttp.ClientError as error:
            raise Rejected(503, f"the workers of model {name} do not answer ({error!r}); they are being started again") from error


async def route(ports: Mapping[str, int], metrics: Path, sock: socket.socket, stop: asyncio.Event, started: Callable[[], None]) -> None:
    """Answer for several models on `sock` until `stop` is set."""
    timeout = aiohttp.ClientTimeout(total=None, connect=5)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)) as session:
        await http.serve(Router(ports, metrics, session).app(), sock, stop, started)
