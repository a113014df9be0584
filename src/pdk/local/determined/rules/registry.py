"""Models and their versions."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdk.errors import Conflict, UserError, WrongState
from pdk.kit.db import one
from pdk.local.determined.rules import checkpoints, workspaces
from pdk.local.determined.rules.forms import Form, Number, given

Connection = sqlite3.Connection


class NewModel(Form, frozen=True):
    """A model to be made."""

    name: str = ""
    description: str = ""
    notes: str = ""
    labels: list[str] = []
    metadata: dict[str, Any] = {}
    workspace_name: str = ""


class ModelChanges(Form, frozen=True):
    """What is to be different of a model; None leaves a field alone."""

    name: str | None = None
    description: str | None = None
    notes: str | None = None
    labels: list[str] | None = None
    metadata: dict[str, Any] | None = None
    workspace_name: str = ""
    workspace_id: Number = 0


class NewVersion(Form, frozen=True):
    """A version to be made: a checkpoint, and what is said of it."""

    checkpoint_uuid: str = ""
    name: str = ""
    comment: str = ""
    notes: str = ""
    labels: list[str] = []
    metadata: dict[str, Any] = {}


class VersionChanges(Form, frozen=True):
    """What is to be different of a version; None leaves a field alone."""

    name: str | None = None
    comment: str | None = None
    notes: str | None = None
    labels: list[str] | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Model:
    """A model of the registry."""

    id: int
    workspace: int
    name: str
    description: str
    notes: str
    labels: Sequence[str]
    metadata: Mapping[str, Any]
    archived: bool
    created: float
    updated: float


@dataclass(frozen=True)
class Version:
    """A version of a model: a checkpoint with a number, and maybe a name."""

    id: int
    model: int
    number: int
    checkpoint: str
    name: str
    comment: str
    notes: str
    labels: Sequence[str]
    metadata: Mapping[str, Any]
    created: float
    updated: float


def _model(row: sqlite3.Row) -> Model:
    return Model(
        row["id"], row["workspace"], row["name"], row["description"], row["notes"], json.loads(row["labels"]), json.loads(row["metadata"]),
        bool(row["archived"]), row["created"], row["updated"],
    )  # fmt: skip


def _version(row: sqlite3.Row) -> Version:
    return Version(
        row["id"], row["model"], row["number"], row["checkpoint"], row["name"], row["comment"], row["notes"], json.loads(row["labels"]),
        json.loads(row["metadata"]), row["created"], row["updated"],
    )  # fmt: skip


def _check_model_name(name: str) -> None:
    if not name or "/" in name or name.isdecimal():  # clients put it into a path, where a number means another thing
        raise UserError(f"model name {name!r}: a name without '/' that is not a number is required")


def create_model(db: Connection, wanted: NewModel) -> Model:
    """Make a model.

    Raises:
        Conflict: the name is taken.
        UserError: no name, or one with a slash (clients put it into a path).
    """
    _check_model_name(wanted.name)
    workspace = workspaces.by_name(db, wanted.workspace_name).id if wanted.workspace_name else workspaces.FIRST
    _check_untaken(db, wanted.name)
    now = time.time()
    db.execute(
        "INSERT INTO model (workspace, name, description, notes, labels, metadata, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            workspace, wanted.name, wanted.description, wanted.notes, json.dumps(wanted.labels), json.dumps(wanted.metadata), now, now,
        ),
    )  # fmt: skip
    return model(db, wanted.name)


def model(db: Connection, name_or_id: str) -> Model:
    """Return a model by its name, or its number where no model has that name.

    Raises:
        NotFound: neither.
    """
    sql = "SELECT * FROM model WHERE name = ?1 OR id = ?2 ORDER BY name = ?1 DESC"
    values = (name_or_id, int(name_or_id) if name_or_id.isdecimal() and len(name_or_id) < 19 else 0)
    return _model(one(db, sql, values, f"model {name_or_id!r} not found"))


def model_by_id(db: Connection, pk: int) -> Model:
    """Return a model by its number.

    Raises:
        NotFound: there is none.
    """
    return _model(one(db, "SELECT * FROM model WHERE id = ?", (pk,), f"model {pk} not found"))


def models(db: Connection) -> list[Model]:
    """Return all models, oldest first."""
    return [_model(row) for row in db.execute("SELECT * FROM model ORDER BY id").fetchall()]


def model_labels(db: Connection) -> list[str]:
    """Return the labels that models carry."""
    return [row[0] for row in db.execute("SELECT DISTINCT value FROM model, json_each(model.labels) ORDER BY value").fetchall()]


def delete_model(db: Connection, pk: int) -> None:
    """Forget a model with its versions; checkpoints stay."""
    db.execute("DELETE FROM model WHERE id = ?", (pk,))


def archive_model(db: Connection, pk: int, *, wanted: bool) -> None:
    """Archive a model, or bring it back."""
    db.execute("UPDATE model SET archived = ? WHERE id = ?", (wanted, pk))


def change_model(db: Connection, pk: int, changes: ModelChanges) -> None:
    """Change a model.

    Raises:
        Conflict: the name is taken.
        WrongState: it is archived.
    """
    found = model_by_id(db, pk)
    if found.archived:
        raise WrongState(f"model {found.name!r} is archived; unarchive it first")
    if changes.name is not None and changes.name != found.name:
        _check_model_name(changes.name)
        _check_untaken(db, changes.name)
    _set(db, "model", pk, changes)
    if changes.workspace_name:
        move_model(db, pk, workspaces.by_name(db, changes.workspace_name).id)
    elif changes.workspace_id:
        move_model(db, pk, changes.workspace_id)


def _check_untaken(db: Connection, name: str) -> None:
    if db.execute("SELECT 1 FROM model WHERE name = ?", (name,)).fetchone():
        raise Conflict(f"a model with name {name!r} already exists; get it, or choose another name")


def change_version(db: Connection, pk: int, changes: VersionChanges) -> None:
    """Change a version."""
    _set(db, "version", pk, changes)


def _set(db: Connection, table: str, pk: int, changes: ModelChanges | VersionChanges) -> None:
    for key, value in given(changes).items():
        if key in ("labels", "metadata"):
            db.execute(f"UPDATE {table} SET {key} = ? WHERE id = ?", (json.dumps(value), pk))
        elif not key.startswith("workspace"):
            db.execute(f"UPDATE {table} SET {key} = ? WHERE id = ?", (value, pk))
    db.execute(f"UPDATE {table} SET updated = ? WHERE id = ?", (time.time(), pk))


def move_model(db: Connection, pk: int, workspace: int) -> None:
    """Put a model into another workspace.

    Raises:
        NotFound: there is no such workspace.
    """
    db.execute("UPDATE model SET workspace = ? WHERE id = ?", (workspaces.workspace(db, workspace).id, pk))


def add_version(db: Connection, model_name: str, wanted: NewVersion) -> Version:
    """Register a checkpoint as the model's next version.

    Raises:
        Conflict: a version of that name exists already (so that a repeated call cannot make a second one).
    """
    owner = model(db, model_name)
    source = checkpoints.get(db, wanted.checkpoint_uuid)
    if source.state != "STATE_COMPLETED":
        raise WrongState(f"checkpoint {source.uuid} is {source.state}; only completed checkpoints can be registered")
    if wanted.name and db.execute("SELECT 1 FROM version WHERE model = ? AND name = ?", (owner.id, wanted.name)).fetchone():
        raise Conflict(f"model {owner.name!r} has a version named {wanted.name!r} already")
    number = db.execute("SELECT coalesce(max(number), 0) + 1 FROM version WHERE model = ?", (owner.id,)).fetchone()[0]
    now = time.time()
    db.execute(
        "INSERT INTO version (model, number, checkpoint, name, comment, notes, labels, metadata, created, updated) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            owner.id, number, source.uuid, wanted.name, wanted.comment, wanted.notes, json.dumps(wanted.labels),
            json.dumps(wanted.metadata), now, now,
        ),
    )  # fmt: skip
    db.execute("UPDATE model SET updated = ? WHERE id = ?", (now, owner.id))
    return version(db, owner.id, number)


def version(db: Connection, model_id: int, number: int) -> Version:
    """Return a version by its number.

    Raises:
        NotFound: the model has none of that number.
    """
    sql, missing = "SELECT * FROM version WHERE model = ? AND number = ?", f"version {number} of model {model_id} not found"
    return _version(one(db, sql, (model_id, number), missing))


def versions(db: Connection, model_id: int) -> list[Version]:
    """Return a model's versions, newest first."""
    return [_version(row) for row in db.execute("SELECT * FROM version WHERE model = ? ORDER BY number DESC", (model_id,)).fetchall()]


def count_versions(db: Connection, model_id: int) -> int:
    """Count the versions of a model."""
    return int(db.execute("SELECT count(*) FROM version WHERE model = ?", (model_id,)).fetchone()[0])


def delete_version(db: Connection, pk: int) -> None:
    """Forget a version; its checkpoint stays."""
    db.execute("DELETE FROM version WHERE id = ?", (pk,))
