"""Experiments and trials: their records and what a run's end means."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pdk.errors import NotFound, WrongState
from pdk.kit.db import one
from pdk.local.determined.rules import retention, search, searchers, sections
from pdk.local.determined.rules.config import check_scheduling
from pdk.local.determined.rules.forms import Form, Number, given
from pdk.local.determined.rules.sections import Config

Connection = sqlite3.Connection
TERMINAL = frozenset({"COMPLETED", "CANCELED", "ERROR", "DELETED"})
STOPPING = {"STOPPING_CANCELED": "CANCELED", "STOPPING_KILLED": "CANCELED", "STOPPING_ERROR": "ERROR"}
KILLING = frozenset({"STOPPING_KILLED", "STOPPING_ERROR"})
EARLY = {"ERROR": searchers.ERRORED, "CANCELED": searchers.CANCELED, "COMPLETED": ""}  # a trial's end as its searcher sees it


@dataclass(frozen=True)
class Experiment:
    """An experiment as it is on record (its context apart)."""

    id: int
    project: int
    name: str
    description: str
    labels: list[str]
    notes: str
    remarks: list[str]
    state: str
    config: Config
    original: str
    job_id: str
    parent: int | None
    archived: bool
    progress: float
    started: float
    ended: float | None


@dataclass(frozen=True)
class Trial:
    """A trial as it is on record; `run` counts its processes."""

    id: int
    experiment: int
    number: int
    state: str
    hparams: dict[str, Any]
    seed: int
    task: str
    run: int
    ended_run: int
    restarts: int
    acknowledged: bool
    early_exit: str
    stopped: bool
    preempted: bool
    slots: list[int]
    progress: float
    warm_start: str | None
    reason: str
    started: float
    ended: float | None

    @property
    def allocation(self) -> str:
        """Return the name of its present run."""
        return f"{self.task}.{self.run}"


class ResourceChanges(Form, frozen=True):
    """How an experiment is to be scheduled; None leaves a field alone."""

    max_slots: Number | None = None
    weight: float | None = None
    priority: Number | None = None


class Changes(Form, frozen=True):
    """What is to be different of an experiment; None leaves a field alone."""

    name: str | None = None
    description: str | None = None
    notes: str | None = None
    labels: list[str] | None = None
    resources: ResourceChanges | None = None
    checkpoint_storage: retention.Policy | None = None


COLUMNS = (
    "id, project, name, description, labels, notes, remarks, state, config, original, job_id, parent, archived, progress, started, ended"
)


def _experiment(row: sqlite3.Row) -> Experiment:
    values = dict(zip(row.keys(), row, strict=True))
    for key in ("labels", "remarks"):
        values[key] = json.loads(values[key])
    return Experiment(**{**values, "archived": bool(values["archived"]), "config": sections.config(json.loads(values["config"]))})


def _trial(row: sqlite3.Row) -> Trial:
    values = dict(zip(row.keys(), row, strict=True))
    for key in ("hparams", "slots"):
        values[key] = json.loads(values[key])
    return Trial(**{**values, **{key: bool(values[key]) for key in ("acknowledged", "stopped", "preempted")}})


def get(db: Connection, id_: int) -> Experiment:
    """Return an experiment.

    Raises:
        NotFound: no experiment has that number.
    """
    return _experiment(one(db, f"SELECT {COLUMNS} FROM experiment WHERE id = ?", (id_,), f"experiment {id_} not found"))


def listing(db: Connection) -> list[Experiment]:
    """Return all experiments, newest first."""
    return [_experiment(row) for row in db.execute(f"SELECT {COLUMNS} FROM experiment ORDER BY id DESC").fetchall()]


def last_start(db: Connection, project: int) -> float | None:
    """Return when the newest experiment of a project began; None where it has none."""
    found = db.execute("SELECT max(started) FROM experiment WHERE project = ?", (project,)).fetchone()[0]
    return None if found is None else float(found)


def labels(db: Connection) -> list[str]:
    """Return the labels that experiments carry."""
    return [row[0] for row in db.execute("SELECT DISTINCT value FROM experiment, json_each(experiment.labels) ORDER BY value").fetchall()]


def context(db: Connection, id_: int) -> bytes:
    """Return the experiment's code as a .tar.gz."""
    get(db, id_)
    return bytes(db.execute("SELECT context FROM experiment WHERE id = ?", (id_,)).fetchone()[0])


def create(
    db: Connection, config: Config, original: str, archive: bytes, project: int, *, activate: bool, parent: int | None = None
) -> Experiment:
    """Record an experiment and its first trials."""
    now = time.time()
    id_ = db.execute(
        "INSERT INTO experiment (project, name, description, labels, remarks, state, config, original, context, job_id, parent, started) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            project, config.name, config.description or "", json.dumps(config.labels), json.dumps(config.notes),
            "ACTIVE" if activate else "PAUSED", json.dumps(config.content), original, archive, str(uuid.uuid4()), parent, now,
        ),
    ).lastrowid  # fmt: skip
    assert id_ is not None
    search.begin(db, id_)
    return get(db, id_)


