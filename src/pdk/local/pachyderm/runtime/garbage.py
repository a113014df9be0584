"""Removes contents that nothing refers to any more, beside running writers.

What a running request has brought or is about to refer to is pinned in the store (`BlobStore.pins`) before it is looked up; what is
being collected (`doomed`) is stored anew by those who bring it. Rows go first, in one transaction that looks for references itself;
bytes go after it. A crash in between leaves bytes without rows, which the next run removes. A pack that is mostly dead is emptied in one
run and removed in the next: who has just looked up a content in it can still read it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass

from pdk.kit.db import Database
from pdk.local.pachyderm.rules import file_sets
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore, Damaged
from pdk.local.pachyderm.store.locations import Blob

log = logging.getLogger(__name__)
COMPACT_BELOW = 0.5  # a closed pack is rewritten when less than this share of it is referred to
MOVE_LIMIT = 64 << 20  # bytes that one transaction moves between packs
UPLOAD_LIFE_S = 7 * 86400.0  # after which a multipart upload that nobody completed is forgotten


@dataclass(frozen=True)
class Collected:
    """What one run removed."""

    contents: int
    size: int
    packs: int


async def collect(db: Database, blobs: BlobStore) -> Collected:
    """One run over the whole store."""
    try:
        gone: list[Blob] = await db.write(lambda connection: _forget(connection, blobs))
    except BaseException:
        blobs.spare()
        raise
    blobs.bury()
    strays = blobs.unpinned_large()
    known = {row[0] for row in db.reader.execute("SELECT hash FROM blob WHERE pack = 0").fetchall()}
    blobs.remove_large(strays - known)
    packs = 0
    for pack in blobs.closed_packs():
        packs += await _compact(db, blobs, pack)
    return Collected(len(gone), sum(blob.size for blob in gone), packs)


def _forget(db: sqlite3.Connection, blobs: BlobStore) -> list[Blob]:
    """Remove rows that nobody needs; returns the contents that nothing refers to any more."""
    file_sets.forget_expired(db)
    db.execute("DELETE FROM upload WHERE started < unixepoch() - ?", (UPLOAD_LIFE_S,))
    # versions of files that lie between two commits: those commits were squashed
    db.execute(
        "DELETE FROM file WHERE to_seq < ?1 AND NOT EXISTS (SELECT 1 FROM commits c WHERE c.lineage = file.lineage "
        "AND c.seq >= file.from_seq AND c.seq < file.to_seq) AND NOT EXISTS (SELECT 1 FROM lineage l WHERE l.base = file.lineage "
        "AND l.base_seq >= file.from_seq AND l.base_seq < file.to_seq)",
        (tree.OPEN,),
    )
    db.execute("DELETE FROM result WHERE NOT EXISTS (SELECT 1 FROM datum WHERE datum.result = result.pk)")
    rows = db.execute(
        "SELECT hash, size, pack, offset FROM blob WHERE hash NOT IN (SELECT hash FROM file WHERE kind = 1 "
        "UNION SELECT hash FROM result_file UNION SELECT hash FROM file_set_change WHERE hash IS NOT NULL "
        "UNION SELECT hash FROM upload_part)"
    ).fetchall()
    doomed = blobs.doom(row["hash"] for row in rows)
    db.executemany("DELETE FROM blob WHERE hash = ?", [(name,) for name in doomed])
    return [Blob(*row) for row in rows if row["hash"] in doomed]


async def _compact(db: Database, blobs: BlobStore, pack: int) -> int:
    """Remove a pack that nothing refers to, or move what is still needed of a mostly dead one elsewhere; returns how many packs went."""
    rows = db.reader.execute("SELECT hash, size, pack, offset FROM blob WHERE pack = ? ORDER BY offset", (pack,)).fetchall()
    live = [Blob(*row) for row in rows]
    if not live:
        blobs.remove_pack(pack)
        return 1
    if sum(blob.size for blob in live) >= COMPACT_BELOW * blobs.pack_size(pack):
        return 0
    while live:
        part, size = [], 0
        while live and size < MOVE_LIMIT:
            part.append(live.pop())
            size += part[-1].size
        try:
            moved = await asyncio.to_thread(blobs.copy_to_open_pack, part)
        except Damaged as error:  # it stays where it is, for a backup or `pdk fsck`
            log.warning("pack %d is not emptied: %s", pack, error)
            return 0

        def point(connection: sqlite3.Connection, moved: list[Blob] = moved) -> None:
            sql = "UPDATE blob SET pack = ?, offset = ? WHERE hash = ?"
            connection.executemany(sql, [(blob.pack, blob.offset, blob.hash) for blob in moved])

        await db.write(point)
    return 0
