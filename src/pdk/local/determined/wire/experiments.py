"""Experiments, as users of the API call them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import mimetypes
import tarfile
from collections.abc import Sequence
from functools import partial

from starlette.requests import Request
from starlette.routing import Route

from pdk.errors import NotFound, UserError
from pdk.kit.db import Connection
from pdk.local.determined.rules import config, continuation, experiments, registry, retention, templates, workspaces
from pdk.local.determined.wire.http import Driven, body, number
from pdk.local.determined.wire.messages import Json, Messages, numbered, page, stamp

CONTEXT_LIMIT = 95 << 20  # bytes, as the engine's
REGULAR, DIRECTORY = 48, 53  # a context file's type, as tar writes it


def archive_of(entries: Sequence[Json]) -> bytes:
    """A context as .tar.gz from the files that a client sends.

    Raises:
        UserError: a path that leaves the context, a type other than file and folder, broken base64, too much.
    """
    buffer, total = io.BytesIO(), 0
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for entry in entries:
            path = str(entry["path"])
            if path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise UserError(f"the context holds the path {path!r}, which leaves it; send paths relative to the model's folder")
            member = tarfile.TarInfo(path)
            member.mode, member.mtime = int(entry.get("mode") or 0o644) & 0o7777, int(entry.get("mtime") or 0)
            try:
                content = base64.b64decode(entry.get("content") or "", validate=True)
            except binascii.Error as error:
                raise UserError(f"the content of {path!r} is not base64: {error}") from error
            total += len(content)
            if total > CONTEXT_LIMIT:
                raise UserError(f"the context is larger than {CONTEXT_LIMIT >> 20} MiB; leave files out with a .detignore file")
            if entry.get("type") == DIRECTORY:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            elif entry.get("type") in (REGULAR, 0, None):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                raise UserError(f"the context holds {path!r}, which is neither a file nor a folder")
    return buffer.getvalue()


def tree_of(archive: bytes) -> list[Json]:
    """A context's files and folders, nested."""
    top: Json = {"files": []}
    folders: dict[str, Json] = {"": top}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as context:
        for member in sorted(context.getmembers(), key=lambda entry: entry.name):
            path = member.name.strip("/")
            parent, _, name = path.rpartition("/")
            kind = "" if member.isdir() else mimetypes.guess_type(name)[0] or "text/plain; charset=utf-8"
            entry = {
                "path": path, "name": name, "isDir": member.isdir(), "contentLength": member.size, "contentType": kind,
                "modifiedTime": stamp(member.mtime), "files": [],
            }  # fmt: skip
            if member.isdir():
                folders[path] = entry
            folders.get(parent, top)["files"].append(entry)
    return list(top["files"])


