"""All objects of all kinds in one table, and the log of their changes that watches read. Inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
KEPT_EVENTS = 2000  # older changes are forgotten; a watch from before then gets 410 and lists anew

MIGRATIONS = (
    """
CREATE TABLE object (
  resource TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (resource, namespace, name)
) STRICT, WITHOUT ROWID;
-- AUTOINCREMENT: a resource version is never given twice, not even after the newest event was pruned
CREATE TABLE event (
  version INTEGER PRIMARY KEY AUTOINCREMENT,
  type TEXT NOT NULL,
  resource TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL
) STRICT;
""",
)


@dataclass(frozen=True)
class Event:
    """One change: ADDED, MODIFIED or DELETED, with the object after (or before its deletion)."""

    version: int
    type: str
    namespace: str
    body: Json


def get(db: sqlite3.Connection, resource: str, namespace: str, name: str) -> Json | None:
    """Return an object."""
    row = db.execute("SELECT body FROM object WHERE resource = ? AND namespace = ? AND name = ?", (resource, namespace, name)).fetchone()
    return dict(json.loads(row[0])) if row else None


def listing(db: sqlite3.Connection, resource: str, namespace: str = "") -> list[Json]:
    """Objects of a resource by namespace and name; of all namespaces where none is named."""
    sql = "SELECT body FROM object WHERE resource = ?1 AND (?2 = '' OR namespace = ?2) ORDER BY namespace, name"
    return [json.loads(row[0]) for row in db.execute(sql, (resource, namespace))]


def version(db: sqlite3.Connection) -> int:
    """Return the newest resource version."""
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event'").fetchone()[0])


def put(db: sqlite3.Connection, resource: str, body: Json, kind: str) -> Json:
    """Store an object under a new resource version; `kind` is the event's type."""
    meta = body["metadata"]
    key = (resource, meta.get("namespace", ""), meta["name"])
    pk = db.execute("INSERT INTO event (type, resource, namespace, name, body) VALUES (?, ?, ?, ?, '')", (kind, *key)).lastrowid
    meta["resourceVersion"] = str(pk)
    text = json.dumps(body)
    db.execute("UPDATE event SET body = ? WHERE version = ?", (text, pk))
    if kind == "DELETED":
        db.execute("DELETE FROM object WHERE resource = ? AND namespace = ? AND name = ?", key)
    else:
        db.execute("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)", (*key, text))
    db.execute("DELETE FROM event WHERE version <= ?", ((pk or 0) - KEPT_EVENTS,))
    return body


def since(db: sqlite3.Connection, resource: str, namespace: str, after: int) -> list[Event] | None:
    """Changes after a resource version; None where they are no longer all known."""
    newest = version(db)
    oldest = db.execute("SELECT min(version) FROM event").fetchone()[0]
    if after < newest and (oldest is None or after + 1 < oldest):
        return None
    sql = "SELECT * FROM event WHERE resource = ?1 AND version > ?2 AND (?3 = '' OR namespace = ?3) ORDER BY version"
    return [
        Event(row["version"], row["type"], row["namespace"], json.loads(row["body"]))
        for row in db.execute(sql, (resource, after, namespace))
    ]
