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
from pdk.serving import tensors
from pdk.serving.metrics import Metrics
from pdk.serving.model import Model
from pdk.serving.runner import Refused, Runner
from pdk.settings import Serving

log = logging.getLogger(__name__)


class Protocol:
    """Answers for one model."""

    def __init__(self, model: Model, settings: Serving) -> None:
        self.model, self.settings = model, settings
        self.ready = True
        self.metrics = Metrics(model.name)
        self._runner = Runner(model, self.metrics, settings.queue)

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            # ":predict" is part of the last segment, so the longer pattern has to be tried first
            Route("/v1/models/{name}:predict", partial(self.answer, "v1", self.predict), methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.status),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.readiness),
            Route("/v2/models/{name}", self.metadata),
            Route("/v2/models/{name}/ready", self.status),
            Route("/v2/models/{name}/infer", partial(self.answer, "v2", self.infer), methods=["POST"]),
            Route("/v2/models/{name}/versions/{version}", self.metadata),
            Route("/v2/models/{name}/versions/{version}/ready", self.status),
            Route("/v2/models/{name}/versions/{version}/infer", partial(self.answer, "v2", self.infer), methods=["POST"]),
            Route("/", self.alive),
            Route("/healthz", self.readiness),
            Route("/metrics", self.exposition),
        ]
        return Starlette(routes=routes, exception_handlers={Refused: self.refuse, HTTPException: self.missing, Exception: self.crash})

    @property
    def version(self) -> str:
        """The model's version, as its provenance names it."""
        return self.model.headers()["pdk-model-version"]

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
        return JSONResponse({"name": "pdk", "version": version("pdk"), "extensions": []})

    async def metadata(self, request: Request) -> JSONResponse:
        """V2's model metadata. What a handler takes and gives is its own affair: no tensors are named."""
        self._check_name(request)
        content = {"name": self.model.name, "versions": [self.version], "platform": "pytorch_mar", "inputs": [], "outputs": []}
        return JSONResponse(content, headers=self._headers(request))

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

    async def answer(
        self, protocol: str, work: Callable[[dict[str, Any], str], Awaitable[dict[str, Any]]], request: Request
    ) -> JSONResponse:
        """A prediction by one of the protocols: counted, timed, with its request's ID."""
        self._check_name(request)
        began, code = time.perf_counter(), 500
        try:
            content = await self._content(request)
            began = time.perf_counter()
            headers = self._headers(request)
            made = await work(content, headers["x-request-id"])
            code = 200
        except Refused as error:
            code = error.status
            raise
        finally:
            self.metrics.answered(protocol, code, time.perf_counter() - began)
        return JSONResponse(made, headers=headers)

    async def _content(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request."""
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
        if not isinstance(body, dict):
            raise Refused(400, f"Expected a JSON object, not {type(body).__name__}")
        return body

    async def predict(self, content: dict[str, Any], request_id: str) -> dict[str, Any]:
        """V1 ``:predict``."""
        if "instances" not in content:
            raise Refused(400, 'Expected a JSON object with the key "instances"')
        if not isinstance(content["instances"], list) or not content["instances"]:
            raise Refused(400, 'Expected "instances" to be a list with at least one element')
        return {"predictions": await self._runner.submit(content["instances"], request_id)}

    async def infer(self, content: dict[str, Any], request_id: str) -> dict[str, Any]:
        """V2 ``/infer`` with tensors in JSON."""
        try:
            instances = tensors.instances_of(content)
        except UserError as error:
            raise Refused(400, str(error)) from error
        outputs = tensors.outputs_of(await self._runner.submit(instances, request_id))
        wanted = [entry.get("name") for entry in content.get("outputs") or () if isinstance(entry, dict)]
        if unknown := set(wanted) - {entry["name"] for entry in outputs}:
            raise Refused(
                400, f"the model has no output {min(map(str, unknown))!r}; it has {', '.join(entry['name'] for entry in outputs)}"
            )
        outputs = [entry for entry in outputs if not wanted or entry["name"] in wanted]
        id_ = str(content.get("id") or request_id)
        return {"model_name": self.model.name, "model_version": self.version, "id": id_, "outputs": outputs}
