"""What trials report: kept by group and steps."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import UserError, WrongState
from pdk.local.determined.rules import search, searchers
from pdk.local.determined.rules.experiments import Experiment, Trial, get, trial
from pdk.local.determined.rules.forms import Form, Number

Connection = sqlite3.Connection
VALIDATION = "validation"  # the group of metrics that searchers look at


class Values(Form, frozen=True):
    """Metrics by name, and those of each batch where a trial sends them."""

    avg_metrics: dict[str, Any] = {}
    batch_metrics: Any = None


class TrialMetrics(Form, frozen=True):
    """What a run of a trial measured after so many steps; run 0 is not checked."""

    trial_run_id: Number = 0
    steps_completed: Number = 0
    metrics: Values = Values()


class Reported(Form, frozen=True):
    """A report of metrics in a group."""

    metrics: TrialMetrics
    group: str = "training"


def add(db: Connection, trial_id: int, group: str, given: TrialMetrics) -> None:
    """Record metrics. Several reports for the same steps add up; one that was repeated (a retry) is no news to the searcher.

    A trial that resumes reports again what came after its checkpoint: that replaces what an earlier run had reported.

    Raises:
        WrongState: it is another run's, which has ended.
        UserError: a metric of these steps was reported already, with another value.
    """
    found, run, steps = trial(db, trial_id), given.trial_run_id, given.steps_completed
    if run and run != found.run:
        raise WrongState(f"invalid run id {run}: trial {trial_id} is in its run {found.run}")
    values, batch = given.metrics.avg_metrics, given.metrics.batch_metrics
    old = db.execute("SELECT run, metrics FROM metric WHERE trial = ? AND grp = ? AND steps = ?", (trial_id, group, steps)).fetchone()
    if old and old["run"] == run:
        before = json.loads(old["metrics"])
        if conflicting := sorted(key for key in values.keys() & before.keys() if values[key] != before[key]):
            raise UserError(f"overwriting existing metric keys is not supported, conflicting key: {conflicting[0]} (at {steps} steps)")
        if values.keys() <= before.keys():
            return
        values = {**before, **values}
    if group == VALIDATION and not old:
        search.validated(db, trial_id, values)
    row = (trial_id, group, steps, run, json.dumps(values), json.dumps(batch) if batch else None, time.time())
    db.execute("INSERT OR REPLACE INTO metric VALUES (?, ?, ?, ?, ?, ?, ?)", row)


@dataclass(frozen=True)
class Report:
    """What a trial reported in a group after so many steps; `batches` are the values of each batch, where it sent them."""

    trial: int
    group: str
    steps: int
    run: int
    values: Mapping[str, Any]
    batches: Any
    reported: float


def _report(row: sqlite3.Row) -> Report:
    batches = json.loads(row["batch_metrics"]) if row["batch_metrics"] else None
    return Report(row["trial"], row["grp"], row["steps"], row["run"], json.loads(row["metrics"]), batches, row["reported"])


def of_trial(db: Connection, trial_id: int, group: str = "") -> list[Report]:
    """List what a trial reported, by steps and group."""
    sql = "SELECT * FROM metric WHERE trial = ? AND (?2 = '' OR grp = ?2) ORDER BY steps, grp"
    return [_report(row) for row in db.execute(sql, (trial_id, group)).fetchall()]


def steps(db: Connection, trial_id: int) -> int:
    """Return how far a trial has trained, as its metrics say."""
    return int(db.execute("SELECT coalesce(max(steps), 0) FROM metric WHERE trial = ?", (trial_id,)).fetchone()[0])


def validations(db: Connection, found: Trial) -> tuple[Report | None, Report | None]:
    """Return a trial's latest validation metrics, and its best ones by the searcher's metric."""
    reports = of_trial(db, found.id, VALIDATION)
    if not reports:
        return None, None
    searcher = get(db, found.experiment).config.searcher
    ranked = [(value, one) for one in reports if (value := searchers.number_of(one.values, searcher.metric)) is not None]
    choose = min if searcher.smaller_is_better else max
    return reports[-1], choose(ranked, key=lambda pair: pair[0])[1] if ranked else None


def best_validation(db: Connection, experiment: Experiment) -> float | None:
    """Return the best value of the searcher's metric so far."""
    sql = "SELECT m.metrics FROM metric m JOIN trial t ON m.trial = t.id WHERE t.experiment = ? AND m.grp = ?"
    found = (
        searchers.number_of(json.loads(row["metrics"]), experiment.config.searcher.metric)
        for row in db.execute(sql, (experiment.id, VALIDATION)).fetchall()
    )
    values = [value for value in found if value is not None]
    if not values:
        return None
    return min(values) if experiment.config.searcher.smaller_is_better else max(values)
