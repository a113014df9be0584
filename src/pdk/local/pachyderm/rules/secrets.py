"""Secrets: values that pipelines use and nobody lists."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pdk.errors import Conflict, NotFound, UserError
from pdk.local.pachyderm.rules.model import check_name

Connection = sqlite3.Connection
KEY = re.compile(r"(?!\.\.?$)[-._a-zA-Z0-9]+")


@dataclass(frozen=True)
class Secret:
    """A secret without its values; `created` in unix time."""

    name: str
    type: str
    created: float


def create(db: Connection, name: str, type_: str, data: Mapping[str, str]) -> None:
    """Keep a secret.

    Raises:
        Conflict: there is one of that name.
        UserError: a name is not one.
    """
    check_name("secret", name)
    for key in data:
        if not KEY.fullmatch(key):
            raise UserError(f"the secret's key {key!r} may hold letters, digits, '.', '_' and '-' only: it becomes a file's name")
    if db.execute("SELECT 1 FROM secret WHERE name = ?", (name,)).fetchone():
        raise Conflict(f'secrets "{name}" already exists')
    put(db, name, type_, data)


def put(db: Connection, name: str, type_: str, data: Mapping[str, str]) -> None:
    """Keep a secret in the place of one that may be there."""
    sql = "INSERT INTO secret VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET data = excluded.data"
    db.execute(sql, (name, type_, json.dumps(dict(data)), time.time()))


def data_of(db: Connection, name: str) -> dict[str, str]:
    """Return the keys and values of a secret.

    Raises:
        NotFound: there is none of that name.
    """
    row = db.execute("SELECT data FROM secret WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"secret {name!r} does not exist; create it with `pachctl create secret` or `pdk create secret`")
    return dict(json.loads(row[0]))


def listing(db: Connection) -> list[Secret]:
    """Return all secrets, by name."""
    return [Secret(*row) for row in db.execute("SELECT name, type, created FROM secret ORDER BY name").fetchall()]


def get(db: Connection, name: str) -> Secret:
    """Return a secret.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute("SELECT name, type, created FROM secret WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f'secrets "{name}" not found')
    return Secret(*row)


def delete(db: Connection, name: str) -> None:
    """Forget a secret.

    Raises:
        NotFound: in the engine's words.
    """
    if not db.execute("DELETE FROM secret WHERE name = ?", (name,)).rowcount:
        raise NotFound(f'secrets "{name}" not found')
