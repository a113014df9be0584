"""What trials call: their context, rendezvous, preemption, metrics, progress, checkpoints."""

from __future__ import annotations

import asyncio
import base64
from functools import partial

from starlette.requests import Request
from starlette.routing import Route

from pdk.errors import NotFound
from pdk.local.determined.rules import checkpoints, experiments, metrics, search, searchers
from pdk.local.determined.rules.forms import Form
from pdk.local.determined.wire.http import Handlers, body, read
from pdk.local.determined.wire.messages import Json
from pdk.local.determined.wire.queries import number, whole

PREEMPTION_S = 60  # seconds that a question for preemption waits where it does not say how long
PREEMPTING = frozenset({"PAUSED", "STOPPING_CANCELED"})


class Progress(Form, frozen=True):
    """How far a trial is, from 0 to 1."""

    progress: float = 0.0


class EarlyExit(Form, frozen=True):
    """Why a trial's program ends before its time, as the API's enumeration spells it."""

    reason: str = "unknown reason"


class Tasks(Handlers):
    """The handlers. Trials repeat what was not answered, so every write may come twice."""

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", f"{api}/tasks/{{task}}/context_directory", self.context),
            route("POST", f"{api}/runs/start", self.nothing),
            route("POST", f"{api}/allocations/{{allocation}}/acceleratorData", self.nothing),
            route("GET", f"{api}/allocations/{{allocation}}/resources/{{resource}}/rendezvous", self.rendezvous),
            route("GET", f"{api}/allocations/{{allocation}}/signals/preemption", self.preemption),
            route("POST", f"{api}/allocations/{{allocation}}/signals/ack_preemption", self.acknowledge),
            route("GET", f"{api}/trials/{{id}}", self.trial),
            route("POST", f"{api}/trials/{{id}}/metrics", self.metrics),
            route("POST", f"{api}/trials/{{id}}/progress", self.progress),
            route("POST", f"{api}/trials/{{id}}/runner/metadata", self.nothing),
            route("POST", f"{api}/trials/{{id}}/early_exit", self.early_exit),
            route("POST", f"{api}/task/logs", self.nothing),
            route("POST", f"{api}/checkpoints", self.checkpoint),
            route("PATCH", f"{api}/checkpoints", self.nothing),
            route("GET", f"{api}/experiments/{{id}}/searcher/best_searcher_validation_metric", self.best),
        ]

    async def nothing(self, request: Request) -> Json:
        await body(request)
        return {}

    async def context(self, request: Request) -> Json:
        trial = experiments.trial_of_task(self.db.reader, request.path_params["task"])
        return {"b64Tgz": base64.b64encode(experiments.context(self.db.reader, trial.experiment)).decode()}

    async def rendezvous(self, request: Request) -> Json:
        trial = experiments.trial_of_allocation(self.db.reader, request.path_params["allocation"])
        return {"rendezvousInfo": {"addresses": ["127.0.0.1"], "rank": 0, "slots": [len(trial.slots) or 1]}}

    async def preemption(self, request: Request) -> Json:
        trial = experiments.trial_of_allocation(self.db.reader, request.path_params["allocation"])

        def wanted() -> bool:
            now = experiments.trial(self.db.reader, trial.id)
            return now.stopped or now.preempted or experiments.get(self.db.reader, trial.experiment).state in PREEMPTING

        try:
            async with asyncio.timeout(whole(request.query_params, "timeout_seconds", PREEMPTION_S)):
                async for _ in self.db.changes.watch():
                    if wanted():
                        break
        except TimeoutError:
            pass
        return {"preempt": wanted()}

    async def acknowledge(self, request: Request) -> Json:
        trial = experiments.trial_of_allocation(self.db.reader, request.path_params["allocation"])
        await self.db.write(partial(experiments.acknowledge, trial_id=trial.id))
        return {}

    async def trial(self, request: Request) -> Json:
        return {"trial": self.messages.trial(experiments.trial(self.db.reader, number(request)))}

    async def metrics(self, request: Request) -> Json:
        given = await read(request, metrics.Reported)
        await self.db.write(partial(metrics.add, trial_id=number(request), group=given.group, given=given.metrics))
        return {}

    async def progress(self, request: Request) -> Json:
        trial = experiments.trial(self.db.reader, number(request))
        value = (await read(request, Progress)).progress
        await self.db.write(partial(search.set_progress, trial=trial.id, progress=value))
        return {}

    async def early_exit(self, request: Request) -> Json:
        trial = experiments.trial(self.db.reader, number(request))
        reason = (await read(request, EarlyExit)).reason.removeprefix("EXITED_REASON_").lower()
        reason = searchers.INVALID if reason in ("invalid_hp", "init_invalid_hp") else reason.replace("_", " ")
        await self.db.write(partial(experiments.note_early_exit, trial_id=trial.id, reason=reason))
        return {}

    async def checkpoint(self, request: Request) -> Json:
        await self.db.write(partial(checkpoints.add, report=await read(request, checkpoints.Report)))
        return {}

    async def best(self, request: Request) -> Json:
        value = metrics.best_validation(self.db.reader, experiments.get(self.db.reader, number(request)))
        if value is None:
            raise NotFound(f"experiment {number(request)} has no validation metric yet")
        return {"metric": value}
