"""Checkpoints, as users of the API call them."""

from __future__ import annotations

import asyncio
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pdk.errors import NotFound, UserError
from pdk.local.determined.rules import checkpoints, experiments, retention
from pdk.local.determined.rules.forms import Form
from pdk.local.determined.rules.sections import Searcher
from pdk.local.determined.wire.http import Driven, read
from pdk.local.determined.wire.messages import Json
from pdk.local.determined.wire.queries import by_value, descending, number, ordered, page

ORDERS = ("ORDER_BY_ASC", "ORDER_BY_DESC")
KEYS: Mapping[str, Callable[[checkpoints.Checkpoint], Any]] = {
    "UUID": lambda one: one.uuid,
    "TRIAL_ID": lambda one: one.trial,
    "BATCH_NUMBER": lambda one: one.steps,
    "END_TIME": lambda one: one.reported,
    "STATE": lambda one: one.state,
}


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
        """Return all routes, with the paths of the API."""
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

    def _sorted(
        self, query: QueryParams, found: Sequence[checkpoints.Checkpoint], searcher: Searcher, *, best_first: bool
    ) -> list[checkpoints.Checkpoint]:
        """Those that a query asks for, in its order; by the searcher's metric without an order it is best first, where `best_first`."""
        states, metric = set(query.getlist("states")), query.get("sortByMetric")
        found = [checkpoint for checkpoint in found if not states or checkpoint.state in states]
        if metric and query.get("sortByAttr"):
            raise UserError("sortByMetric and sortByAttr cannot be given together")
        if metric:
            return by_value(found, lambda one: checkpoints.measured(self.db.reader, one, metric), downwards=descending(query))
        sign = 1 if searcher.smaller_is_better or not best_first or query.get("orderBy") in ORDERS else -1

        def by_searcher(one: checkpoints.Checkpoint) -> float | None:
            value = checkpoints.measured(self.db.reader, one, searcher.metric)
            return None if value is None else sign * value

        return ordered(found, query, {**KEYS, "SEARCHER_METRIC": by_searcher}, name="sortByAttr")

    async def experiment_checkpoints(self, request: Request) -> Json:
        experiment = experiments.get(self.db.reader, number(request))
        found = checkpoints.listing(self.db.reader, experiment=experiment.id)
        rows = self._sorted(request.query_params, found, experiment.config.searcher, best_first=True)
        return page(rows, request.query_params, self.messages.checkpoint, "checkpoints")

    async def trial_checkpoints(self, request: Request) -> Json:
        trial = experiments.trial(self.db.reader, number(request))
        found, experiment = checkpoints.listing(self.db.reader, trial=trial.id), experiments.get(self.db.reader, trial.experiment)
        rows = self._sorted(request.query_params, found, experiment.config.searcher, best_first=False)  # as the engine does it
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
