"""Trials, their logs and metrics, as users of the API call them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import re2
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pdk.errors import UserError
from pdk.kit import logs
from pdk.local.determined.rules import checkpoints, experiments, metrics, searchers
from pdk.local.determined.rules.sections import Searcher
from pdk.local.determined.wire.http import Driven
from pdk.local.determined.wire.messages import Json, stamp
from pdk.local.determined.wire.queries import number, ordered, page, whole, wholes

RANK = re.compile(r"\[rank=(\d{1,9})\]")
KNOWN: Mapping[str, frozenset[str]] = {  # what lines come from here; what a reader asks for beside brings none
    "agentIds": frozenset({"local"}),
    "stdtypes": frozenset({"stdout"}),
    "sources": frozenset(),
}


class Trials(Driven):
    """The handlers."""

    def routes(self) -> list[Route]:
        """Return all routes, with the paths of the API."""
        api, route = "/api/v1", self.frame.route
        return [
            route("GET", f"{api}/experiments/{{id}}/trials", self.list_trials),
            route("POST", f"{api}/trials/{{id}}/kill", self.kill_trial),
            route("GET", f"{api}/trials/{{id}}/workloads", self.workloads),
            route("GET", f"{api}/trials/{{id}}/logs", self.trial_logs),
            route("GET", f"{api}/trials/{{id}}/logs/fields", self.fields),
        ]

    async def list_trials(self, request: Request) -> Json:
        searcher = experiments.get(self.db.reader, number(request)).config.searcher
        found = ordered(experiments.trials(self.db.reader, number(request)), request.query_params, self._orders(searcher), "ID")
        return page(found, request.query_params, self.messages.trial, "trials")

    def _orders(self, searcher: Searcher) -> dict[str, Callable[[experiments.Trial], Any]]:
        """Return what trials are sorted by; of metrics the better is the smaller one, whichever way better is, as the engine has it."""
        db, sign = self.db.reader, 1 if searcher.smaller_is_better else -1

        def value(found: experiments.Trial, which: int) -> float | None:
            report = metrics.validations(db, found)[which]
            number_ = searchers.number_of(report.values, searcher.metric) if report else None
            return None if number_ is None else sign * number_

        return {
            "ID": lambda found: found.id,
            "START_TIME": lambda found: found.started,
            "END_TIME": lambda found: found.ended,
            "STATE": lambda found: found.state,
            "RESTARTS": lambda found: found.restarts,
            "DURATION": lambda found: (found.ended or time.time()) - found.started,
            "BATCHES_PROCESSED": lambda found: metrics.steps(db, found.id),
            "CHECKPOINT_SIZE": lambda found: sum(one.size for one in checkpoints.listing(db, trial=found.id)),
            "LATEST_VALIDATION_METRIC": lambda found: value(found, 0),
            "BEST_VALIDATION_METRIC": lambda found: value(found, 1),
        }

    async def kill_trial(self, request: Request) -> Json:
        await self.db.write(partial(experiments.kill_trial, id_=number(request)))
        return {}

    async def workloads(self, request: Request) -> Json:
        trial = experiments.trial(self.db.reader, number(request))
        found = self.messages.workloads(trial, batches=request.query_params.get("includeBatchMetrics") == "true")
        return page(found, request.query_params, lambda entry: entry, "workloads")

    async def trial_logs(self, request: Request) -> Response:
        trial = experiments.trial(self.db.reader, number(request))
        query, files = request.query_params, self._files(request.query_params, trial)
        limit, backwards = whole(query, "limit"), query.get("orderBy") == "ORDER_BY_DESC"
        wanted, redact = self._chooser(query, trial, files), self.driver.redactor(trial)
        if query.get("follow") == "true" and not backwards:
            return StreamingResponse(self._follow(query, trial, redact, wanted), media_type="application/json")
        lines = [redact(line) for path in files for line in logs.tail(path, 1 << 30, 1 << 28)]
        numbered = [(index, line) for index, line in enumerate(lines, 1) if wanted(line)]
        numbered = numbered[::-1] if backwards else numbered
        numbered = numbered[:limit] if limit else numbered
        text = "".join(_log_line(trial.id, index, line) for index, line in numbered)
        return Response(text, media_type="application/json")

    def _chooser(self, query: QueryParams, trial: experiments.Trial, files: Sequence[Path]) -> Callable[[str], bool]:
        """Which lines a reader wants. Lines carry no time: those of a log are as old as the trial at most, and as new as the log's file."""
        last = max((path.stat().st_mtime for path in files), default=trial.started)
        before, after = (_time(query.get(f"timestamp{name}")) for name in ("Before", "After"))
        if (before is not None and before < trial.started) or (after is not None and after > last and trial.ended is not None):
            return lambda _line: False
        for name, known in KNOWN.items():
            if (given := set(query.getlist(name))) and not given & known:
                return lambda _line: False
        levels, ranks = set(query.getlist("levels")), set(wholes(query, "rankIds"))
        search = _search(query.get("searchText") or "", regular=query.get("enableRegex") == "true")
        return lambda line: (not levels or _level(line) in levels) and (not ranks or _rank(line) in ranks) and search(line)

    def _files(self, query: QueryParams, trial: experiments.Trial) -> list[Path]:
        """The logs of the runs whose containers a reader wants, oldest first; all where he names none."""
        wanted = set(query.getlist("containerIds"))
        return [path for path in self.driver.log_files(trial) if not wanted or _container(trial, path) in wanted]

    async def fields(self, request: Request) -> Response:
        trial = experiments.trial(self.db.reader, number(request))
        containers = [_container(trial, path) for path in self.driver.log_files(trial)]
        found = {**{name: sorted(known) for name, known in KNOWN.items()}, "containerIds": containers, "rankIds": []}
        return Response(json.dumps({"result": found}) + "\n", media_type="application/json")

    async def _follow(
        self, query: QueryParams, trial: experiments.Trial, redact: logs.Redactor, wanted: Callable[[str], bool]
    ) -> AsyncIterator[str]:
        def over() -> bool:
            return experiments.trial(self.db.reader, trial.id).ended is not None

        count = 0
        async for _, line in logs.follow_all(trial.id, lambda: [("", path) for path in self._files(query, trial)], over):
            count += 1
            if wanted(shown := redact(line)):
                yield _log_line(trial.id, count, shown)


