"""The model registry, workspaces and projects, as users of the API call them."""

from __future__ import annotations

import sqlite3
from functools import partial

from starlette.requests import Request
from starlette.routing import Route

from pdk.errors import NotFound
from pdk.local.determined.service import registry
from pdk.local.determined.wire.http import Handlers, body, number
from pdk.local.determined.wire.messages import Json, page


class Registry(Handlers):
    """The handlers."""

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("POST", f"{api}/models", self.create_model),
            route("GET", f"{api}/models", self.list_models),
            route("GET", f"{api}/models/{{name}}", self.get_model),
            route("PATCH", f"{api}/models/{{name}}", self.patch_model),
            route("DELETE", f"{api}/models/{{name}}", self.delete_model),
            route("POST", f"{api}/models/{{name}}/archive", partial(self.archive_model, flag=1)),
            route("POST", f"{api}/models/{{name}}/unarchive", partial(self.archive_model, flag=0)),
            route("POST", f"{api}/models/{{name}}/move", self.move_model),
            route("POST", f"{api}/models/{{name}}/versions", self.create_version),
            route("GET", f"{api}/models/{{name}}/versions", self.list_versions),
            route("GET", f"{api}/models/{{name}}/versions/{{id}}", self.get_version),
            route("PATCH", f"{api}/models/{{name}}/versions/{{id}}", self.patch_version),
            route("DELETE", f"{api}/models/{{name}}/versions/{{id}}", self.delete_version),
            route("GET", f"{api}/workspaces", self.list_workspaces),
            route("POST", f"{api}/workspaces", self.create_workspace),
            route("GET", f"{api}/workspaces/{{id}}", self.get_workspace),
            route("GET", f"{api}/workspaces/{{id}}/projects", self.list_projects),
            route("POST", f"{api}/workspaces/{{id}}/projects", self.create_project),
            route("GET", f"{api}/projects/{{id}}", self.get_project),
        ]

    # models

    async def create_model(self, request: Request) -> Json:
        given = await body(request)
        await self.db.write(partial(registry.create_model, body=given))
        return {"model": self.messages.model(registry.model(self.db.reader, str(given["name"])))}

    async def list_models(self, request: Request) -> Json:
        query = request.query_params
        name, archived = (query.get("name") or "").lower(), query.get("archived")
        rows = [
            row
            for row in self.db.reader.execute("SELECT * FROM model ORDER BY id").fetchall()
            if name in row["name"].lower() and (archived is None or bool(row["archived"]) == (archived == "true"))
        ]
        return page(rows[::-1] if query.get("orderBy") == "ORDER_BY_DESC" else rows, query, self.messages.model, "models")

    def _model(self, request: Request) -> sqlite3.Row:
        return registry.model(self.db.reader, request.path_params["name"])

    async def get_model(self, request: Request) -> Json:
        return {"model": self.messages.model(self._model(request))}

    async def patch_model(self, request: Request) -> Json:
        pk, given = self._model(request)["id"], await body(request)

        def work(db: sqlite3.Connection) -> None:
            registry.change(db, "model", pk, given, ("name", "description", "notes"))
            if given.get("workspaceName"):
                registry.move_model(db, pk, registry.workspace_by_name(db, given["workspaceName"])["id"])
            elif given.get("workspaceId"):
                registry.move_model(db, pk, int(given["workspaceId"]))

        await self.db.write(work)
        return {"model": self.messages.model(registry.model(self.db.reader, str(pk)))}

    async def delete_model(self, request: Request) -> Json:
        pk = self._model(request)["id"]
        await self.db.write(lambda db: db.execute("DELETE FROM model WHERE id = ?", (pk,)))
        return {}

    async def archive_model(self, request: Request, flag: int) -> Json:
        pk = self._model(request)["id"]
        await self.db.write(lambda db: db.execute("UPDATE model SET archived = ? WHERE id = ?", (flag, pk)))
        return {}

    async def move_model(self, request: Request) -> Json:
        target = int((await body(request)).get("destinationWorkspaceId") or 0)
        await self.db.write(partial(registry.move_model, pk=self._model(request)["id"], workspace=target))
        return {}

    async def create_version(self, request: Request) -> Json:
        given = await body(request)
        row = await self.db.write(partial(registry.add_version, model_name=request.path_params["name"], body=given))
        return {"modelVersion": self.messages.version(row)}

    async def list_versions(self, request: Request) -> Json:
        owner = self._model(request)
        rows = registry.versions(self.db.reader, owner["id"])
        rows = rows if request.query_params.get("orderBy") == "ORDER_BY_DESC" else rows[::-1]
        return {"model": self.messages.model(owner), **page(rows, request.query_params, self.messages.version, "modelVersions")}

    def _version(self, request: Request) -> sqlite3.Row:
        return registry.version(self.db.reader, self._model(request)["id"], number(request))

    async def get_version(self, request: Request) -> Json:
        return {"modelVersion": self.messages.version(self._version(request))}

    async def patch_version(self, request: Request) -> Json:
        pk, given = self._version(request)["id"], await body(request)
        await self.db.write(partial(registry.change, table="version", pk=pk, body=given, text=("name", "comment", "notes")))
        return await self.get_version(request)

    async def delete_version(self, request: Request) -> Json:
        pk = self._version(request)["id"]
        await self.db.write(lambda db: db.execute("DELETE FROM version WHERE id = ?", (pk,)))
        return {}

    # workspaces

    async def list_workspaces(self, request: Request) -> Json:
        query = request.query_params
        exact, part = query.get("nameCaseSensitive"), (query.get("name") or "").lower()
        rows = [
            row
            for row in self.db.reader.execute("SELECT * FROM workspace ORDER BY id").fetchall()
            if (exact is None or row["name"] == exact) and (not part or part == row["name"].lower())
        ]
        return page(rows, query, self.messages.workspace, "workspaces")

    async def create_workspace(self, request: Request) -> Json:
        row = await self.db.write(partial(registry.create_workspace, name=str((await body(request)).get("name") or "")))
        return {"workspace": self.messages.workspace(row), "namespaceBindings": {}}

    def _row(self, table: str, id_: int) -> sqlite3.Row:
        row: sqlite3.Row | None = self.db.reader.execute(f"SELECT * FROM {table} WHERE id = ?", (id_,)).fetchone()
        if row is None:
            raise NotFound(f"{table} {id_} not found")
        return row

    async def get_workspace(self, request: Request) -> Json:
        return {"workspace": self.messages.workspace(self._row("workspace", number(request)))}

    async def list_projects(self, request: Request) -> Json:
        self._row("workspace", number(request))
        name = (request.query_params.get("name") or "").lower()
        rows = self.db.reader.execute("SELECT * FROM project WHERE workspace = ? ORDER BY id", (number(request),)).fetchall()
        rows = [row for row in rows if not name or row["name"].lower() == name]
        return page(rows, request.query_params, self.messages.project, "projects")

    async def create_project(self, request: Request) -> Json:
        given, workspace = await body(request), self._row("workspace", number(request))["id"]
        name, description = str(given.get("name") or ""), str(given.get("description") or "")
        row = await self.db.write(partial(registry.create_project, workspace=workspace, name=name, description=description))
        return {"project": self.messages.project(row)}

    async def get_project(self, request: Request) -> Json:
        return {"project": self.messages.project(self._row("project", number(request)))}
