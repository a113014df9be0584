"""The model registry, as users of the API call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from pdk.local.determined.rules import registry, workspaces
from pdk.local.determined.rules.forms import Form, Number
from pdk.local.determined.wire.http import Handlers, read
from pdk.local.determined.wire.messages import Json
from pdk.local.determined.wire.queries import number, ordered, page


class Destination(Form, frozen=True):
    """Where a model is to be moved."""

    destination_workspace_id: Number = 0


class Registry(Handlers):
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API."""
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
            route("GET", f"{api}/model/labels", self.labels),
        ]

    # models

    async def create_model(self, request: Request) -> Json:
        made = await self.db.write(partial(registry.create_model, wanted=await read(request, registry.NewModel)))
        return {"model": self.messages.model(made)}

    async def list_models(self, request: Request) -> Json:
        query = request.query_params
        name, archived = (query.get("name") or "").lower(), query.get("archived")
        labels, description = set(query.getlist("labels")), (query.get("description") or "").lower()
        models = [
            found
            for found in registry.models(self.db.reader)
            if name in found.name.lower()
            and (archived is None or found.archived == (archived == "true"))
            and labels <= set(found.labels)
            and description in found.description.lower()
        ]
        keys: dict[str, Callable[[registry.Model], Any]] = {
            "NAME": lambda found: found.name,
            "DESCRIPTION": lambda found: found.description,
            "CREATION_TIME": lambda found: found.created,
            "LAST_UPDATED_TIME": lambda found: found.updated,
            "NUM_VERSIONS": lambda found: registry.count_versions(self.db.reader, found.id),
            "WORKSPACE": lambda found: workspaces.workspace(self.db.reader, found.workspace).name,
        }
        return page(ordered(models, query, keys), query, self.messages.model, "models")

    async def labels(self, _request: Request) -> Json:
        return {"labels": registry.model_labels(self.db.reader)}

    def _model(self, request: Request) -> registry.Model:
        return registry.model(self.db.reader, request.path_params["name"])

    async def get_model(self, request: Request) -> Json:
        return {"model": self.messages.model(self._model(request))}

    async def patch_model(self, request: Request) -> Json:
        pk, changes = self._model(request).id, await read(request, registry.ModelChanges)
        await self.db.write(partial(registry.change_model, pk=pk, changes=changes))
        return {"model": self.messages.model(registry.model(self.db.reader, str(pk)))}

    async def delete_model(self, request: Request) -> Json:
        await self.db.write(partial(registry.delete_model, pk=self._model(request).id))
        return {}

    async def archive_model(self, request: Request, flag: int) -> Json:
        await self.db.write(partial(registry.archive_model, pk=self._model(request).id, wanted=bool(flag)))
        return {}

    async def move_model(self, request: Request) -> Json:
        target = await read(request, Destination)
        await self.db.write(partial(registry.move_model, pk=self._model(request).id, workspace=target.destination_workspace_id))
        return {}

    async def create_version(self, request: Request) -> Json:
        wanted = await read(request, registry.NewVersion)
        made = await self.db.write(partial(registry.add_version, model_name=request.path_params["name"], wanted=wanted))
        return {"modelVersion": self.messages.version(made)}

    async def list_versions(self, request: Request) -> Json:
        owner = self._model(request)
        rows = registry.versions(self.db.reader, owner.id)
        keys: dict[str, Callable[[registry.Version], Any]] = {"VERSION": lambda one: one.number, "CREATION_TIME": lambda one: one.created}
        rows = ordered(rows, request.query_params, keys, "VERSION")
        return {"model": self.messages.model(owner), **page(rows, request.query_params, self.messages.version, "modelVersions")}

    def _version(self, request: Request) -> registry.Version:
        return registry.version(self.db.reader, self._model(request).id, number(request))

    async def get_version(self, request: Request) -> Json:
        return {"modelVersion": self.messages.version(self._version(request))}

    async def patch_version(self, request: Request) -> Json:
        pk, changes = self._version(request).id, await read(request, registry.VersionChanges)
        await self.db.write(partial(registry.change_version, pk=pk, changes=changes))
        return await self.get_version(request)

    async def delete_version(self, request: Request) -> Json:
        await self.db.write(partial(registry.delete_version, pk=self._version(request).id))
        return {}
