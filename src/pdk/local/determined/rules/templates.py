"""Config templates: settings that many experiments share."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import Conflict, NotFound

Connection = sqlite3.Connection


@dataclass(frozen=True)
class Template:
    """A template: its name, the part of a config that it holds, the workspace that it belongs to."""

    name: str
    config: Mapping[str, Any]
    workspace: int


def _template(row: sqlite3.Row) -> Template:
    return Template(row["name"], json.loads(row["config"]), row["workspace"])


def get(db: Connection, name: str) -> Template:
    """Return a template.

    Raises:
        NotFound: none has that name.
    """
    row = db.execute("SELECT * FROM template WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"template {name!r} not found; `det template list` shows which there are")
    return _template(row)


def listing(db: Connection) -> list[Template]:
    """Return all templates, by name."""
    return [_template(row) for row in db.execute("SELECT * FROM template ORDER BY name").fetchall()]


def put(db: Connection, template: Template, *, replace: bool) -> None:
    """Keep a template, or with `replace` its config where it is there.

    Raises:
        Conflict: one of that name is there.
    """
    if not replace and db.execute("SELECT 1 FROM template WHERE name = ?", (template.name,)).fetchone():
        raise Conflict(f"a template with name {template.name!r} already exists; set it, or choose another name")
    sql = "INSERT INTO template (name, config, workspace) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET config = ?2"
    db.execute(sql, (template.name, json.dumps(template.config), template.workspace))


def delete(db: Connection, name: str) -> None:
    """Forget a template.

    Raises:
        NotFound: none has that name.
    """
    get(db, name)
    db.execute("DELETE FROM template WHERE name = ?", (name,))
