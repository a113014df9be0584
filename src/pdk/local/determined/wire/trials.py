"""Trials, their logs and metrics, as users of the API call them."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pdk.local.determined.service import experiments
from pdk.local.determined.service.driver import Driver
from pdk.local.determined.wire.http import Frame, Handlers, number
from pdk.local.determined.wire.messages import Json, page, stamp
from pdk.local.kit import logs
from pdk.local.kit.db import Database


class Trials(Handlers):
    """The handlers."""

    def __init__(self, db: Database, frame: Frame, driver: Driver) -> None:
        super().__init__(db, frame)
        self.driver = driver

    def routes(self) -> list[Route]:
        """All of them, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", f"{api}/experiments/{{id}}/trials", self.list_trials),
            route("POST", f"{api}/trials/{{id}}/kill", self.kill_trial),
            route("GET", f"{api}/trials/{{id}}/workloads", self.workloads),
            route("GET", f"{api}/trials/{{id}}/logs", self.trial_logs),
        ]

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
