"""Files without a commit: made, renewed, put together, added to open commits.

A file set is kept twice: as a lineage of its own, by which it is read like a commit (repo ``__filesets__``), and as the changes that
adding it to a commit makes.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator

from pdk.local.pachyderm.rules import commits, files
from pdk.local.pachyderm.rules.files import Change, Copy, Delete, Put
from pdk.local.pachyderm.rules.model import Commit, Refused
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection
TTL_S, TTL_LIMIT_S = 600.0, 1800.0  # seconds that a file set lives, and may be renewed for, as the engine has it


def _new(db: Connection, ttl_s: float, base: tuple[int, int] | None = None) -> tuple[str, int]:
    lineage = db.execute("INSERT INTO lineage (repo, base, base_seq) VALUES (NULL, ?, ?)", base or (None, None)).lastrowid
    assert lineage is not None
    id_ = uuid.uuid4().hex
    db.execute("INSERT INTO file_set VALUES (?, ?, ?)", (id_, lineage, time.time() + ttl_s))
    return id_, lineage


def create(db: Connection, changes: Iterable[Change], settled: Iterable[Change], ttl_s: float) -> str:
    """Return a file set of changes; `settled` are the same after appends within the set."""
    id_, lineage = _new(db, ttl_s)
    writer = tree.Writer(db, lineage, 1)
    for change in settled:
        files.apply(db, writer, change)
    writer.close()
    for position, change in enumerate(_plain(db, changes)):
        kind, path = type(change).__name__, change.path
        row: tuple[object, ...] = (id_, position, kind, path, None, 0, 0)
        if isinstance(change, Put):
            row = (id_, position, kind, path, change.hash, change.size, int(change.append))
        db.execute("INSERT INTO file_set_change VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return id_


def _plain(db: Connection, changes: Iterable[Change]) -> Iterator[Put | Delete]:
    """Give the changes without copies: what they bring stands in their place."""
    for change in changes:
        if not isinstance(change, Copy):
            yield change
            continue
        if not change.append:
            yield from (Delete(change.path), Delete(change.path.rstrip("/") + "/"))
        yield from (Put(path, entry.hash, entry.size, append=True) for path, entry in files.copied(db, change))


def of_commit(db: Connection, commit: Commit, ttl_s: float) -> str:
    """Return all files of a commit as a file set, without copying anything."""
    return _new(db, ttl_s, (commit.lineage, commit.seq))[0]


def changes(db: Connection, id_: str) -> list[Change]:
    """Return what adding a file set to a commit changes there."""
    commits.file_set(db, id_)
    rows = db.execute("SELECT * FROM file_set_change WHERE file_set = ? ORDER BY position", (id_,)).fetchall()
    if rows:
        return [Put(r["path"], r["hash"], r["size"], bool(r["append"])) if r["kind"] == "Put" else Delete(r["path"]) for r in rows]
    return list(_puts(db, id_))


def _puts(db: Connection, id_: str) -> Iterator[Put]:
    commit = commits.file_set(db, id_)
    for entry in tree.files_below(tree.walk(db, tree.view(db, commit.lineage, commit.seq), "/")):
        yield Put(entry.path, entry.hash, entry.size, append=True)


def renew(db: Connection, id_: str, ttl_s: float) -> None:
    """Let a file set live for `ttl_s` more seconds.

    Raises:
        Refused: the time is out of bounds, in the engine's words.
    """
    if ttl_s < 1:
        raise Refused(f"ttl ({int(ttl_s * 1e9)}) must be at least one second")
    if ttl_s > TTL_LIMIT_S:
        raise Refused(f"ttl ({int(ttl_s * 1e9)}) exceeds max ttl ({int(TTL_LIMIT_S * 1e9)})")
    commits.file_set(db, id_)
    db.execute("UPDATE file_set SET expires = ? WHERE id = ?", (time.time() + ttl_s, id_))


def forget_expired(db: Connection) -> int:
    """Remove what nobody renewed; returns how many."""
    rows = db.execute("SELECT id, lineage FROM file_set WHERE expires <= ?", (time.time(),)).fetchall()
    for row in rows:
        db.execute("DELETE FROM file_set WHERE id = ?", (row["id"],))
        db.execute("DELETE FROM file WHERE lineage = ?", (row["lineage"],))
        db.execute("DELETE FROM lineage WHERE pk = ?", (row["lineage"],))
    return len(rows)
