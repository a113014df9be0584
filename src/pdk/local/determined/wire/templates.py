"""Config templates: settings that many experiments share (`det template`, `det experiment create --template`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from pdk.local.determined.rules import templates, workspaces
from pdk.local.determined.rules.forms import Form, Number
from pdk.local.determined.wire.http import Handlers, body, read
from pdk.local.determined.wire.messages import Json
from pdk.local.determined.wire.queries import ordered, page


class NewTemplate(Form, frozen=True):
    """A template to be kept."""

    config: dict[str, Any]
    workspace_id: Number = 0


class Templates(Handlers):
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API."""
        base, route = "/api/v1/templates", self.frame.route
        return [
            route("GET", base, self.listed),
            route("GET", f"{base}/{{name}}", self.get),
            route("POST", f"{base}/{{name}}", self.create),
            route("PUT", f"{base}/{{name}}", self.put),
            route("PATCH", f"{base}/{{name}}", self.patch),
            route("DELETE", f"{base}/{{name}}", self.delete),
        ]

    def _message(self, template: templates.Template) -> Json:
        return {"name": template.name, "config": dict(template.config), "workspaceId": template.workspace}

    def _answer(self, name: str) -> Json:
        return {"template": self._message(templates.get(self.db.reader, name))}

    async def listed(self, request: Request) -> Json:
        part = (request.query_params.get("name") or "").lower()
        found = [template for template in templates.listing(self.db.reader) if part in template.name.lower()]
        found = ordered(found, request.query_params, {"NAME": lambda template: template.name}, "NAME")
        return page(found, request.query_params, self._message, "templates")

    async def get(self, request: Request) -> Json:
        return self._answer(request.path_params["name"])

    async def create(self, request: Request) -> Json:
        return await self._write(request, replace=False)

    async def put(self, request: Request) -> Json:
        return await self._write(request, replace=True)

    async def _write(self, request: Request, *, replace: bool) -> Json:
        name, wanted = request.path_params["name"], await read(request, NewTemplate)
        made = templates.Template(name, wanted.config, wanted.workspace_id or workspaces.FIRST)
        await self.db.write(partial(templates.put, template=made, replace=replace))
        return self._answer(name)

    async def patch(self, request: Request) -> Json:
        name, config = request.path_params["name"], await body(request)
        changed = replace(templates.get(self.db.reader, name), config=config)
        await self.db.write(partial(templates.put, template=changed, replace=True))
        return self._answer(name)

    async def delete(self, request: Request) -> Json:
        await self.db.write(partial(templates.delete, name=request.path_params["name"]))
        return {}
