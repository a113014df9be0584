"""Metrics as streams: what ``Trial.iter_metrics`` and its older forms read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from pdk.errors import UserError
from pdk.local.determined.rules import experiments, metrics
from pdk.local.determined.wire.http import Handlers
from pdk.local.determined.wire.messages import Json, stamp
from pdk.local.determined.wire.queries import wholes

BATCH = 1000  # reports in a line of the stream


class Metrics(Handlers):
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API; before those that take a trial's number at that place."""
        base, route = "/api/v1/trials/metrics", self.frame.route
        return [
            route("GET", f"{base}/trial_metrics", self.stream),
            route("GET", f"{base}/training_metrics", partial(self.stream, group="training")),
            route("GET", f"{base}/validation_metrics", partial(self.stream, group=metrics.VALIDATION)),
        ]

    async def stream(self, request: Request, group: str = "") -> StreamingResponse:
        query = request.query_params
        group = group or query.get("group") or ""
        if not group:
            raise UserError("say which group of metrics: training, validation, or one that the trial reports")
        trials = wholes(query, "trialIds")
        for trial in trials:
            experiments.trial(self.db.reader, trial)
        return StreamingResponse(self._lines(trials, group), media_type="application/json")

    def _lines(self, trials: list[int], group: str) -> Iterator[str]:
        for trial in trials:
            reports = self._reports(trial, group)
            for start in range(0, len(reports), BATCH):
                yield json.dumps({"result": {"metrics": reports[start : start + BATCH]}}) + "\n"

    def _reports(self, trial: int, group: str) -> list[Json]:
        key = "validation_metrics" if group == metrics.VALIDATION else "avg_metrics"
        reports = []
        for number, report in enumerate(metrics.of_trial(self.db.reader, trial, group)):
            values: Json = {key: report.values}
            if report.batches:
                values["batch_metrics"] = report.batches
            reports.append({
                "id": number, "trialId": trial, "trialRunId": report.run, "group": group, "totalBatches": report.steps,
                "endTime": stamp(report.reported), "archived": False, "metrics": values,
            })  # fmt: skip
        return reports