def trial(db: Connection, id_: int) -> Trial:
    """Return a trial.

    Raises:
        NotFound: no trial has that number.
    """
    return _trial(one(db, "SELECT * FROM trial WHERE id = ?", (id_,), f"trial {id_} not found"))


def trial_of_task(db: Connection, task: str) -> Trial:
    """Return the trial with a task ID."""
    return _trial(one(db, "SELECT * FROM trial WHERE task = ?", (task,), f"task {task} not found"))


def trial_of_allocation(db: Connection, allocation: str) -> Trial:
    """Return the trial that an allocation (a run) belongs to."""
    return trial_of_task(db, allocation.rpartition(".")[0])


def trials(db: Connection, experiment: int) -> list[Trial]:
    """Return an experiment's trials."""
    get(db, experiment)
    return [_trial(row) for row in db.execute("SELECT * FROM trial WHERE experiment = ? ORDER BY id", (experiment,)).fetchall()]


def open_trials(db: Connection) -> list[Trial]:
    """Trials whose experiment has not ended."""
    found = [_trial(row) for row in db.execute("SELECT * FROM trial WHERE ended IS NULL ORDER BY id").fetchall()]
    return [entry for entry in found if entry.state not in TERMINAL]


def update(db: Connection, id_: int, changes: Changes) -> Experiment:
    """Change name, description, notes or labels."""
    get(db, id_)
    for key, value in given(changes).items():
        if key in ("name", "description", "notes", "labels"):
            stored = json.dumps(value) if key == "labels" else value
            db.execute(f"UPDATE experiment SET {key} = ? WHERE id = ?", (stored, id_))
    return get(db, id_)


def set_resources(db: Connection, id_: int, changes: ResourceChanges) -> None:
    """Change how an experiment is scheduled from now on."""
    content = get(db, id_).config.content
    content["resources"].update(given(changes))
    check_scheduling(content["resources"])
    db.execute("UPDATE experiment SET config = ? WHERE id = ?", (json.dumps(content), id_))


def move(db: Connection, id_: int, project: int) -> None:
    """Put an experiment into another project.

    Raises:
        NotFound: there is no such project.
    """
    get(db, id_)
    if not db.execute("SELECT 1 FROM project WHERE id = ?", (project,)).fetchone():
        raise NotFound(f"project {project} not found")
    db.execute("UPDATE experiment SET project = ? WHERE id = ?", (project, id_))


def ask(db: Connection, id_: int, wanted: str) -> None:
    """A user wants the experiment ACTIVE, PAUSED, STOPPING_CANCELED or STOPPING_KILLED.

    Raises:
        WrongState: it has ended.
    """
    experiment = get(db, id_)
    if experiment.state in TERMINAL:
        if wanted in STOPPING:
            return  # asking again does no harm
        raise WrongState(f"experiment {id_} is {experiment.state} and cannot become {wanted}; create a new one")
    if experiment.state in STOPPING and wanted != "STOPPING_KILLED":
        if wanted in STOPPING:
            return
        raise WrongState(f"experiment {id_} is being stopped and cannot become {wanted}; create a new one")
    db.execute("UPDATE experiment SET state = ? WHERE id = ?", (wanted, id_))
    # a trial that is being killed on its own stays so
    db.execute("UPDATE trial SET state = ? WHERE experiment = ? AND ended IS NULL AND state != 'STOPPING_KILLED'", (wanted, id_))


def archive(db: Connection, id_: int, *, wanted: bool) -> None:
    """Put an experiment that has ended away, or back.

    Raises:
        WrongState: it has not ended, or is there already.
    """
    experiment = get(db, id_)
    if experiment.state not in TERMINAL:
        raise WrongState(f"experiment {id_} is not in a terminal state but {experiment.state}; kill it before you archive it")
    if experiment.archived == wanted:
        raise WrongState(f"experiment {id_} is {'already' if wanted else 'not'} archived")
    db.execute("UPDATE experiment SET archived = ? WHERE id = ?", (wanted, id_))


def kill_trial(db: Connection, id_: int) -> None:
    """A user wants one trial to end; its experiment goes on with the others."""
    if trial(db, id_).ended is None:
        db.execute("UPDATE trial SET state = 'STOPPING_KILLED' WHERE id = ?", (id_,))


def ending(db: Connection, trial_id: int) -> str:
    """Return how a trial, or all of its experiment, is to be ended; empty while it is not."""
    sql = "SELECT t.state, e.state FROM trial t JOIN experiment e ON t.experiment = e.id WHERE t.id = ?"
    return next((state for state in db.execute(sql, (trial_id,)).fetchone() if state in STOPPING), "")


def acknowledge(db: Connection, trial_id: int) -> None:
    """Note that a trial's program knows that it is to make room or to stop."""
    db.execute("UPDATE trial SET acknowledged = 1 WHERE id = ?", (trial_id,))


def note_early_exit(db: Connection, trial_id: int, reason: str) -> None:
    """Note why a trial's program ends before its time."""
    db.execute("UPDATE trial SET early_exit = ? WHERE id = ?", (reason, trial_id))


