"""Checkpoints, as users of the API call them."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pdk.errors import NotFound, UserError
from pdk.local.determined.rules import checkpoints, experiments, retention
from pdk.local.determined.rules.forms import Form
from pdk.local.determined.wire.http import Driven, read
from pdk.local.determined.wire.messages import Json
from pdk.local.determined.wire.queries import number, page


class Chosen(Form, frozen=True):
    """Checkpoints, and which of their files; none stand for all."""

    checkpoint_uuids: list[str] = []
    checkpoint_globs: list[str] = []


class Noted(Form, frozen=True):
    """What a user notes of a checkpoint."""

    metadata: dict[str, Any]


class Changed(Form, frozen=True):
    """A checkpoint as it is to be."""

    checkpoint: Noted


class Checkpoints(Driven):
    """The handlers."""

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", f"{api}/experiments/{{id}}/checkpoints", self.experiment_checkpoints),
            route("GET", f"{api}/trials/{{id}}/checkpoints", self.trial_checkpoints),
            route("DELETE", f"{api}/checkpoints", self.delete_checkpoints),
            route("POST", f"{api}/checkpoints/rm", self.remove_files),
            route("GET", f"{api}/checkpoints/{{uuid}}", self.get_checkpoint),
            route("POST", f"{api}/checkpoints/{{uuid}}/metadata", self.checkpoint_metadata),
            route("GET", "/checkpoints/{uuid}", self.download_checkpoint),
        ]

    def _sorted(self, request: Request, found: list[checkpoints.Checkpoint]) -> list[checkpoints.Checkpoint]:
        query = request.query_params
        states = set(query.getlist("states"))
        found = [checkpoint for checkpoint in found if not states or checkpoint.state in states]
        if not found:
            return found
        if query.get("sortByAttr") == "SORT_BY_SEARCHER_METRIC":
            trial = experiments.trial(self.db.reader, found[0].trial)
            found = checkpoints.sort_by_metric(self.db.reader, experiments.get(self.db.reader, trial.experiment), found)
        elif query.get("sortByAttr") == "SORT_BY_BATCH_NUMBER":
            found = sorted(found, key=lambda checkpoint: checkpoint.steps)
        return found[::-1] if query.get("orderBy") == "ORDER_BY_DESC" else found

    async def experiment_checkpoints(self, request: Request) -> Json:
        experiments.get(self.db.reader, number(request))
        rows = self._sorted(request, checkpoints.listing(self.db.reader, experiment=number(request)))
        return page(rows, request.query_params, self.messages.checkpoint, "checkpoints")

    async def trial_checkpoints(self, request: Request) -> Json:
        experiments.trial(self.db.reader, number(request))
        rows = self._sorted(request, checkpoints.listing(self.db.reader, trial=number(request)))
        return page(rows, request.query_params, self.messages.checkpoint, "checkpoints")

    async def delete_checkpoints(self, request: Request) -> Json:
        uuids = self._known((await read(request, Chosen)).checkpoint_uuids)
        await self.db.write(partial(retention.delete, uuids=uuids))
        await self.driver.sweeper.sweep()
        return {}

    async def remove_files(self, request: Request) -> Json:
        chosen = await read(request, Chosen)
        uuids, globs = self._known(chosen.checkpoint_uuids), chosen.checkpoint_globs
        for glob in globs:
            if not glob:
                raise UserError("cannot have empty string glob")
            if ".." in glob or glob.startswith("/"):
                raise UserError(f"glob {glob!r} cannot contain '..' or start with '/'")
        retention.check_unregistered(self.db.reader, uuids)
        if globs:
            await self.driver.sweeper.remove(uuids, globs)
        return {}

    def _known(self, uuids: Sequence[str]) -> list[str]:
        return [checkpoints.get(self.db.reader, uuid).uuid for uuid in uuids]

    async def get_checkpoint(self, request: Request) -> Json:
        return {"checkpoint": self.messages.checkpoint(checkpoints.get(self.db.reader, request.path_params["uuid"]))}

    async def checkpoint_metadata(self, request: Request) -> Json:
        uuid = checkpoints.get(self.db.reader, request.path_params["uuid"]).uuid
        changed = (await read(request, Changed)).checkpoint
        await self.db.write(partial(checkpoints.set_metadata, uuid=uuid, metadata=changed.metadata))
        return await self.get_checkpoint(request)

    async def download_checkpoint(self, request: Request) -> Response:
        uuid = checkpoints.get(self.db.reader, request.path_params["uuid"]).uuid
        scratch = Path(await asyncio.to_thread(tempfile.mkdtemp))
        packed = scratch / "packed"

        def pack(source: Path) -> None:
            with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
                archive.add(source, ".")

        try:
            source = await self.driver.sweeper.fetch(uuid, scratch / "content")
            await asyncio.to_thread(pack, source)
        except BaseException as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if isinstance(error, FileNotFoundError):
                raise NotFound(f"the files of checkpoint {uuid} are not in its storage") from error
            raise
        clean = BackgroundTask(shutil.rmtree, scratch, ignore_errors=True)
        return FileResponse(packed, media_type="application/gzip", background=clean)
