"""The HTTP side: the V1 inference protocol, readiness, and where every answer comes from."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pdk.serving.model import Model
from pdk.settings import Serving

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Protocol:
    """Answers for one model. The handler runs in one thread: the model is the bottleneck, and handlers are not made for more."""

    def __init__(self, model: Model, settings: Serving) -> None:
        self.model, self.settings = model, settings
        self.ready = True
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="handler")
        self._waiting = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/", self.alive),
            Route("/healthz", self.readiness),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.status),
            Route("/v1/models/{name}:predict", self.predict, methods=["POST"]),
            Route("/v2/health/live", self.alive),
            Route("/v2/health/ready", self.readiness),
        ]
        # ":predict" is part of the last segment, so the longer pattern has to be tried first
        routes.sort(key=lambda route: ":predict" not in route.path)
        return Starlette(routes=routes, exception_handlers={Refused: self.refuse, HTTPException: self.missing, Exception: self.crash})

    def _headers(self, request: Request) -> dict[str, str]:
        return {**self.model.headers(), "x-request-id": request.headers.get("x-request-id") or str(uuid.uuid4())}

    def _error(self, request: Request, status: int, message: str) -> JSONResponse:
        headers = self._headers(request)
        if status == 503:
            headers["retry-after"] = "1"
        return JSONResponse({"error": message}, status, headers)

    async def refuse(self, request: Request, error: Exception) -> JSONResponse:
        """A refused request."""
        assert isinstance(error, Refused)
        return self._error(request, error.status, str(error))

    async def missing(self, request: Request, error: Exception) -> JSONResponse:
        """A path or method that is none of ours."""
        assert isinstance(error, HTTPException)
        return self._error(request, error.status_code, f"{error.detail}: {request.method} {request.url.path}")

    async def crash(self, request: Request, error: Exception) -> JSONResponse:
        """A defect, here or in the handler."""
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return self._error(request, 500, f"{type(error).__name__} : {error}")

    async def alive(self, _request: Request) -> JSONResponse:
        """The process answers."""
        return JSONResponse({"status": "alive"})

    async def readiness(self, _request: Request) -> JSONResponse:
        """The model answers."""
        return JSONResponse({"ready": self.ready, "status": "ok" if self.ready else "failing"}, 200 if self.ready else 503)

    async def models(self, _request: Request) -> JSONResponse:
        """The one model."""
        return JSONResponse({"models": [self.model.name]})

    def _check_name(self, request: Request) -> None:
        name = request.path_params["name"]
        if name != self.model.name:
            raise Refused(404, f"Model with name {name} does not exist.")

    async def status(self, request: Request) -> JSONResponse:
        """Whether the model is ready."""
        self._check_name(request)
        return JSONResponse({"name": self.model.name, "ready": self.ready}, headers=self._headers(request))

    async def predict(self, request: Request) -> JSONResponse:
        """V1 ``:predict``."""
        self._check_name(request)
        if self._waiting >= self.settings.queue:
            raise Refused(503, f"{self._waiting} requests are waiting already; try again later")
        instances = await self._instances(request)
        headers = self._headers(request)
        self._waiting += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._handle, instances, headers["x-request-id"])
        finally:
            self._waiting -= 1
        return JSONResponse({"predictions": answer}, headers=headers)

    async def _instances(self, request: Request) -> list[Any]:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.settings.body_limit:
                raise Refused(413, f"the request is larger than {self.settings.body_limit:,} bytes")
            parts.append(part)
        try:
            body = json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            raise Refused(400, f"Unrecognized request format: {error}") from error
        if not isinstance(body, dict) or "instances" not in body:
            raise Refused(400, 'Expected a JSON object with the key "instances"')
        if not isinstance(body["instances"], list) or not body["instances"]:
            raise Refused(400, 'Expected "instances" to be a list with at least one element')
        return list(body["instances"])

    def _handle(self, instances: list[Any], request_id: str) -> list[Any]:
        context = self.model.context
        context.request_ids = dict.fromkeys(range(len(instances)), request_id)
        context.batch_size = len(instances)
        try:
            answer = self.model.handle(instances, context)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        if not isinstance(answer, list) or len(answer) != len(instances):
            raise TypeError(
                f"the handler answered {len(instances)} instances with {type(answer).__name__} instead of a list of that length"
            )
        return answer