def begin_run(db: Connection, id_: int, slots: Sequence[int]) -> Trial:
    """Count a new process of a trial, which holds `slots`."""
    sql = "UPDATE trial SET run = run + 1, acknowledged = 0, preempted = 0, slots = ? WHERE id = ?"
    db.execute(sql, (json.dumps(slots), id_))
    return trial(db, id_)


def preempt(db: Connection, trials_: Iterable[int]) -> None:
    """Have trials save themselves and end, for more urgent ones; they go on later."""
    db.executemany("UPDATE trial SET preempted = 1 WHERE id = ?", [(id_,) for id_ in trials_])


def end_run(db: Connection, id_: int, code: int, reason: str, *, blameless: bool = False) -> Trial:
    """A trial's process ended with `code`: decide what becomes of the trial; `reason` is for the user should it fail.

    A failed run is repeated from the last checkpoint, `max_restarts` times; one that is `blameless` (the machine went down) is not counted.
    """
    found = trial(db, id_)
    db.execute("UPDATE trial SET ended_run = run WHERE id = ?", (id_,))
    experiment = get(db, found.experiment)
    if experiment.state in STOPPING:
        end(db, found, STOPPING[experiment.state], found.reason or (reason if code else ""))
    elif found.state in STOPPING:
        end(db, found, STOPPING[found.state], "")
    elif code == 0 and found.stopped:
        end(db, found, "COMPLETED", "")
    elif code == 0 and found.early_exit == searchers.INVALID:
        end(db, found, "COMPLETED", "the trial found its hyperparameters invalid", early=searchers.INVALID)
    elif code == 0 and found.early_exit:
        end(db, found, "ERROR", f"the trial ended itself early: {found.early_exit}")
    elif code == 0 and found.acknowledged and (experiment.state == "PAUSED" or found.preempted):
        pass  # it saved itself and waits, for `activate` or for slots
    elif code == 0 and not found.acknowledged:
        end(db, found, "COMPLETED", "")
    elif code != 0 and blameless:
        db.execute("UPDATE trial SET reason = ? WHERE id = ?", (reason, id_))
    elif code != 0 and (found.stopped or found.restarts >= experiment.config.max_restarts):
        end(db, found, "ERROR", reason)
    elif code != 0:
        db.execute("UPDATE trial SET restarts = restarts + 1, reason = ? WHERE id = ?", (reason, id_))
    return trial(db, id_)


def give_up(db: Connection, id_: int, reason: str) -> None:
    """End a trial that the server itself cannot handle."""
    found = trial(db, id_)
    if found.ended is None:
        end(db, found, "ERROR", reason)


def end(db: Connection, found: Trial, state: str, reason: str, early: str | None = None) -> None:
    """Close a trial, and its experiment when the search is over; `early` says how the searcher is to see it."""
    now = time.time()
    db.execute("UPDATE trial SET state = ?, reason = ?, ended = ? WHERE id = ?", (state, reason, now, found.id))
    verdict = search.exited(db, found.experiment, found.number, EARLY[state] if early is None else early)
    experiment = get(db, found.experiment)
    if experiment.state in STOPPING:
        open_ = db.execute("SELECT 1 FROM trial WHERE experiment = ? AND ended IS NULL", (experiment.id,)).fetchone()
        verdict = "" if open_ else STOPPING[experiment.state]
    if verdict:
        progress = ", progress = 1" if verdict == "COMPLETED" else ""
        db.execute(f"UPDATE experiment SET state = ?, ended = ?{progress} WHERE id = ?", (verdict, now, found.experiment))
        retention.apply(db, found.experiment)


def check_deletable(db: Connection, id_: int) -> None:
    """Refuse unless an experiment has ended and no model version uses its checkpoints.

    Raises:
        WrongState: it runs, or its checkpoints are registered.
    """
    experiment = get(db, id_)
    if experiment.state not in TERMINAL | {"DELETING"}:
        raise WrongState(f"experiment {id_} is {experiment.state}; kill it before you delete it")
    used = db.execute(
        "SELECT m.name, v.number FROM version v JOIN model m ON v.model = m.id JOIN checkpoint c ON v.checkpoint = c.uuid "
        "JOIN trial t ON c.trial = t.id WHERE t.experiment = ?",
        (id_,),
    ).fetchone()
    if used:
        raise WrongState(f"experiment {id_} cannot be deleted: version {used[1]} of model {used[0]!r} uses its checkpoint")


def begin_deletion(db: Connection, id_: int) -> None:
    """From now on nothing can go on from an experiment or its checkpoints; repeated where removing the files failed."""
    check_deletable(db, id_)
    db.execute("UPDATE experiment SET state = 'DELETING' WHERE id = ?", (id_,))
    sql = "UPDATE checkpoint SET state = 'STATE_DELETED' WHERE trial IN (SELECT id FROM trial WHERE experiment = ?)"
    db.execute(sql, (id_,))


def delete(db: Connection, id_: int) -> None:
    """Forget an experiment whose files are gone."""
    db.execute("DELETE FROM experiment WHERE id = ? AND state = 'DELETING'", (id_,))
