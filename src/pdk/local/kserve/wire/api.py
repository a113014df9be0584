"""The REST API: one set of handlers for all kinds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pdk.documents import Unreadable, read_json, read_yaml
from pdk.kit import logs
from pdk.kit.db import Database
from pdk.kit.web import TooLarge, defect, read_body
from pdk.local.kserve.rules import objects, patch, select
from pdk.local.kserve.rules.kinds import (
    ISVC,
    KINDS,
    MADE_HERE,
    POD,
    ApiError,
    Json,
    Kind,
    bad_request,
    details,
    unsupported_media,
)
from pdk.local.kserve.runtime.controller import Controller
from pdk.local.kserve.store import table
from pdk.local.kserve.wire import discovery, protobuf
from pdk.words import OPEN_REQUESTS

BODY_LIMIT = 3 << 20  # bytes, as a Kubernetes API server's
WATCH_S = 1800  # seconds after which a watch without a limit of its own ends; clients start it anew
Handler = Callable[[Request, Kind], Awaitable[Response]]


def status_body(code: int, reason: str) -> Json:
    """Return the body of a refusal by the door."""
    names = {401: "Unauthorized", 403: "Forbidden", 415: "UnsupportedMediaType"}
    return ApiError(code, names.get(code, "BadRequest"), "Unauthorized" if code == 401 else reason).status()


class Api:
    """The handlers."""

    def __init__(self, db: Database, controller: Controller, address: str) -> None:
        self.db, self.controller, self.address = db, controller, address

    def routes(self) -> list[Route]:
        """Return all routes."""
        made = [
            Route("/version", partial(self.fixed, discovery.VERSION)),
            Route("/version/", partial(self.fixed, discovery.VERSION)),
            Route("/livez", self.alive),
            Route("/readyz", self.alive),
            Route("/api", partial(self.fixed, discovery.core_versions(self.address))),
            Route("/apis", partial(self.fixed, {"kind": "APIGroupList", "apiVersion": "v1", "groups": discovery.groups()})),
            Route("/openapi/v3", partial(self.fixed, discovery.openapi_index())),
        ]
        for group in discovery.groups():
            made.append(Route(f"/apis/{group['name']}", partial(self.fixed, {"kind": "APIGroup", "apiVersion": "v1", **group})))
        for version in discovery.versions():
            made.append(Route(f"/{discovery.path_of(version)}", partial(self.fixed, discovery.resources(version))))
            made.append(Route(f"/openapi/v3/{discovery.path_of(version)}", partial(self.fixed, discovery.openapi(version))))
        made.append(Route(OPEN_REQUESTS, self.open_requests, methods=["POST"]))
        for kind in KINDS:
            made += self._kind_routes(kind)
        made.append(Route("/{path:path}", self.unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
        return made

    def _kind_routes(self, kind: Kind) -> list[Route]:
        base = f"/{discovery.path_of(kind.api_version)}"
        scope = f"{base}/namespaces/{{namespace}}" if kind.namespaced else base
        one = f"{scope}/{kind.plural}/{{name}}"
        made = [
            self._route("GET", f"{scope}/{kind.plural}", kind, self.listing),
            self._route("POST", f"{scope}/{kind.plural}", kind, self.create),
            self._route("DELETE", f"{scope}/{kind.plural}", kind, self.delete_all),
            self._route("GET", one, kind, self.get),
            self._route("PUT", one, kind, self.replace),
            self._route("PATCH", one, kind, self.patch),
            self._route("DELETE", one, kind, self.delete),
        ]
        if kind.namespaced:
            made.append(self._route("GET", f"{base}/{kind.plural}", kind, self.listing))
        if kind.status:
            for method, handler in (("GET", self.get), ("PUT", self.replace), ("PATCH", self.patch)):
                made.append(self._route(method, f"{one}/status", kind, handler))
        if kind is POD:
            made.append(self._route("GET", f"{one}/log", kind, self.pod_log))
        return made

    def _route(self, method: str, path: str, kind: Kind, handler: Handler) -> Route:
        async def answer(request: Request) -> Response:
            try:
                if method not in ("GET", "DELETE") and kind in MADE_HERE:
                    raise ApiError(405, "MethodNotAllowed", f"{kind.plural} are made by the local server itself", {})
                return await handler(request, kind)
            except ApiError as error:
                return JSONResponse(error.status(), error.code)
            except Exception as error:  # noqa: BLE001 - it is logged
                return JSONResponse(ApiError(500, "InternalError", defect(request, error)).status(), 500)

        return Route(path, answer, methods=[method], name=f"{method} {path}")

    async def fixed(self, content: Json, _request: Request) -> Response:
        """Return a document that never changes."""
        return JSONResponse(content)

    async def alive(self, _request: Request) -> Response:
        """For health checks."""
        return PlainTextResponse("ok")

    async def unknown(self, _request: Request) -> Response:
        """Answer a path that is none of ours."""
        what = "the server could not find the requested resource"
        return JSONResponse(ApiError(404, "NotFound", what, {}).status(), 404)

    async def open_requests(self, request: Request) -> Response:
        """The gateway says how many requests of each service (``NAMESPACE/NAME``) are open."""
        try:
            counts = msgspec.json.decode(await read_body(request, BODY_LIMIT), type=dict[str, float])
        except (TooLarge, msgspec.MsgspecError) as error:
            return JSONResponse(bad_request(f"counts by NAMESPACE/NAME are expected: {error}").status(), 400)
        for key, count in counts.items():
            namespace, _, name = key.partition("/")
            self.controller.report((namespace, name), count)
        return JSONResponse({})

    # reading

    def _answer(self, request: Request, kind: Kind, bodies: list[Json], *, single: bool) -> Response:
        version = str(table.version(self.db.reader))
        if "as=Table" in request.headers.get("accept", ""):
            include = request.query_params.get("includeObject", "Metadata")
            return JSONResponse(select.table(kind, bodies, version, include=include))
        if single:
            return JSONResponse(bodies[0])
        content = {
            "kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {"resourceVersion": version}, "items": bodies,
        }  # fmt: skip
        return JSONResponse(content)

    async def get(self, request: Request, kind: Kind) -> Response:
        """Return one object."""
        found = objects.get(self.db.reader, kind, request.path_params.get("namespace", ""), request.path_params["name"])
        return self._answer(request, kind, [found], single=True)

    def _test(self, request: Request) -> select.Test:
        by_label = select.labels(request.query_params.get("labelSelector") or "")
        by_field = select.fields(request.query_params.get("fieldSelector") or "")
        return lambda body: by_label(body) and by_field(body)

    async def listing(self, request: Request, kind: Kind) -> Response:
        """Return a list, or a watch."""
        query, namespace, test = request.query_params, request.path_params.get("namespace", ""), self._test(request)
        if query.get("watch") in ("true", "1"):
            if query.get("sendInitialEvents"):
                what = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
                raise ApiError(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: {what}', {})
            after, limit_s = _whole(query, "resourceVersion"), _whole(query, "timeoutSeconds") or WATCH_S
            return StreamingResponse(self._watch(request, kind, test, after, limit_s), media_type="application/json")
        found = [body for body in table.listing(self.db.reader, kind.resource, namespace) if test(body)]
        return self._answer(request, kind, found, single=False)

    async def _watch(self, request: Request, kind: Kind, test: select.Test, after: int, limit_s: float) -> AsyncIterator[bytes]:
        namespace = request.path_params.get("namespace", "")
        as_table = "as=Table" in request.headers.get("accept", "")

        def line(type_: str, body: Json) -> bytes:
            shown = select.table(kind, [body], body["metadata"]["resourceVersion"]) if as_table else body
            return json.dumps({"type": type_, "object": shown}).encode() + b"\n"

        if after == 0:
            after = table.version(self.db.reader)
            for body in table.listing(self.db.reader, kind.resource, namespace):
                if test(body):
                    yield line("ADDED", body)
        try:
            async with asyncio.timeout(limit_s):
                async for _ in self.db.changes.watch():
                    events = table.since(self.db.reader, kind.resource, namespace, after)
                    if events is None:
                        newest = table.version(self.db.reader)
                        gone = ApiError(410, "Expired", f"too old resource version: {after} ({newest})").status()
                        yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
                        return
                    for event in events:
                        after = event.version
                        if test(event.body):
                            yield line(event.type, event.body)
        except TimeoutError:
            return

    async def pod_log(self, request: Request, kind: Kind) -> Response:
        """Return what a predictor's process printed."""
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        objects.get(self.db.reader, kind, namespace, name)
        path, ended = self.controller.pod_log(namespace, name)
        query = request.query_params
        if query.get("follow") == "true":

            async def stream() -> AsyncIterator[str]:
                async for line in logs.follow(path, ended):
                    yield line + "\n"

            return StreamingResponse(stream(), media_type="text/plain")
        lines = logs.tail(path, _whole(query, "tailLines", 1 << 30), 1 << 26)
        return PlainTextResponse("".join(f"{line}\n" for line in lines))

    # writing

    async def _body(self, request: Request) -> Any:
        try:
            raw = await read_body(request, BODY_LIMIT)
        except TooLarge as error:
            raise ApiError(413, "RequestEntityTooLarge", str(error)) from error
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        if not raw:
            return {}
        if media == protobuf.MEDIA:
            return protobuf.decode(raw)
        if media in ("application/yaml", patch.APPLY):
            return _read(read_yaml, raw)
        if media not in ("", "application/json", patch.MERGE, patch.JSON_PATCH, patch.STRATEGIC):
            raise unsupported_media("application/json", "application/yaml")
        return _read(read_json, raw)

    async def _write(self, work: Any) -> Json:
        return dict(await self.db.write(work))

    @staticmethod
    def _asked(request: Request) -> dict[str, Any]:
        query = request.query_params
        return {"dry_run": query.get("dryRun") == "All", "strict": query.get("fieldValidation") == "Strict"}

    async def create(self, request: Request, kind: Kind) -> Response:
        """POST."""
        body, namespace = await self._body(request), request.path_params.get("namespace", "")
        made = await self._write(partial(objects.create, kind=kind, namespace=namespace, body=body, **self._asked(request)))
        return JSONResponse(made, 201)

    async def _change(self, request: Request, kind: Kind, edit: Callable[[Json], Any]) -> Response:
        namespace, name = request.path_params.get("namespace", ""), request.path_params["name"]
        status = request.url.path.endswith("/status")
        made = await self._write(
            partial(objects.change, kind=kind, namespace=namespace, name=name, edit=edit, status=status, **self._asked(request))
        )
        return JSONResponse(made)

    async def replace(self, request: Request, kind: Kind) -> Response:
        """PUT."""
        body = await self._body(request)
        meta = body.get("metadata") if isinstance(body, dict) else None
        if kind.custom and not (isinstance(meta, dict) and meta.get("resourceVersion")):
            field, what, name = "metadata.resourceVersion", "Invalid value: 0: must be specified for an update", request.path_params["name"]
            causes = [{"reason": "FieldValueInvalid", "message": what, "field": field}]
            raise ApiError(422, "Invalid", f'{kind.resource} "{name}" is invalid: {field}: {what}', details(kind, name, causes=causes))
        return await self._change(request, kind, lambda _present: body)

    async def patch(self, request: Request, kind: Kind) -> Response:
        """PATCH."""
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        if media == patch.APPLY:
            return await self._apply(request, kind)
        if media not in (patch.MERGE, patch.JSON_PATCH) and not (media == patch.STRATEGIC and not kind.custom):
            accepted = (patch.JSON_PATCH, patch.MERGE, *(() if kind.custom else (patch.STRATEGIC,)), patch.APPLY)
            raise unsupported_media(*accepted)
        body = await self._body(request)
        return await self._change(request, kind, lambda present: patch.apply(kind, present, body, media))

    async def _apply(self, request: Request, kind: Kind) -> Response:
        """Server-side apply: the object is made, or what is sent is merged into it; nobody keeps who owns which field."""
        body, namespace = await self._body(request), request.path_params.get("namespace", "")
        if table.get(self.db.reader, kind.resource, namespace, request.path_params["name"]) is None:
            made = await self._write(partial(objects.create, kind=kind, namespace=namespace, body=body, **self._asked(request)))
            return JSONResponse(made, 201)
        return await self._change(request, kind, lambda present: patch.apply(kind, present, body, patch.MERGE))

    async def delete(self, request: Request, kind: Kind) -> Response:
        """DELETE of one."""
        options = await self._body(request)
        namespace, name = request.path_params.get("namespace", ""), request.path_params["name"]
        work = partial(objects.delete, kind=kind, namespace=namespace, name=name, options=options, dry_run=self._asked(request)["dry_run"])
        gone = await self._write(work)
        if kind is ISVC:  # its controller holds it with a finalizer: the answer is the object that goes
            return JSONResponse(
                {**gone, "metadata": {**gone["metadata"], "deletionTimestamp": objects.now(), "deletionGracePeriodSeconds": 0}}
            )
        answer = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details(kind, name, uid=gone["metadata"]["uid"]),
        }  # fmt: skip
        return JSONResponse(answer)

    async def delete_all(self, request: Request, kind: Kind) -> Response:
        """DELETE of what a list would show."""
        namespace, test = request.path_params.get("namespace", ""), self._test(request)
        found = [body for body in table.listing(self.db.reader, kind.resource, namespace) if test(body)]
        for body in found:
            await self._write(partial(objects.delete, kind=kind, namespace=namespace, name=body["metadata"]["name"]))
        return self._answer(request, kind, found, single=False)


def _read(reader: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return reader(raw)
    except Unreadable as error:
        raise bad_request(f"the body of the request cannot be read: {error}") from error


def _whole(query: Mapping[str, str], name: str, default: int = 0) -> int:
    if not (text := query.get(name)):
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise bad_request(f"{name}: Invalid value: {text!r}: must be a whole number")
    return int(text)
