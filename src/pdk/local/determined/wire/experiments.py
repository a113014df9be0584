"""Experiments, as users of the API call them."""

from __future__ import annotations

import asyncio
import base64
import io
import mimetypes
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from pdk.errors import NotFound, UserError
from pdk.kit.db import Connection
from pdk.local.determined.rules import checkpoints, config, continuation, experiments, metrics, retention, templates, workspaces
from pdk.local.determined.rules.forms import Form, Number
from pdk.local.determined.wire.http import Driven, read
from pdk.local.determined.wire.messages import Json, Messages, stamp
from pdk.local.determined.wire.queries import number, numbered, ordered, page, whole

CONTEXT_LIMIT = 95 << 20  # bytes, as the engine's
REGULAR, DIRECTORY = 48, 53  # a context file's type, as tar writes it


class ContextFile(Form, frozen=True):
    """A file or folder of a context; `content` in base64, times in unix seconds."""

    path: str
    type: Number = REGULAR
    content: str = ""
    mode: Number = 0o644
    mtime: Number = 0


class NewExperiment(Form, frozen=True):
    """An experiment to be made, its config in YAML; where no context comes with it, the parent's counts."""

    config: str = ""
    template: str = ""
    model_definition: list[ContextFile] = []
    parent_id: Number = 0
    project_id: Number = 0
    activate: bool = True
    validate_only: bool = False


class Continued(Form, frozen=True):
    """An experiment that is to go on, with settings in YAML that are to be different."""

    id: Number = 0
    override_config: str = "{}"


class Moved(Form, frozen=True):
    """Where an experiment is to be moved."""

    destination_project_id: Number = 0


class Wanted(Form, frozen=True):
    """A file of a context."""

    path: str = ""


def archive_of(entries: Sequence[ContextFile]) -> bytes:
    """Return a context as .tar.gz from the files that a client sends.

    Raises:
        UserError: a path that leaves the context, a type other than file and folder, broken base64, too much.
    """
    buffer, total = io.BytesIO(), 0
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for entry in entries:
            path = entry.path
            if path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise UserError(f"the context holds the path {path!r}, which leaves it; send paths relative to the model's folder")
            member = tarfile.TarInfo(path)
            member.mode, member.mtime = entry.mode & 0o7777 or 0o644, entry.mtime
            try:
                content = base64.b64decode(entry.content, validate=True)
            except ValueError as error:
                raise UserError(f"the content of {path!r} is not base64: {error}") from error
            total += len(content)
            if total > CONTEXT_LIMIT:
                raise UserError(f"the context is larger than {CONTEXT_LIMIT >> 20} MiB; leave files out with a .detignore file")
            if entry.type == DIRECTORY:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            elif entry.type in (REGULAR, 0):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                raise UserError(f"the context holds {path!r}, which is neither a file nor a folder")
    return buffer.getvalue()


def tree_of(archive: bytes) -> list[Json]:
    """Return a context's files and folders, nested."""
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
        """Return all routes, with the paths of the API."""
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
        wanted = await read(request, NewExperiment)
        template = templates.get(self.db.reader, wanted.template).config if wanted.template else {}
        parsed = config.parse(wanted.config, self.driver.checkpoints, len(self.driver.slots), template)
        parent = wanted.parent_id or None
        if parent:
            experiments.get(self.db.reader, parent)
        if wanted.model_definition:
            archive = await asyncio.to_thread(archive_of, wanted.model_definition)
        elif parent:
            archive = experiments.context(self.db.reader, parent)
        else:
            archive = archive_of([])

        def work(db: Connection) -> experiments.Experiment:
            project = workspaces.project_for(db, parsed, wanted.project_id or None)
            made = checkpoints.with_source(db, parsed)
            found = experiments.create(db, made, wanted.config, archive, project, activate=wanted.activate, parent=parent)
            if wanted.validate_only:
                raise _OnlyValidated(Messages(db).experiment(found))
            return found

        try:
            found = await self.db.write(work)
        except _OnlyValidated as checked:
            return {"experiment": checked.message, "config": config.redact(parsed.content), "warnings": []}
        return {"experiment": self.messages.experiment(found), "config": config.redact(found.config.content), "warnings": []}

    async def list_experiments(self, request: Request) -> Json:
        query = request.query_params
        labels, states, project = set(query.getlist("labels")), set(query.getlist("states")), whole(query, "projectId")
        found = [
            entry
            for entry in experiments.listing(self.db.reader)
            if (not labels or labels & set(entry.labels))
            and (not states or f"STATE_{entry.state}" in states)
            and (query.get("archived") is None or entry.archived == (query["archived"] == "true"))
            and (not query.get("name") or query["name"] in entry.name)
            and (not project or project == entry.project)
            and numbered(entry.id, query, "experimentIdFilter")
        ]
        if query.get("sortBy"):
            found = ordered(found, query, self._orders())
        return page(found, query, self.messages.experiment, "experiments")

    def _orders(self) -> dict[str, Callable[[experiments.Experiment], Any]]:
        db = self.db.reader
        return {
            "ID": lambda found: found.id,
            "NAME": lambda found: found.name,
            "DESCRIPTION": lambda found: found.description,
            "START_TIME": lambda found: found.started,
            "END_TIME": lambda found: found.ended,
            "STATE": lambda found: found.state,
            "PROGRESS": lambda found: found.progress,
            "FORKED_FROM": lambda found: found.parent,
            "PROJECT_ID": lambda found: found.project,
            "USER": lambda found: found.id,  # there is one user, and one pool
            "RESOURCE_POOL": lambda found: found.id,
            "NUM_TRIALS": lambda found: len(experiments.trials(db, found.id)),
            "CHECKPOINT_COUNT": lambda found: len(checkpoints.listing(db, experiment=found.id)),
            "CHECKPOINT_SIZE": lambda found: sum(one.size for one in checkpoints.listing(db, experiment=found.id)),
            "SEARCHER_METRIC_VAL": lambda found: metrics.best_validation(db, found),
        }

    async def get_experiment(self, request: Request) -> Json:
        message = self.messages.experiment(experiments.get(self.db.reader, number(request)))
        return {"experiment": message, "config": message["config"]}

    async def patch_experiment(self, request: Request) -> Json:
        changes, id_ = await read(request, experiments.Changes), number(request)

        def work(db: Connection) -> experiments.Experiment:
            if changes.resources:
                experiments.set_resources(db, id_, changes.resources)
            if changes.checkpoint_storage:
                retention.change(db, id_, changes.checkpoint_storage)
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
            return experiments.update(db, id_, experiments.Changes(labels=[*others, label] if wanted else others)).labels

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
            target = await read(request, Moved)
            await self.db.write(partial(experiments.move, id_=id_, project=target.destination_project_id))
        elif verb in ("archive", "unarchive"):
            await self.db.write(partial(experiments.archive, id_=id_, wanted=verb == "archive"))
        else:
            raise NotFound(f"experiments have no call {verb!r} on the local server")
        return {}

    async def go_on(self, request: Request) -> Json:
        wanted = await read(request, Continued)
        override = config.read(wanted.override_config or "{}")
        complete = partial(config.fill, own=self.driver.checkpoints, slots=len(self.driver.slots))
        found = await self.db.write(partial(continuation.go_on, id_=wanted.id, override=override, fill=complete))
        return {"experiment": self.messages.experiment(found), "warnings": []}

    async def file_tree(self, request: Request) -> Json:
        return {"files": tree_of(experiments.context(self.db.reader, number(request)))}

    async def file(self, request: Request) -> Json:
        archive, path = experiments.context(self.db.reader, number(request)), (await read(request, Wanted)).path
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