class Experiments(Driven):
    """The handlers."""

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("POST", f"{api}/experiments", self.create_experiment),
            route("GET", f"{api}/experiments", self.list_experiments),
            route("GET", f"{api}/experiments/{{id}}", self.get_experiment),
            route("PATCH", f"{api}/experiments/{{id}}", self.patch_experiment),
            route("DELETE", f"{api}/experiments/{{id}}", self.delete_experiment),
            route("GET", f"{api}/experiments/{{id}}/model_def", self.model_def),
            route("GET", f"{api}/experiments/{{id}}/file_tree", self.file_tree),
            route("POST", f"{api}/experiments/{{id}}/file", self.file),
            route("GET", f"{api}/experiment/labels", self.labels),
            route("PUT", f"{api}/experiments/{{id}}/labels/{{label:path}}", partial(self.label, wanted=True)),
            route("DELETE", f"{api}/experiments/{{id}}/labels/{{label:path}}", partial(self.label, wanted=False)),
            route("POST", f"{api}/experiments/continue", self.go_on),
            route("POST", f"{api}/experiments/{{id}}/{{verb}}", self.control),
        ]

    async def create_experiment(self, request: Request) -> Json:
        given = await body(request)
        template = templates.get(self.db.reader, given["template"]).config if given.get("template") else {}
        parsed = config.parse(str(given.get("config") or ""), self.driver.checkpoints, len(self.driver.slots), template)
        parent = int(given.get("parentId") or 0) or None
        if parent:
            experiments.get(self.db.reader, parent)
        if given.get("modelDefinition"):
            archive = await asyncio.to_thread(archive_of, given["modelDefinition"])
        elif parent:
            archive = experiments.context(self.db.reader, parent)
        else:
            archive = archive_of([])

        def work(db: Connection) -> experiments.Experiment:
            project = workspaces.project_for(db, parsed.content, int(given.get("projectId") or 0) or None)
            registry.choose_source(db, parsed.content["searcher"])
            found = experiments.create(
                db, parsed, str(given["config"]), archive, project, activate=bool(given.get("activate", True)), parent=parent
            )
            if given.get("validateOnly"):
                raise _OnlyValidated(Messages(db).experiment(found))
            return found

        try:
            found = await self.db.write(work)
        except _OnlyValidated as checked:
            return {"experiment": checked.message, "config": config.redact(parsed.content), "warnings": []}
        return {"experiment": self.messages.experiment(found), "config": config.redact(found.config), "warnings": []}

    async def list_experiments(self, request: Request) -> Json:
        query = request.query_params
        labels, states = set(query.getlist("labels")), set(query.getlist("states"))
        found = [
            entry
            for entry in experiments.listing(self.db.reader)
            if (not labels or labels & set(entry.labels))
            and (not states or f"STATE_{entry.state}" in states)
            and (query.get("archived") is None or entry.archived == (query["archived"] == "true"))
            and (not query.get("name") or query["name"] in entry.name)
            and (not query.get("projectId") or int(query["projectId"]) == entry.project)
            and numbered(entry.id, query, "experimentIdFilter")
        ]
        if query.get("orderBy") != "ORDER_BY_DESC" and query.get("sortBy"):
            found.reverse()
        return page(found, query, self.messages.experiment, "experiments")

    async def get_experiment(self, request: Request) -> Json:
        message = self.messages.experiment(experiments.get(self.db.reader, number(request)))
        return {"experiment": message, "config": message["config"]}

    async def patch_experiment(self, request: Request) -> Json:
        changes, id_ = await body(request), number(request)

        def work(db: Connection) -> experiments.Experiment:
            if changes.get("resources"):
                experiments.set_resources(db, id_, changes["resources"])
            if changes.get("checkpointStorage"):
                retention.change(db, id_, changes["checkpointStorage"])
            return experiments.update(db, id_, changes)

        found = await self.db.write(work)
        await self.driver.sweeper.sweep()
        return {"experiment": self.messages.experiment(found)}

    async def labels(self, _request: Request) -> Json:
        return {"labels": experiments.labels(self.db.reader)}

    async def label(self, request: Request, *, wanted: bool) -> Json:
        id_, label = number(request), request.path_params["label"]

        def work(db: Connection) -> list[str]:
            others = [entry for entry in experiments.get(db, id_).labels if entry != label]
            return experiments.update(db, id_, {"labels": [*others, label] if wanted else others}).labels

        return {"labels": await self.db.write(work)}

    async def delete_experiment(self, request: Request) -> Json:
        id_ = number(request)
        await self.db.write(partial(experiments.begin_deletion, id_=id_))
        await self.driver.sweeper.forget(id_)
        await self.db.write(partial(experiments.delete, id_=id_))
        return {}

    async def control(self, request: Request) -> Json:
        id_, verb = number(request), request.path_params["verb"]
        states = {"activate": "ACTIVE", "pause": "PAUSED", "cancel": "STOPPING_CANCELED", "kill": "STOPPING_KILLED"}
        if verb in states:
            await self.db.write(partial(experiments.ask, id_=id_, wanted=states[verb]))
        elif verb == "move":
            project = int((await body(request)).get("destinationProjectId") or 0)
            await self.db.write(partial(experiments.move, id_=id_, project=project))
        elif verb in ("archive", "unarchive"):
            await self.db.write(partial(experiments.archive, id_=id_, wanted=verb == "archive"))
        else:
            raise NotFound(f"experiments have no call {verb!r} on the local server")
        return {}

    async def go_on(self, request: Request) -> Json:
        given = await body(request)
        override, id_ = config.read(given.get("overrideConfig") or "{}"), int(given.get("id") or 0)
        complete = partial(config.fill, own=self.driver.checkpoints, slots=len(self.driver.slots))
        found = await self.db.write(partial(continuation.go_on, id_=id_, override=override, fill=complete))
        return {"experiment": self.messages.experiment(found), "warnings": []}

    async def file_tree(self, request: Request) -> Json:
        return {"files": tree_of(experiments.context(self.db.reader, number(request)))}

    async def file(self, request: Request) -> Json:
        archive, path = experiments.context(self.db.reader, number(request)), str((await body(request)).get("path") or "")
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as context:
            member = next((entry for entry in context.getmembers() if entry.name == path and entry.isfile()), None)
            if member is None or (file := context.extractfile(member)) is None:
                raise NotFound(f"the experiment's context holds no file {path!r}")
            return {"file": base64.b64encode(file.read()).decode()}

    async def model_def(self, request: Request) -> Json:
        return {"b64Tgz": base64.b64encode(experiments.context(self.db.reader, number(request))).decode()}


class _OnlyValidated(Exception):
    """Carries the answer out of a transaction that must not be kept."""

    def __init__(self, message: Json) -> None:
        super().__init__()
        self.message = message
