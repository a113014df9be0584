"""The HTTP side: the inference protocols V1 and V2 (Open Inference), readiness, metrics, and where every answer comes from."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pdk.errors import UserError
from pdk.serving import bodies, http, tensors
from pdk.serving.metrics import Metrics
from pdk.serving.model import Model
from pdk.serving.requestlog import RequestLog
from pdk.serving.runner import Answer, Rejected, Runner
from pdk.settings import Serving

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """The body of an answer, and what is said about it."""

    body: bytes
    timing: Answer
    media: bytes = b"application/json"
    more: tuple[tuple[bytes, bytes], ...] = ()


def encoded(content: Any) -> bytes:
    """JSON as it is sent.

    Raises:
        TypeError: it cannot be JSON.
    """
    try:
        return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise TypeError(f"the model's answer cannot be sent as JSON: {error}") from error


def request_id(given: str) -> str:
    """Return the ID that a client gave its request, where it fits into a header; otherwise a new one."""
    return given if 0 < len(given) <= 128 and given.isascii() and given.isprintable() else str(uuid.uuid4())


class Protocol:
    """Answers for one model."""

    def __init__(self, model: Model, settings: Serving, requests: RequestLog) -> None:
        self.model, self.settings, self.requests = model, settings, requests
        self.ready = True
        self.metrics = Metrics(model.name)
        self.runner = Runner(model, self.metrics, settings.queue)
        self.headers = model.headers()
        self._raw_headers = [(key.encode(), value.encode("latin-1", "replace")) for key, value in self.headers.items()]

    def app(self) -> ASGIApp:
        """Return the ASGI application. Predictions go past its router: they are what has to be fast."""
        name, models = self.model.name, f"/v2/models/{self.model.name}"
        direct: dict[str, Call] = {
            f"/v1/models/{name}:predict": ("v1", self.predict),
            f"/v1/models/{name}:explain": ("v1-explain", self.explanation),
            f"{models}/infer": ("v2", self.infer),
            f"{models}/versions/{self.model.version}/infer": ("v2", self.infer),
        }
        rest = self._routed()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            call = direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
            if call is None:
                await rest(scope, receive, send)
            else:
                await self._answer(*call, Request(scope, receive, send), send)

        return app

    def _routed(self) -> Starlette:
        """Answer what is not a prediction of this model."""
        routes = [
            Route("/v1/models", self.models),
            Route("/v1/models/{name}:{verb}", self.status, methods=["POST"]),
            Route("/v1/models/{name}", self.status),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.readiness),
            Route("/v2/models/{name}", self.metadata),
            Route("/v2/models/{name}/ready", self.status),
            Route("/v2/models/{name}/infer", self.status, methods=["POST"]),
            Route("/v2/models/{name}/versions/{version}", self.metadata),
            Route("/v2/models/{name}/versions/{version}/ready", self.status),
            Route("/v2/models/{name}/versions/{version}/infer", self.status, methods=["POST"]),
            Route("/", self.alive),
            Route("/healthz", self.readiness),
            Route("/metrics", self.exposition),
        ]
        return Starlette(routes=routes, exception_handlers={Rejected: self.refuse, HTTPException: self.missing, Exception: self.crash})

    def _headers(self, request: Request) -> dict[str, str]:
        return {**self.headers, "x-request-id": request_id(request.headers.get("x-request-id", ""))}

    def _error(self, request: Request, status: int, message: str) -> JSONResponse:
        headers = getattr(request.state, "headers", None) or self._headers(request)
        if status == 503:
            headers["retry-after"] = "1"
        return JSONResponse({"error": message}, status, headers)

    async def refuse(self, request: Request, error: Exception) -> JSONResponse:
        """Answer a refused request."""
        assert isinstance(error, Rejected)
        return self._error(request, error.status, str(error))

    async def missing(self, request: Request, error: Exception) -> JSONResponse:
        """Answer a path or method that is none of ours."""
        assert isinstance(error, HTTPException)
        return self._error(request, error.status_code, f"{error.detail}: {request.method} {request.url.path}")

    async def crash(self, request: Request, error: Exception) -> JSONResponse:
        """Answer a defect, here or in the handler."""
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return self._error(request, 500, f"{type(error).__name__} : {error}")

    async def alive(self, _request: Request) -> JSONResponse:
        """The process answers."""
        return JSONResponse({"status": "alive"})

    async def live(self, _request: Request) -> JSONResponse:
        """The process answers, in V2's words."""
        return JSONResponse({"live": True})

    async def readiness(self, _request: Request) -> JSONResponse:
        """The model answers."""
        return JSONResponse({"ready": self.ready, "status": "ok" if self.ready else "failing"}, 200 if self.ready else 503)

    async def exposition(self, _request: Request) -> Response:
        """Prometheus' view."""
        content, kind = self.metrics.text()
        return Response(content, headers={"content-type": kind})

    async def server(self, _request: Request) -> JSONResponse:
        """V2's server metadata."""
        return JSONResponse(http.described())

    async def metadata(self, request: Request) -> JSONResponse:
        """V2's model metadata. What a handler takes and gives is its own affair: no tensors are named."""
        self._check_name(request)
        return JSONResponse(self.description(), headers=self._headers(request))

    def description(self) -> dict[str, Any]:
        """V2's model metadata."""
        return {"name": self.model.name, "versions": [self.model.version], "platform": "pytorch_mar", "inputs": [], "outputs": []}

    async def models(self, _request: Request) -> JSONResponse:
        """Return the one model."""
        return JSONResponse({"models": [self.model.name]})

    def _check_name(self, request: Request) -> None:
        self.check(request.path_params["name"], request.path_params.get("version", ""))

    def check(self, name: str, wanted: str) -> None:
        """Raise Rejected for another model than this one, or another version of it."""
        if name != self.model.name:
            raise Rejected(404, f"Model with name {name} does not exist.")
        if wanted not in ("", self.model.version):
            raise Rejected(404, f"Model with name {name} has no version {wanted}; {self.model.version} is served.")

    async def status(self, request: Request) -> JSONResponse:
        """Return whether the model is ready; a POST comes here for another model than this one, or to do what none can."""
        self._check_name(request)
        if request.method == "POST":
            raise Rejected(
                404, f"Model with name {self.model.name} has no {request.url.path.rpartition(':')[2]!r}; predict and explain it has."
            )
        return JSONResponse({"name": self.model.name, "ready": self.ready}, headers=self._headers(request))

    async def _answer(self, protocol: str, work: Work, request: Request, send: Send) -> None:
        """A prediction by one of the protocols: counted, timed, noted, with its request's ID."""
        headers = request.state.headers = self._headers(request)
        began, code, body, said = time.perf_counter(), 500, b"", b""
        try:
            body = await bodies.read(request, self.settings)
            began = time.perf_counter()
            made = await work(request, body, headers["x-request-id"])
            code, said = 200, made.body
        except Rejected as error:
            code, said = error.status, str(error).encode()
            failed = await self.refuse(request, error)
        except Exception as error:  # noqa: BLE001 - the handler may raise anything
            said = f"{type(error).__name__}: {error}".encode()
            failed = await self.crash(request, error)
        seconds = time.perf_counter() - began
        self.metrics.answered(protocol, code, seconds)
        self.requests.note(headers, protocol, code, seconds, body, said)
        if code != 200:
            await failed(request.scope, request.receive, send)
            return
        timing = f"queue;dur={made.timing.queue_s * 1000:.2f}, handler;dur={made.timing.handler_s * 1000:.2f}"
        raw = [
            (b"content-type", made.media), (b"content-length", b"%d" % len(said)), (b"server-timing", timing.encode()), *made.more,
            *self._raw_headers, (b"x-request-id", headers["x-request-id"].encode("latin-1", "replace")),
        ]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": said})

    async def predict(self, request: Request, body: bytes, request_id: str) -> Made:
        """V1 ``:predict``."""
        made = await self.runner.submit(await bodies.instances(request.headers, body), request_id)
        return Made(encoded({"predictions": made.predictions}), made)

    async def explanation(self, request: Request, body: bytes, request_id: str) -> Made:
        """V1 ``:explain``."""
        made = await self.runner.submit(await bodies.instances(request.headers, body), request_id, explain=True)
        return Made(encoded({"explanations": made.predictions}), made)

    async def infer(self, request: Request, body: bytes, request_id: str) -> Made:
        """V2 ``/infer`` with tensors in JSON or in binary."""
        try:
            header, parts = tensors.split(body, request.headers.get(tensors.HEADER_LENGTH))
            content = bodies.parse(header)
            instances = tensors.instances_of(tensors.inputs_of(content, parts))
            made = await self.runner.submit(instances, request_id)
            head = {"model_name": self.model.name, "model_version": self.model.version, "id": str(content.get("id") or request_id)}
            answer, length = tensors.answer(content, tensors.outputs_of(made.predictions), head)
        except UserError as error:
            raise Rejected(400, str(error)) from error
        except RecursionError as error:
            raise Rejected(400, "the request is nested too deeply") from error
        if length is None:
            return Made(answer, made)
        return Made(answer, made, b"application/octet-stream", ((tensors.HEADER_LENGTH.encode(), b"%d" % length),))


Work = Callable[[Request, bytes, str], Awaitable[Made]]
Call = tuple[str, Work]
