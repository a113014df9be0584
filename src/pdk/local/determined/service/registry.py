"""Checkpoints, models, versions, workspaces and projects. Every function works inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pdk.errors import Conflict, NotFound, UserError
from pdk.local.determined.service import experiments

Connection = sqlite3.Connection


def add_checkpoint(db: Connection, report: Mapping[str, Any]) -> None:
    """Record a checkpoint as a trial reports it; a repeated report changes nothing."""
    trial = experiments.trial_of_task(db, report["taskId"])
    metadata = report.get("metadata") or {}
    reported = report.get("reportTime")
    when = datetime.fromisoformat(reported).timestamp() if reported else time.time()
    db.execute(
        "INSERT INTO checkpoint (uuid, trial, allocation, state, steps, metadata, resources, reported) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (uuid) DO NOTHING",
        (
            report["uuid"], trial.id, report.get("allocationId") or "", str(report.get("state", "STATE_COMPLETED")),
            int(metadata.get("steps_completed") or 0), json.dumps(metadata), json.dumps(report.get("resources") or {}), when,
        ),
    )  # fmt: skip


def checkpoint(db: Connection, uuid: str) -> sqlite3.Row:
    """A checkpoint.

    Raises:
        NotFound: there is none of that UUID.
    """
    row: sqlite3.Row | None = db.execute("SELECT * FROM checkpoint WHERE uuid = ?", (uuid,)).fetchone()
    if row is None:
        raise NotFound(f"checkpoint {uuid} not found")
    return row


def checkpoints(db: Connection, *, trial: int | None = None, experiment: int | None = None) -> list[sqlite3.Row]:
    """Checkpoints of a trial or of an experiment, oldest first."""
    sql = (
        "SELECT c.* FROM checkpoint c JOIN trial t ON c.trial = t.id "
        "WHERE (?1 IS NULL OR c.trial = ?1) AND (?2 IS NULL OR t.experiment = ?2) ORDER BY c.reported"
    )
    return db.execute(sql, (trial, experiment)).fetchall()


def latest_checkpoint(db: Connection, trial: int) -> sqlite3.Row | None:
    """The one that a trial goes on from."""
    sql = "SELECT * FROM checkpoint WHERE trial = ? AND state = 'STATE_COMPLETED' ORDER BY steps DESC, reported DESC LIMIT 1"
    row: sqlite3.Row | None = db.execute(sql, (trial,)).fetchone()
    return row


def validation_of(db: Connection, row: sqlite3.Row) -> sqlite3.Row | None:
    """The validation metrics at a checkpoint's step (joined when read: either may be reported first)."""
    sql = "SELECT * FROM metric WHERE trial = ? AND grp = 'validation' AND steps = ?"
    found: sqlite3.Row | None = db.execute(sql, (row["trial"], row["steps"])).fetchone()
    return found


def sort_by_metric(db: Connection, experiment: experiments.Experiment, rows: list[sqlite3.Row]) -> list[sqlite3.Row]:
    """Best first by the searcher's metric; those without one last."""
    sign = 1 if experiment.config["searcher"]["smaller_is_better"] else -1

    def key(row: sqlite3.Row) -> tuple[bool, float]:
        validation = validation_of(db, row)
        value = experiments.searcher_metric(experiment, validation["metrics"]) if validation else None
        return value is None, sign * (value or 0.0)

    return sorted(rows, key=key)


def template(db: Connection, name: str) -> sqlite3.Row:
    """A config template.

    Raises:
        NotFound: there is none of that name.
    """
    row: sqlite3.Row | None = db.execute("SELECT * FROM template WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"template {name!r} not found; `det template list` shows which there are")
    return row


def create_model(db: Connection, body: Mapping[str, Any]) -> sqlite3.Row:
    """A new model.

    Raises:
        Conflict: the name is taken.
        UserError: no name, or one with a slash (clients put it into a path).
    """
    name = str(body.get("name") or "")
    if not name or "/" in name:
        raise UserError(f"model name {name!r}: a name without '/' is required")
    workspace = workspace_by_name(db, body["workspaceName"])["id"] if body.get("workspaceName") else 1
    if db.execute("SELECT 1 FROM model WHERE name = ?", (name,)).fetchone():
        raise Conflict(f"a model with name {name!r} already exists; get it, or choose another name")
    now = time.time()
    db.execute(
        "INSERT INTO model (workspace, name, description, notes, labels, metadata, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            workspace, name, body.get("description") or "", body.get("notes") or "", json.dumps(body.get("labels") or []),
            json.dumps(body.get("metadata") or {}), now, now,
        ),
    )  # fmt: skip
    return model(db, name)


def model(db: Connection, name_or_id: str) -> sqlite3.Row:
    """A model by its name, or its number where no model has that name.

    Raises:
        NotFound: neither.
    """
    row: sqlite3.Row | None = db.execute("SELECT * FROM model WHERE name = ?", (name_or_id,)).fetchone()
    if row is None and name_or_id.isdecimal():
        row = db.execute("SELECT * FROM model WHERE id = ?", (int(name_or_id),)).fetchone()
    if row is None:
        raise NotFound(f"model {name_or_id!r} not found")
    return row


