"""Workspaces and their projects, in which experiments and models are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pdk.errors import Conflict, UserError, WrongState
from pdk.kit.db import one
from pdk.local.determined.rules.forms import Form
from pdk.local.determined.rules.sections import Config

Connection = sqlite3.Connection
FIRST = 1  # the number of the workspace, and of the project in it, that always exist


@dataclass(frozen=True)
class Workspace:
    """A workspace holds projects and models."""

    id: int
    name: str
    archived: bool


@dataclass(frozen=True)
class Project:
    """A project of a workspace holds experiments."""

    id: int
    workspace: int
    name: str
    description: str
    archived: bool


class Naming(Form, frozen=True):
    """What a workspace or project is to be called; None leaves a field alone. Workspaces have no description."""

    name: str | None = None
    description: str | None = None


def _workspace(row: sqlite3.Row) -> Workspace:
    return Workspace(row["id"], row["name"], bool(row["archived"]))


def _project(row: sqlite3.Row) -> Project:
    return Project(row["id"], row["workspace"], row["name"], row["description"], bool(row["archived"]))


def by_name(db: Connection, name: str) -> Workspace:
    """Return a workspace by its name.

    Raises:
        NotFound: there is none of that name.
    """
    missing = f"workspace {name!r} not found; create it with `det workspace create {name}`"
    return _workspace(one(db, "SELECT * FROM workspace WHERE name = ?", (name,), missing))


def workspace(db: Connection, id_: int) -> Workspace:
    """Return a workspace by its number.

    Raises:
        NotFound: there is none.
    """
    return _workspace(one(db, "SELECT * FROM workspace WHERE id = ?", (id_,), f"workspace {id_} not found"))


def listing(db: Connection) -> list[Workspace]:
    """Return all workspaces, oldest first."""
    return [_workspace(row) for row in db.execute("SELECT * FROM workspace ORDER BY id").fetchall()]


def project(db: Connection, id_: int) -> Project:
    """Return a project by its number.

    Raises:
        NotFound: there is none.
    """
    return _project(one(db, "SELECT * FROM project WHERE id = ?", (id_,), f"project {id_} not found"))


def projects(db: Connection, workspace_id: int) -> list[Project]:
    """List a workspace's projects."""
    sql = "SELECT * FROM project WHERE workspace = ? ORDER BY id"
    return [_project(row) for row in db.execute(sql, (workspace(db, workspace_id).id,)).fetchall()]


def project_for(db: Connection, config: Config, project_id: int | None) -> int:
    """Return the project that an experiment goes into: the given one, else the one that its config names, else Uncategorized.

    Raises:
        NotFound: it does not exist.
        WrongState: it, or its workspace, is archived.
    """
    if project_id:
        found = project(db, project_id)
    elif not config.workspace and not config.project:
        return FIRST
    else:
        owner = by_name(db, config.workspace or "Uncategorized")
        name = config.project or "Uncategorized"
        missing = f"project {name!r} not found in workspace {owner.name!r}; create it with `det project create`"
        found = _project(one(db, "SELECT * FROM project WHERE workspace = ? AND name = ?", (owner.id, name), missing))
    if found.archived or workspace(db, found.workspace).archived:
        raise WrongState(f"project {found.name!r} or its workspace is archived; unarchive it, or choose another one")
    return found.id


def create(db: Connection, name: str) -> Workspace:
    """Make a workspace.

    Raises:
        Conflict: the name is taken.
    """
    _check_name(db, name)
    db.execute("INSERT INTO workspace (name) VALUES (?)", (name,))
    return by_name(db, name)


def _check_name(db: Connection, name: str) -> None:
    if not name.strip():
        raise UserError("a workspace needs a name")
    if db.execute("SELECT 1 FROM workspace WHERE name = ?", (name,)).fetchone():
        raise Conflict(f"workspace {name!r} already exists")


def create_project(db: Connection, workspace_id: int, name: str, description: str) -> Project:
    """Make a project in a workspace.

    Raises:
        Conflict: the name is taken there.
    """
    _check_project_name(db, workspace(db, workspace_id).id, name)
    sql = "INSERT INTO project (workspace, name, description) VALUES (?, ?, ?)"
    return project(db, int(db.execute(sql, (workspace_id, name, description)).lastrowid or 0))


def _check_project_name(db: Connection, workspace_id: int, name: str) -> None:
    if not name.strip():
        raise UserError("a project needs a name")
    if db.execute("SELECT 1 FROM project WHERE workspace = ? AND name = ?", (workspace_id, name)).fetchone():
        raise Conflict(f"project {name!r} already exists in that workspace")


def change(db: Connection, id_: int, wanted: Naming) -> Workspace:
    """Rename a workspace."""
    _check_mutable("workspace", workspace(db, id_))
    if wanted.name is not None and wanted.name != workspace(db, id_).name:
        _check_name(db, wanted.name)
        db.execute("UPDATE workspace SET name = ? WHERE id = ?", (wanted.name, id_))
    return workspace(db, id_)


def change_project(db: Connection, id_: int, wanted: Naming) -> Project:
    """Set a project's name or description."""
    found = project(db, id_)
    _check_mutable("project", found)
    if wanted.name is not None and wanted.name != found.name:
        _check_project_name(db, found.workspace, wanted.name)
        db.execute("UPDATE project SET name = ? WHERE id = ?", (wanted.name, id_))
    if wanted.description is not None:
        db.execute("UPDATE project SET description = ? WHERE id = ?", (wanted.description, id_))
    return project(db, id_)


def archive(db: Connection, table: str, id_: int, *, wanted: bool) -> None:
    """Put a workspace or project away, or back."""
    _check_mutable(table, _READ[table](db, id_))
    db.execute(f"UPDATE {table} SET archived = ? WHERE id = ?", (wanted, id_))


def delete(db: Connection, table: str, id_: int) -> None:
    """Remove a workspace or project.

    Raises:
        WrongState: something is in it.
    """
    _check_mutable(table, _READ[table](db, id_))
    inside = (id_,) if table == "project" else tuple(inside.id for inside in projects(db, id_))
    held = sum(count(db, number) for number in inside)
    if held:
        raise WrongState(f"{table} {id_} is not empty: {held} experiments are in it; move or delete them first")
    if table == "workspace":
        if db.execute("SELECT 1 FROM model WHERE workspace = ?", (id_,)).fetchone():
            raise WrongState(f"workspace {id_} is not empty: models are in it; move or delete them first")
        db.execute("DELETE FROM project WHERE workspace = ?", (id_,))
        db.execute("DELETE FROM template WHERE workspace = ?", (id_,))
    db.execute(f"DELETE FROM {table} WHERE id = ?", (id_,))


def count(db: Connection, project_id: int, *, active: bool = False) -> int:
    """Return how many experiments a project holds."""
    more = " AND state = 'ACTIVE'" if active else ""
    return int(db.execute(f"SELECT count(*) FROM experiment WHERE project = ?{more}", (project_id,)).fetchone()[0])


def _check_mutable(table: str, found: Workspace | Project) -> None:
    if found.id == FIRST:
        raise UserError(f"{table} {found.name!r} is immutable: it always exists")


_READ: Mapping[str, Callable[[Connection, int], Workspace | Project]] = {"workspace": workspace, "project": project}