def _container(trial: experiments.Trial, log: Path) -> str:
    """Return the name of the container (here: the run) that a log is of."""
    return f"trial-{trial.id}-{log.parent.name.removeprefix('run-')}"


def _rank(line: str) -> int | None:
    """Return which of a trial's processes printed a line; None where it does not say."""
    match = RANK.match(line)
    return int(match[1]) if match else None


def _search(text: str, *, regular: bool) -> Callable[[str], bool]:
    """Return the test whether a line holds a text, or what a regular expression means; capitals do not count.

    Raises:
        UserError: it is not a regular expression.
    """
    if not regular:
        wanted = text.lower()
        return lambda line: wanted in line.lower()
    options = re2.Options()
    options.case_sensitive, options.log_errors = False, False
    try:
        pattern = re2.compile(text, options)  # takes time by the length of a line, whatever the expression is
    except re2.error as error:
        raise UserError(f"searchText: {text!r} is not a regular expression: {error}") from error
    return lambda line: pattern.search(line) is not None


def _level(line: str) -> str:
    return f"LOG_LEVEL_{next((name for name in ('ERROR', 'WARNING', 'DEBUG', 'CRITICAL') if line.startswith(name)), 'INFO')}"


def _log_line(trial: int, index: int, line: str) -> str:
    entry = {
        "id": str(index), "timestamp": stamp(time.time()), "message": line + "\n", "log": line + "\n", "level": _level(line),
        "trialId": trial,
    }  # fmt: skip
    return json.dumps({"result": entry}) + "\n"


def _time(text: str | None) -> float | None:
    """Unix time.

    Raises:
        UserError: it is not a time in RFC 3339.
    """
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError as error:
        raise UserError(f"{text!r} is not a time in RFC 3339 (2026-01-31T12:00:00Z)") from error
