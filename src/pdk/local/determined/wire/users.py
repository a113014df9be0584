"""What users of the API call: experiments, trials, checkpoints, the cluster."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pdk.errors import NotFound, NotSupported, UserError
from pdk.local.determined.service import config, experiments, registry, retention
from pdk.local.determined.service.driver import Driver
from pdk.local.determined.wire.http import Frame, Handlers, body, error_body, number
from pdk.local.determined.wire.messages import USER, VERSION, Json, Messages, page, stamp
from pdk.local.kit import logs
from pdk.local.kit.db import Database

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


class Users(Handlers):
    """The handlers."""

    def __init__(self, db: Database, frame: Frame, driver: Driver, cluster: str, *, blank_login: bool) -> None:
        super().__init__(db, frame)
        self.driver, self.cluster, self.blank_login = driver, cluster, blank_login

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", "/info", self.info, public=True),
            route("GET", f"{api}/master", self.master, public=True),
            route("POST", f"{api}/auth/login", self.login, public=True),
            route("POST", f"{api}/auth/logout", self.nothing),
            route("GET", f"{api}/me", self.me),
            route("GET", f"{api}/users", self.users),
            route("GET", f"{api}/agents", self.agents),
            route("GET", f"{api}/tasks", self.tasks),
            route("POST", f"{api}/experiments", self.create_experiment),
            route("GET", f"{api}/experiments", self.list_experiments),
            route("GET", f"{api}/experiments/{{id}}", self.get_experiment),
            route("PATCH", f"{api}/experiments/{{id}}", self.patch_experiment),
            route("DELETE", f"{api}/experiments/{{id}}", self.delete_experiment),
            route("GET", f"{api}/experiments/{{id}}/model_def", self.model_def),
            route("GET", f"{api}/experiments/{{id}}/trials", self.list_trials),
            route("GET", f"{api}/experiments/{{id}}/checkpoints", self.experiment_checkpoints),
            route("POST", f"{api}/experiments/{{id}}/{{verb}}", self.control),
            route("POST", f"{api}/trials/{{id}}/kill", self.kill_trial),
            route("GET", f"{api}/trials/{{id}}/workloads", self.workloads),
            route("GET", f"{api}/trials/{{id}}/logs", self.trial_logs),
            route("GET", f"{api}/trials/{{id}}/checkpoints", self.trial_checkpoints),
            route("DELETE", f"{api}/checkpoints", self.delete_checkpoints),
            route("POST", f"{api}/checkpoints/rm", self.remove_files),
            route("GET", f"{api}/checkpoints/{{uuid}}", self.get_checkpoint),
            route("POST", f"{api}/checkpoints/{{uuid}}/metadata", self.checkpoint_metadata),
            route("GET", "/checkpoints/{uuid}", self.download_checkpoint),
        ]

    # the cluster

    async def nothing(self, _request: Request) -> Json:
        return {}

    async def info(self, _request: Request) -> Json:
        return {"version": VERSION, "cluster_id": self.cluster, "cluster_name": "pdk", "master_id": self.cluster}

    async def master(self, _request: Request) -> Json:
        return {
            "version": VERSION, "clusterId": self.cluster, "clusterName": "pdk", "masterId": self.cluster,
            "hasCustomLogo": False, "strictJobQueueControl": False,
        }  # fmt: skip

    async def login(self, request: Request) -> Any:
        given = await body(request)
        password = str(given.get("password") or "")
        blank = self.blank_login and not password
        known = given.get("username") in (USER["username"], "admin")
        if not known or not (blank or self.frame.tokens.right_password(password, hashed=bool(given.get("isHashed")))):
            return JSONResponse(error_body(403, "invalid credentials; `pdk env` prints user and password", 7, "PermissionDenied"), 403)
        return {"token": self.frame.tokens.user(), "user": USER}

    async def me(self, _request: Request) -> Json:
        return {"user": USER}

    async def users(self, request: Request) -> Json:
        return page([USER], request.query_params, dict, "users")

    async def agents(self, _request: Request) -> Json:
        slots = {
            str(device.id): {
                "id": str(device.id), "enabled": True, "draining": False,
                "device": {"id": device.id, "brand": device.brand, "uuid": "", "type": f"TYPE_{device.kind.upper()}"},
            }
            for device in self.driver.slots
        }  # fmt: skip
        agent = {
            "id": "local", "slotStats": {"brandStats": {}, "typeStats": {}}, "slots": slots, "containers": {}, "enabled": True,
            "resourcePools": ["default"], "draining": False, "addresses": ["127.0.0.1"], "version": VERSION,
            "registeredTime": stamp(time.time()),
        }  # fmt: skip
        return {"agents": [agent]}

    async def tasks(self, _request: Request) -> Json:
        return {"allocationIdToSummary": {}}

    # experiments

    async def create_experiment(self, request: Request) -> Json:
        given = await body(request)
        template = registry.template(self.db.reader, given["template"])["config"] if given.get("template") else "{}"
        parsed = config.parse(str(given.get("config") or ""), str(self.driver.checkpoints), len(self.driver.slots), json.loads(template))
        parent = int(given.get("parentId") or 0) or None
        if given.get("modelDefinition"):
            archive = await asyncio.to_thread(archive_of, given["modelDefinition"])
        elif parent:
            archive = experiments.context(self.db.reader, parent)
        else:
            archive = archive_of([])

        def work(db: sqlite3.Connection) -> experiments.Experiment:
            project = registry.project_for(db, parsed.content, int(given.get("projectId") or 0) or None)
            source = parsed.content["searcher"].get("source_checkpoint_uuid")
            if source:
                registry.checkpoint(db, source)
            found = experiments.create(
                db, parsed, str(given["config"]), archive, project, activate=bool(given.get("activate", True)), parent=parent
            )
            if given.get("validateOnly"):
                raise _OnlyValidated(self.messages_of(db).experiment(found))
            return found

        try:
            found = await self.db.write(work)
        except _OnlyValidated as checked:
            return {"experiment": checked.message, "config": config.redact(parsed.content), "warnings": []}
        return {"experiment": self.messages.experiment(found), "config": config.redact(found.config), "warnings": []}

    def messages_of(self, db: sqlite3.Connection) -> Messages:
        """Messages as seen inside a transaction."""
        return Messages(db)

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
        ]
        if query.get("orderBy") != "ORDER_BY_DESC" and query.get("sortBy"):
            found.reverse()
        return page(found, query, self.messages.experiment, "experiments")

    async def get_experiment(self, request: Request) -> Json:
        message = self.messages.experiment(experiments.get(self.db.reader, number(request)))
        return {"experiment": message, "config": message["config"]}

    async def patch_experiment(self, request: Request) -> Json:
        changes, id_ = await body(request), number(request)

        def work(db: sqlite3.Connection) -> experiments.Experiment:
            if changes.get("resources"):
                experiments.set_resources(db, id_, changes["resources"])
            if changes.get("checkpointStorage"):
                retention.change(db, id_, changes["checkpointStorage"])
            return experiments.update(db, id_, changes)

        found = await self.db.write(work)
        await self.driver.sweep()
        return {"experiment": self.messages.experiment(found)}

    async def delete_experiment(self, request: Request) -> Json:
        id_ = number(request)
        rows = registry.checkpoints(self.db.reader, experiment=id_)
        await self.db.write(partial(experiments.delete, id_=id_))
        for row in rows:
            shutil.rmtree(self.driver.checkpoints / row["uuid"], ignore_errors=True)
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
            flag = verb == "archive"
            experiments.get(self.db.reader, id_)
            await self.db.write(lambda db: db.execute("UPDATE experiment SET archived = ? WHERE id = ?", (flag, id_)))
        else:
            raise NotFound(f"experiments have no call {verb!r} on the local server")
        return {}

    async def model_def(self, request: Request) -> Json:
        return {"b64Tgz": base64.b64encode(experiments.context(self.db.reader, number(request))).decode()}

    # trials

    async def list_trials(self, request: Request) -> Json:
        return page(experiments.trials(self.db.reader, number(request)), request.query_params, self.messages.trial, "trials")

    async def kill_trial(self, request: Request) -> Json:
        await self.db.write(partial(experiments.kill_trial, id_=number(request)))
        return {}

    async def workloads(self, request: Request) -> Json:
        trial = experiments.trial(self.db.reader, number(request))
        found = self.messages.workloads(trial, batches=request.query_params.get("includeBatchMetrics") == "true")
        return page(found, request.query_params, lambda entry: entry, "workloads")

    async def trial_logs(self, request: Request) -> Response:
        trial = experiments.trial(self.db.reader, number(request))
        query = request.query_params
        limit, backwards = int(query.get("limit") or 0), query.get("orderBy") == "ORDER_BY_DESC"
        follow, redact = query.get("follow") == "true", self.driver.redactor(trial)
        if backwards or not follow:
            lines = [line for path in self.driver.log_files(trial) for line in logs.tail(path, 1 << 30, 1 << 28)]
            numbered = list(enumerate(lines, 1))
            numbered = numbered[::-1] if backwards else numbered
            numbered = numbered[:limit] if limit else numbered
            text = "".join(self._log_line(trial.id, index, redact(line)) for index, line in numbered)
            return Response(text, media_type="application/json")
        return StreamingResponse(self._follow(trial, redact), media_type="application/json")

    async def _follow(self, trial: experiments.Trial, redact: logs.Redactor) -> AsyncIterator[str]:
        def over() -> bool:
            return experiments.trial(self.db.reader, trial.id).ended is not None

        count = 0
        async for _, line in logs.follow_all(trial.id, lambda: [("", path) for path in self.driver.log_files(trial)], over):
            count += 1
            yield self._log_line(trial.id, count, redact(line))

    def _log_line(self, trial: int, index: int, line: str) -> str:
        level = next((name for name in ("ERROR", "WARNING", "DEBUG") if line.startswith(name)), "INFO")
        entry = {
            "id": str(index), "timestamp": stamp(time.time()), "message": line + "\n", "log": line + "\n",
            "level": f"LOG_LEVEL_{level}", "trialId": trial,
        }  # fmt: skip
        return json.dumps({"result": entry}) + "\n"

    # checkpoints

    def _sorted(self, request: Request, rows: list[sqlite3.Row]) -> list[sqlite3.Row]:
        query = request.query_params
        states = set(query.getlist("states"))
        rows = [row for row in rows if not states or row["state"] in states]
        if not rows:
            return rows
        if query.get("sortByAttr") == "SORT_BY_SEARCHER_METRIC":
            trial = experiments.trial(self.db.reader, rows[0]["trial"])
            rows = registry.sort_by_metric(self.db.reader, experiments.get(self.db.reader, trial.experiment), rows)
        elif query.get("sortByAttr") == "SORT_BY_BATCH_NUMBER":
            rows = sorted(rows, key=lambda row: int(row["steps"]))
        return rows[::-1] if query.get("orderBy") == "ORDER_BY_DESC" else rows

    async def experiment_checkpoints(self, request: Request) -> Json:
        experiments.get(self.db.reader, number(request))
        rows = self._sorted(request, registry.checkpoints(self.db.reader, experiment=number(request)))
        return page(rows, request.query_params, self.messages.checkpoint, "checkpoints")

    async def trial_checkpoints(self, request: Request) -> Json:
        experiments.trial(self.db.reader, number(request))
        rows = self._sorted(request, registry.checkpoints(self.db.reader, trial=number(request)))
        return page(rows, request.query_params, self.messages.checkpoint, "checkpoints")

    async def delete_checkpoints(self, request: Request) -> Json:
        return await self._delete_checkpoints((await body(request)).get("checkpointUuids") or ())

    async def remove_files(self, request: Request) -> Json:
        given = await body(request)
        globs = set(given.get("checkpointGlobs") or ())
        if globs - {"**/*"}:
            raise NotSupported("single files of a checkpoint cannot be removed on the local server; remove all of them with the glob **/*")
        return await self._delete_checkpoints(given.get("checkpointUuids") or () if globs else ())

    async def _delete_checkpoints(self, uuids: Sequence[str]) -> Json:
        for uuid in uuids:
            registry.checkpoint(self.db.reader, str(uuid))
        await self.db.write(partial(retention.delete, uuids=uuids))
        await self.driver.sweep()
        return {}

    async def get_checkpoint(self, request: Request) -> Json:
        return {"checkpoint": self.messages.checkpoint(registry.checkpoint(self.db.reader, request.path_params["uuid"]))}

    async def checkpoint_metadata(self, request: Request) -> Json:
        uuid = registry.checkpoint(self.db.reader, request.path_params["uuid"])["uuid"]
        metadata = json.dumps((await body(request))["checkpoint"]["metadata"])
        await self.db.write(lambda db: db.execute("UPDATE checkpoint SET metadata = ? WHERE uuid = ?", (metadata, uuid)))
        return await self.get_checkpoint(request)

    async def download_checkpoint(self, request: Request) -> Response:
        uuid = registry.checkpoint(self.db.reader, request.path_params["uuid"])["uuid"]
        source = self.driver.checkpoints / uuid

        def pack() -> str:
            with tempfile.NamedTemporaryFile(delete=False) as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
                archive.add(source, ".")
            return file.name

        path = await asyncio.to_thread(pack)
        return FileResponse(path, media_type="application/gzip", background=BackgroundTask(Path(path).unlink))


class _OnlyValidated(Exception):
    """Carries the answer out of a transaction that must not be kept."""

    def __init__(self, message: Json) -> None:
        super().__init__()
        self.message = message
