"""Checkpoints as trials report them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pdk.errors import NotFound, UserError
from pdk.kit.db import one
from pdk.local.determined.rules import experiments, searchers, sections
from pdk.local.determined.rules.forms import Form, Number
from pdk.local.determined.rules.sections import Config

Connection = sqlite3.Connection


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as its trial reported it: after how many steps, with which files (path → bytes), and when."""

    uuid: str
    trial: int
    allocation: str
    state: str
    steps: int
    metadata: Mapping[str, Any]
    resources: Mapping[str, int]
    reported: float

    @property
    def size(self) -> int:
        """Return the bytes of its files."""
        return sum(self.resources.values())


class Report(Form, frozen=True):
    """A checkpoint as a trial's program reports it; `resources` are its files, path → bytes."""

    uuid: UUID
    task_id: str
    allocation_id: str = ""
    state: str = "STATE_COMPLETED"
    metadata: dict[str, Any] = {}
    resources: dict[str, Number] = {}
    report_time: datetime | None = None


def _checkpoint(row: sqlite3.Row) -> Checkpoint:
    metadata, resources = json.loads(row["metadata"]), json.loads(row["resources"])
    return Checkpoint(row["uuid"], row["trial"], row["allocation"], row["state"], row["steps"], metadata, resources, row["reported"])


def add(db: Connection, report: Report) -> None:
    """Record a checkpoint as a trial reports it; a repeated report changes nothing.

    Raises:
        NotFound: there is no such task.
        UserError: its metadata count steps that are not a number.
    """
    trial = experiments.trial_of_task(db, report.task_id)
    steps = report.metadata.get("steps_completed") or 0
    if not isinstance(steps, int):
        raise UserError(f"metadata.steps_completed: a whole number is expected, not {steps!r}")
    when = report.report_time.timestamp() if report.report_time else time.time()
    db.execute(
        "INSERT INTO checkpoint (uuid, trial, allocation, state, steps, metadata, resources, reported) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (uuid) DO NOTHING",
        (
            str(report.uuid), trial.id, report.allocation_id, report.state, steps, json.dumps(report.metadata),
            json.dumps(report.resources), when,
        ),
    )  # fmt: skip


def get(db: Connection, uuid: str) -> Checkpoint:
    """Return a checkpoint.

    Raises:
        NotFound: there is none of that UUID.
    """
    return _checkpoint(one(db, "SELECT * FROM checkpoint WHERE uuid = ?", (uuid,), f"checkpoint {uuid} not found"))


def set_metadata(db: Connection, uuid: str, metadata: Mapping[str, Any]) -> None:
    """Replace what users note of a checkpoint."""
    db.execute("UPDATE checkpoint SET metadata = ? WHERE uuid = ?", (json.dumps(metadata), uuid))


def listing(db: Connection, *, trial: int | None = None, experiment: int | None = None) -> list[Checkpoint]:
    """Checkpoints of a trial or of an experiment, oldest first."""
    sql = (
        "SELECT c.* FROM checkpoint c JOIN trial t ON c.trial = t.id "
        "WHERE (?1 IS NULL OR c.trial = ?1) AND (?2 IS NULL OR t.experiment = ?2) ORDER BY c.reported"
    )
    return [_checkpoint(row) for row in db.execute(sql, (trial, experiment)).fetchall()]


def at_steps(db: Connection, trial: int, steps: int) -> Checkpoint | None:
    """Return the checkpoint that a trial made after so many steps, while it is whole."""
    sql = "SELECT * FROM checkpoint WHERE trial = ? AND steps = ? AND state = 'STATE_COMPLETED' ORDER BY reported DESC LIMIT 1"
    row = db.execute(sql, (trial, steps)).fetchone()
    return _checkpoint(row) if row else None


def latest(db: Connection, trial: int) -> Checkpoint | None:
    """Return the one that a trial goes on from."""
    sql = "SELECT * FROM checkpoint WHERE trial = ? AND state = 'STATE_COMPLETED' ORDER BY steps DESC, reported DESC LIMIT 1"
    row = db.execute(sql, (trial,)).fetchone()
    return _checkpoint(row) if row else None


def with_source(db: Connection, config: Config) -> Config:
    """Return a config whose searcher names the checkpoint that its trials start from: the latest one where it names a trial.

    Raises:
        NotFound: there is no such checkpoint or trial, or the trial has none.
    """
    searcher = config.searcher
    if searcher.source_checkpoint_uuid:
        get(db, searcher.source_checkpoint_uuid)
    elif number := searcher.source_trial_id:
        experiments.trial(db, number)
        found = latest(db, number)
        if found is None:
            raise NotFound(f"searcher.source_trial_id: trial {number} has no checkpoint")
        chosen = {**searcher.content, "source_checkpoint_uuid": found.uuid}
        return sections.config({**config.content, "searcher": chosen}, config.notes)
    return config


def validation_of(db: Connection, found: Checkpoint) -> Mapping[str, Any] | None:
    """Return the validation metrics at a checkpoint's step (joined when read: either may be reported first)."""
    sql = "SELECT metrics FROM metric WHERE trial = ? AND grp = 'validation' AND steps = ?"
    row = db.execute(sql, (found.trial, found.steps)).fetchone()
    return dict(json.loads(row["metrics"])) if row else None


def measured(db: Connection, found: Checkpoint, metric: str) -> float | None:
    """Return a validation metric of a checkpoint; None where it was not reported with it."""
    return searchers.number_of(validation_of(db, found) or {}, metric)
