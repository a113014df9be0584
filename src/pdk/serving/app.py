"""The HTTP side: the inference protocols V1 and V2 (Open Inference), readiness, metrics, and where every answer comes from."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pdk.errors import UserError
from pdk.serving import bodies, tensors
from pdk.serving.metrics import Metrics
from pdk.serving.model import Model
from pdk.serving.requestlog import RequestLog
from pdk.serving.runner import Answer, Refused, Runner
from pdk.settings import Serving

log = logging.getLogger(__name__)
EXTENSIONS = ["binary_tensor_data"]
Made = tuple[Response, Answer]


def encoded(content: Any) -> bytes:
    """JSON as it is sent.

    Raises:
        TypeError: it cannot be JSON.
    """
    try:
        return json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise TypeError(f"the model's answer cannot be sent as JSON: {error}") from error


class Protocol:
    """Answers for one model."""

    def __init__(self, model: Model, settings: Serving, requests: RequestLog) -> None:
        self.model, self.settings, self.requests = model, settings, requests
        self.ready = True
        self.metrics = Metrics(model.name)
        self.runner = Runner(model, self.metrics, settings.queue)
        self.headers = model.headers()

    def app(self) -> Starlette:
        """The ASGI application."""
        predict, infer = (partial(self.answer, name, work) for name, work in (("v1", self.predict), ("v2", self.infer)))
        routes = [
            # ":predict" is part of the last segment, so the longer patterns have to be tried first
            Route("/v1/models/{name}:predict", predict, methods=["POST"]),
            Route("/v1/models/{name}:explain", partial(self.answer, "v1-explain", self.explanation), methods=["POST"]),
            Route("/v2/models/{name}/infer", infer, methods=["POST"]),
            Route("/v2/models/{name}/versions/{version}/infer", infer, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.status),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.readiness),
            Route("/v2/models/{name}", self.metadata),
            Route("/v2/models/{name}/ready", self.status),
            Route("/v2/models/{name}/versions/{version}", self.metadata),
            Route("/v2/models/{name}/versions/{version}/ready", self.status),
            Route("/", self.alive),
            Route("/healthz", self.readiness),
            Route("/metrics", self.exposition),
        ]
        return Starlette(routes=routes, exception_handlers={Refused: self.refuse, HTTPException: self.missing, Exception: self.crash})

    def _headers(self, request: Request) -> dict[str, str]:
        given = request.headers.get("x-request-id", "")
        return {**self.headers, "x-request-id": given if 0 < len(given) <= 128 and given.isprintable() else str(uuid.uuid4())}

    def _error(self, request: Request, status: int, message: str) -> JSONResponse:
        headers = getattr(request.state, "headers", None) or self._headers(request)
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
        return JSONResponse({"name": "pdk", "version": version("pdk"), "extensions": EXTENSIONS})

    async def metadata(self, request: Request) -> JSONResponse:
        """V2's model metadata. What a handler takes and gives is its own affair: no tensors are named."""
        self._check_name(request)
        return JSONResponse(self.description(), headers=self._headers(request))

    def description(self) -> dict[str, Any]:
        """V2's model metadata."""
        return {"name": self.model.name, "versions": [self.model.version], "platform": "pytorch_mar", "inputs": [], "outputs": []}

    async def models(self, _request: Request) -> JSONResponse:
        """The one model."""
        return JSONResponse({"models": [self.model.name]})

    def _check_name(self, request: Request) -> None:
        self.check(request.path_params["name"], request.path_params.get("version", ""))

    def check(self, name: str, wanted: str) -> None:
        """Raise Refused for another model than this one, or another version of it."""
        if name != self.model.name:
            raise Refused(404, f"Model with name {name} does not exist.")
        if wanted not in ("", self.model.version):
            raise Refused(404, f"Model with name {name} has no version {wanted}; {self.model.version} is served.")

    async def status(self, request: Request) -> JSONResponse:
        """Whether the model is ready."""
        self._check_name(request)
        return JSONResponse({"name": self.model.name, "ready": self.ready}, headers=self._headers(request))

    async def answer(self, protocol: str, work: Callable[[Request, bytes, str], Awaitable[Made]], request: Request) -> Response:
        """A prediction by one of the protocols: counted, timed, noted, with its request's ID."""
        headers = request.state.headers = self._headers(request)
        self._check_name(request)
        began, code, body, answer = time.perf_counter(), 500, b"", b""
        try:
            body = await bodies.read(request, self.settings)
            began = time.perf_counter()
            response, timing = await work(request, body, headers["x-request-id"])
            code, answer = 200, bytes(response.body)
        except Refused as error:
            code, answer = error.status, str(error).encode()
            raise
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".encode()
            raise
        finally:
            seconds = time.perf_counter() - began
            self.metrics.answered(protocol, code, seconds)
            self.requests.note(headers, protocol, code, seconds, body, answer)
        response.headers.update(headers)
        response.headers["server-timing"] = f"queue;dur={timing.queue_s * 1000:.2f}, handler;dur={timing.handler_s * 1000:.2f}"
        return response

    async def predict(self, request: Request, body: bytes, request_id: str) -> Made:
        """V1 ``:predict``."""
        made = await self.runner.submit(await bodies.instances(request.headers, body), request_id)
        return Response(encoded({"predictions": made.predictions}), media_type="application/json"), made

    async def explanation(self, request: Request, body: bytes, request_id: str) -> Made:
        """V1 ``:explain``."""
        made = await self.runner.submit(await bodies.instances(request.headers, body), request_id, explain=True)
        return Response(encoded({"explanations": made.predictions}), media_type="application/json"), made

    async def infer(self, request: Request, body: bytes, request_id: str) -> Made:
        """V2 ``/infer`` with tensors in JSON or in binary."""
        try:
            content, parts = tensors.split(body, request.headers.get(tensors.HEADER_LENGTH))
            if not isinstance(content, dict):
                raise UserError(f"Expected a JSON object, not {type(content).__name__}")
            instances = tensors.instances_of(tensors.inputs_of(content, parts))
            made = await self.runner.submit(instances, request_id)
            head = {"model_name": self.model.name, "model_version": self.model.version, "id": str(content.get("id") or request_id)}
            answer, length = tensors.answer(content, tensors.outputs_of(made.predictions), head)
        except UserError as error:
            raise Refused(400, str(error)) from error
        except RecursionError as error:
            raise Refused(400, "the request is nested too deeply") from error
        if length is None:
            return Response(answer, media_type="application/json"), made
        return Response(answer, media_type="application/octet-stream", headers={tensors.HEADER_LENGTH: str(length)}), made
