"""Multipart uploads of the S3 gateway: contents on their way to become one file."""

from __future__ import annotations

import sqlite3
import time
import uuid
from dataclasses import dataclass

Connection = sqlite3.Connection


@dataclass(frozen=True)
class Multipart:
    """An upload under way; `started` in unix time."""

    id: str
    bucket: str
    key: str
    started: float


@dataclass(frozen=True)
class Part:
    """A part of an upload: the store's hash of its content, its size in bytes, its MD5 in hex, when it came in unix time."""

    number: int
    hash: bytes
    size: int
    md5: str
    stored: float


def begin(db: Connection, bucket: str, key: str) -> str:
    """Begin an upload; returns its ID."""
    id_ = uuid.uuid4().hex
    db.execute("INSERT INTO upload VALUES (?, ?, ?, ?)", (id_, bucket, key, time.time()))
    return id_


def is_under_way(db: Connection, id_: str, bucket: str, key: str) -> bool:
    """Tell whether there is an upload of that ID to that place."""
    return db.execute("SELECT 1 FROM upload WHERE id = ? AND bucket = ? AND key = ?", (id_, bucket, key)).fetchone() is not None


def put(db: Connection, id_: str, part: Part) -> None:
    """Keep a part, in the place of one of its number."""
    row = (id_, part.number, part.hash, part.size, part.md5, part.stored)
    db.execute("INSERT OR REPLACE INTO upload_part VALUES (?, ?, ?, ?, ?, ?)", row)


def parts(db: Connection, id_: str, *, after: int = -1, limit: int = -1) -> list[Part]:
    """Return the parts of an upload by number, from the one after `after`, at most `limit` (all with -1)."""
    sql = "SELECT number, hash, size, md5, stored FROM upload_part WHERE upload = ? AND number > ? ORDER BY number LIMIT ?"
    return [Part(*row) for row in db.execute(sql, (id_, after, limit)).fetchall()]


def listing(db: Connection, bucket: str) -> list[Multipart]:
    """Return the uploads to a bucket, by key."""
    return [Multipart(*row) for row in db.execute("SELECT * FROM upload WHERE bucket = ? ORDER BY key, started", (bucket,)).fetchall()]


def forget(db: Connection, id_: str) -> None:
    """Forget an upload with its parts."""
    db.execute("DELETE FROM upload WHERE id = ?", (id_,))
