"""Workspaces and projects, as users of the API call them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from pdk.local.determined.rules import experiments, workspaces
from pdk.local.determined.wire.http import Handlers, read
from pdk.local.determined.wire.messages import Json
from pdk.local.determined.wire.queries import number, ordered, page


class Workspaces(Handlers):
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        made = [
            route("GET", f"{api}/workspaces", self.list),
            route("POST", f"{api}/workspaces", self.create),
            route("GET", f"{api}/workspaces/{{id}}", self.get),
            route("PATCH", f"{api}/workspaces/{{id}}", self.patch),
            route("GET", f"{api}/workspaces/{{id}}/projects", self.list_projects),
            route("POST", f"{api}/workspaces/{{id}}/projects", self.create_project),
            route("GET", f"{api}/projects/{{id}}", self.get_project),
            route("PATCH", f"{api}/projects/{{id}}", self.patch_project),
        ]
        for table in ("workspace", "project"):
            path = f"{api}/{table}s/{{id}}"
            made.append(route("DELETE", path, partial(self.delete, table=table)))
            made += [route("POST", f"{path}/{verb}", partial(self.archive, table=table, verb=verb)) for verb in ("archive", "unarchive")]
        return made

    async def list(self, request: Request) -> Json:
        query = request.query_params
        exact, part = query.get("nameCaseSensitive"), (query.get("name") or "").lower()
        rows = [
            found for found in workspaces.listing(self.db.reader) if (exact is None or found.name == exact) and part in found.name.lower()
        ]
        keys: dict[str, Callable[[workspaces.Workspace], Any]] = {"ID": lambda found: found.id, "NAME": lambda found: found.name}
        return page(ordered(rows, query, keys), query, self.messages.workspace, "workspaces")

    async def create(self, request: Request) -> Json:
        found = await self.db.write(partial(workspaces.create, name=(await read(request, workspaces.Naming)).name or ""))
        return {"workspace": self.messages.workspace(found), "namespaceBindings": {}}

    async def get(self, request: Request) -> Json:
        return {"workspace": self.messages.workspace(workspaces.workspace(self.db.reader, number(request)))}

    async def patch(self, request: Request) -> Json:
        found = await self.db.write(partial(workspaces.change, id_=number(request), wanted=await read(request, workspaces.Naming)))
        return {"workspace": self.messages.workspace(found), "namespaceBindings": {}}

    async def list_projects(self, request: Request) -> Json:
        name = (request.query_params.get("name") or "").lower()
        rows = [found for found in workspaces.projects(self.db.reader, number(request)) if name in found.name.lower()]
        keys: dict[str, Callable[[workspaces.Project], Any]] = {
            "ID": lambda found: found.id,
            "CREATION_TIME": lambda found: found.id,  # numbers are given one after the other
            "NAME": lambda found: found.name,
            "DESCRIPTION": lambda found: found.description,
            "LAST_EXPERIMENT_START_TIME": lambda found: experiments.last_start(self.db.reader, found.id),
        }
        return page(ordered(rows, request.query_params, keys), request.query_params, self.messages.project, "projects")

    async def create_project(self, request: Request) -> Json:
        wanted = await read(request, workspaces.Naming)
        name, description = wanted.name or "", wanted.description or ""
        work = partial(workspaces.create_project, workspace_id=number(request), name=name, description=description)
        return {"project": self.messages.project(await self.db.write(work))}

    async def get_project(self, request: Request) -> Json:
        return {"project": self.messages.project(workspaces.project(self.db.reader, number(request)))}

    async def patch_project(self, request: Request) -> Json:
        found = await self.db.write(partial(workspaces.change_project, id_=number(request), wanted=await read(request, workspaces.Naming)))
        return {"project": self.messages.project(found)}

    async def archive(self, request: Request, table: str, verb: str) -> Json:
        await self.db.write(partial(workspaces.archive, table=table, id_=number(request), wanted=verb == "archive"))
        return {}

    async def delete(self, request: Request, table: str) -> Json:
        await self.db.write(partial(workspaces.delete, table=table, id_=number(request)))
        return {"completed": True}
