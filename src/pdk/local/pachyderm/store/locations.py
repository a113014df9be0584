"""Where contents lie: the table ``blob``."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from pdk.local.pachyderm.store import tree

EMPTY = tree.EMPTY
LOOK = 500  # contents that are looked up together


class Blob(NamedTuple):
    """Where one content lies; `pack` 0 is a file of its own."""

    hash: bytes
    size: int
    pack: int
    offset: int


def find(connection: sqlite3.Connection, name: bytes) -> Blob | None:
    """Return where the content `name` lies."""
    if name == EMPTY:
        return Blob(EMPTY, 0, 0, 0)
    row = connection.execute("SELECT hash, size, pack, offset FROM blob WHERE hash = ?", (name,)).fetchone()
    return Blob(*row) if row else None


def recorded(connection: sqlite3.Connection, names: Sequence[bytes]) -> dict[bytes, Blob]:
    """Return where those of the contents lie that are on record."""
    found: dict[bytes, Blob] = {}
    for start in range(0, len(names), LOOK):
        some = names[start : start + LOOK]
        rows = connection.execute(f"SELECT hash, size, pack, offset FROM blob WHERE hash IN ({','.join('?' * len(some))})", some)
        found.update((row[0], Blob(*row)) for row in rows)
    return found


def extents(connection: sqlite3.Connection) -> dict[int, int]:
    """Return the byte up to which each pack is on record."""
    rows = connection.execute("SELECT pack, max(offset + size) FROM blob WHERE pack > 0 GROUP BY pack")
    return {row[0]: row[1] for row in rows.fetchall()}
