"""Config templates: settings that many experiments share (`det template`, `det experiment create --template`)."""

from __future__ import annotations

import json
import sqlite3

from starlette.requests import Request
from starlette.routing import Route

from pdk.errors import Conflict, UserError
from pdk.local.determined.rules import registry
from pdk.local.determined.wire.http import Handlers, body
from pdk.local.determined.wire.messages import Json, page


class Templates(Handlers):
    """The handlers."""

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        base, route = "/api/v1/templates", self.frame.route
        return [
            route("GET", base, self.listed),
            route("GET", f"{base}/{{name}}", self.get),
            route("POST", f"{base}/{{name}}", self.create),
            route("PUT", f"{base}/{{name}}", self.put),
            route("PATCH", f"{base}/{{name}}", self.patch),
            route("DELETE", f"{base}/{{name}}", self.delete),
        ]

    def _message(self, row: sqlite3.Row) -> Json:
        return {"name": row["name"], "config": json.loads(row["config"]), "workspaceId": row["workspace"]}

    def _answer(self, name: str) -> Json:
        return {"template": self._message(registry.template(self.db.reader, name))}

    async def listed(self, request: Request) -> Json:
        part = (request.query_params.get("name") or "").lower()
        rows = self.db.reader.execute("SELECT * FROM template ORDER BY name").fetchall()
        return page([row for row in rows if part in row["name"].lower()], request.query_params, self._message, "templates")

    async def get(self, request: Request) -> Json:
        return self._answer(request.path_params["name"])

    async def create(self, request: Request) -> Json:
        return await self._write(request, "INSERT INTO template (name, config, workspace) VALUES (?1, ?2, ?3)")

    async def put(self, request: Request) -> Json:
        sql = "INSERT INTO template (name, config, workspace) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET config = ?2"
        return await self._write(request, sql)

    async def _write(self, request: Request, sql: str) -> Json:
        name, given = request.path_params["name"], await body(request)
        if not isinstance(given.get("config"), dict):
            raise UserError(f"template {name!r}: config: a mapping is expected, not {given.get('config')!r}")
        values = (name, json.dumps(given["config"]), int(given.get("workspaceId") or 1))
        try:
            await self.db.write(lambda db: db.execute(sql, values))
        except sqlite3.IntegrityError as error:
            raise Conflict(f"a template with name {name!r} already exists; set it, or choose another name") from error
        return self._answer(name)

    async def patch(self, request: Request) -> Json:
        name, config = request.path_params["name"], await body(request)
        registry.template(self.db.reader, name)
        await self.db.write(lambda db: db.execute("UPDATE template SET config = ? WHERE name = ?", (json.dumps(config), name)))
        return self._answer(name)

    async def delete(self, request: Request) -> Json:
        name = request.path_params["name"]
        registry.template(self.db.reader, name)
        await self.db.write(lambda db: db.execute("DELETE FROM template WHERE name = ?", (name,)))
        return {}