def change(db: Connection, table: str, pk: int, body: Mapping[str, Any], text: tuple[str, ...]) -> None:
    """Set the fields of a model or version that `body` carries."""
    assert table in ("model", "version"), table
    for key in text:
        if body.get(key) is not None:
            db.execute(f"UPDATE {table} SET {key} = ? WHERE id = ?", (str(body[key]), pk))
    for key in ("labels", "metadata"):
        if body.get(key) is not None:
            db.execute(f"UPDATE {table} SET {key} = ? WHERE id = ?", (json.dumps(body[key]), pk))
    db.execute(f"UPDATE {table} SET updated = ? WHERE id = ?", (time.time(), pk))


def move_model(db: Connection, pk: int, workspace: int) -> None:
    """Put a model into another workspace.

    Raises:
        NotFound: there is no such workspace.
    """
    if not db.execute("SELECT 1 FROM workspace WHERE id = ?", (workspace,)).fetchone():
        raise NotFound(f"workspace {workspace} not found")
    db.execute("UPDATE model SET workspace = ? WHERE id = ?", (workspace, pk))


def add_version(db: Connection, model_name: str, body: Mapping[str, Any]) -> sqlite3.Row:
    """Register a checkpoint as the model's next version.

    Raises:
        Conflict: a version of that name exists already (so that a repeated call cannot make a second one).
    """
    owner = model(db, model_name)
    source = checkpoint(db, str(body.get("checkpointUuid") or ""))
    if source["state"] != "STATE_COMPLETED":
        raise Conflict(f"checkpoint {source['uuid']} is {source['state']}; only completed checkpoints can be registered")
    name = body.get("name") or ""
    if name and db.execute("SELECT 1 FROM version WHERE model = ? AND name = ?", (owner["id"], name)).fetchone():
        raise Conflict(f"model {owner['name']!r} has a version named {name!r} already")
    number = db.execute("SELECT coalesce(max(number), 0) + 1 FROM version WHERE model = ?", (owner["id"],)).fetchone()[0]
    now = time.time()
    db.execute(
        "INSERT INTO version (model, number, checkpoint, name, comment, notes, labels, metadata, created, updated) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            owner["id"], number, source["uuid"], name, body.get("comment") or "", body.get("notes") or "",
            json.dumps(body.get("labels") or []), json.dumps(body.get("metadata") or {}), now, now,
        ),
    )  # fmt: skip
    db.execute("UPDATE model SET updated = ? WHERE id = ?", (now, owner["id"]))
    return version(db, owner["id"], number)


def version(db: Connection, model_id: int, number: int) -> sqlite3.Row:
    """A version by its number.

    Raises:
        NotFound: the model has none of that number.
    """
    row: sqlite3.Row | None = db.execute("SELECT * FROM version WHERE model = ? AND number = ?", (model_id, number)).fetchone()
    if row is None:
        raise NotFound(f"version {number} of model {model_id} not found")
    return row


def versions(db: Connection, model_id: int) -> list[sqlite3.Row]:
    """A model's versions, newest first."""
    return db.execute("SELECT * FROM version WHERE model = ? ORDER BY number DESC", (model_id,)).fetchall()


def workspace_by_name(db: Connection, name: str) -> sqlite3.Row:
    """A workspace.

    Raises:
        NotFound: there is none of that name.
    """
    row: sqlite3.Row | None = db.execute("SELECT * FROM workspace WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"workspace {name!r} not found; create it with `det workspace create {name}`")
    return row


def project_for(db: Connection, config: Mapping[str, Any], project_id: int | None) -> int:
    """The project that an experiment goes into: the given one, else the one that its config names, else Uncategorized.

    Raises:
        NotFound: it does not exist.
    """
    if project_id:
        if not db.execute("SELECT 1 FROM project WHERE id = ?", (project_id,)).fetchone():
            raise NotFound(f"project {project_id} not found")
        return project_id
    if not config.get("workspace") and not config.get("project"):
        return 1
    workspace = workspace_by_name(db, str(config.get("workspace") or "Uncategorized"))
    name = str(config.get("project") or "Uncategorized")
    row = db.execute("SELECT id FROM project WHERE workspace = ? AND name = ?", (workspace["id"], name)).fetchone()
    if row is None:
        raise NotFound(f"project {name!r} not found in workspace {workspace['name']!r}; create it with `det project create`")
    return int(row[0])


def create_workspace(db: Connection, name: str) -> sqlite3.Row:
    """A new workspace.

    Raises:
        Conflict: the name is taken.
    """
    if not name.strip():
        raise UserError("a workspace needs a name")
    if db.execute("SELECT 1 FROM workspace WHERE name = ?", (name,)).fetchone():
        raise Conflict(f"workspace {name!r} already exists")
    db.execute("INSERT INTO workspace (name) VALUES (?)", (name,))
    return workspace_by_name(db, name)


def create_project(db: Connection, workspace: int, name: str, description: str) -> sqlite3.Row:
    """A new project in a workspace.

    Raises:
        Conflict: the name is taken there.
    """
    if not name.strip():
        raise UserError("a project needs a name")
    if db.execute("SELECT 1 FROM project WHERE workspace = ? AND name = ?", (workspace, name)).fetchone():
        raise Conflict(f"project {name!r} already exists in that workspace")
    db.execute("INSERT INTO project (workspace, name, description) VALUES (?, ?, ?)", (workspace, name, description))
    row: sqlite3.Row = db.execute("SELECT * FROM project WHERE workspace = ? AND name = ?", (workspace, name)).fetchone()
    return row
