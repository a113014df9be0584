"""Compares what the database says lies on disk with what lies there: by sizes, which is cheap; `check` compares the bytes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pdk.kit.db import Database
from pdk.local.pachyderm.store.blobs import BlobStore, size_of
from pdk.local.pachyderm.store.locations import extents

LOOK_S = 30.0  # between two looks at the packs, and at everything while something is missing
NAMED = 3  # files that are named of what was lost


@dataclass(frozen=True)
class Missing:
    """A file of the store that is gone or too short: how many contents and bytes it held that are lost, and some paths that had them."""

    file: Path
    why: str
    contents: int
    size: int
    paths: tuple[str, ...]

    def __str__(self) -> str:
        held = f"it held {self.contents:,} contents ({self.size:,} bytes)" + (f", of {', '.join(self.paths)}" if self.paths else "")
        return f"{self.file} {self.why}; {held}; bring it back from a backup and restart, or put the files again"


def missing(db: sqlite3.Connection, blobs: BlobStore) -> Iterator[Missing]:
    """Find the packs and large files that do not hold what is on record."""
    for pack, end in sorted(extents(db).items()):
        if (left := blobs.pack_size(pack)) < end:
            yield _missing(db, blobs.pack_path(pack), left, end, "pack = ? AND offset + size > ?", (pack, left))
    for name, size in db.execute("SELECT hash, size FROM blob WHERE pack = 0").fetchall():
        path = blobs.large_path(name)
        if (left := size_of(path)) != size:
            yield _missing(db, path, left, size, "hash = ?", (name,))


def _missing(db: sqlite3.Connection, path: Path, left: int, needed: int, lost: str, values: tuple[object, ...]) -> Missing:
    contents, size = db.execute(f"SELECT count(*), coalesce(sum(size), 0) FROM blob WHERE {lost}", values).fetchone()
    sql = (
        "SELECT DISTINCT r.project || '/' || r.name || ':' || f.path FROM file f JOIN lineage l ON f.lineage = l.pk "
        f"JOIN repo r ON l.repo = r.pk WHERE f.kind = 1 AND f.hash IN (SELECT hash FROM blob WHERE {lost}) LIMIT ?"
    )
    paths = [row[0] for row in db.execute(sql, (*values, NAMED + 1)).fetchall()]
    if len(paths) > NAMED:
        paths[NAMED] = "…"
    why = f"has {left:,} instead of {needed:,} bytes" if path.is_file() else "is gone"
    return Missing(path, why, contents, size, tuple(paths))


class Inventory:
    """What is missing, looked up when the server starts and from then on."""

    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self.db, self.blobs = db, blobs
        self.missing: list[Missing] = []
        self._ends: dict[int, int] = {}  # up to which each pack was on record at the last look
        self.look()

    def look(self) -> None:
        """Compare everything."""
        with self.db.own_reader() as reader:
            self._ends = extents(reader)
            self.missing = list(missing(reader, self.blobs))
        self.blobs.left = {pack: size for pack, end in self._ends.items() if (size := self.blobs.pack_size(pack)) < end}

    def health(self) -> str:
        """Say what is missing, for /healthz; empty where nothing is."""
        return "; ".join(map(str, self.missing))

    async def run(self) -> None:
        """Look at the packs now and then, until cancelled, and at everything while something is missing."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self.missing or any(self.blobs.pack_size(pack) < end for pack, end in self._ends.items()):
                await asyncio.to_thread(self.look)
