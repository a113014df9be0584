"""What one request brings to the store: small contents by the batch, large ones as they come."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from pdk.durable import sync
from pdk.errors import TemporaryError
from pdk.local.pachyderm.store.blobs import LARGE, BlobStore, digest, write_all
from pdk.local.pachyderm.store.locations import EMPTY, Blob, recorded

BATCH = 1 << 20  # bytes of small contents that are written together


class Incoming:
    """Contents that one request brings; nothing of it counts before `rows` are in a committed transaction.

    What it brings or refers to is kept from being collected until `release`.
    """

    def __init__(self, store: BlobStore, reader: sqlite3.Connection) -> None:
        self.store, self.reader = store, reader
        self.rows: dict[bytes, Blob] = {}
        self._pinned: list[bytes] = []
        self._waiting: dict[bytes, bytes] = {}  # small contents that go to the pack together
        self._waiting_size = 0
        self._small: bytes | bytearray = b""
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._hash, self._hashing = hashlib.blake2b(digest_size=32), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """What was brought is referred to by now, or is to be forgotten."""
        self._drop_file()
        self._waiting.clear()
        self.store.unpin(self._pinned)
        self._pinned.clear()

    def _drop_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._file = self._path = None

    def feed(self, part: bytes) -> None:
        """More bytes of the current content."""
        self._size += len(part)
        if self._file is None and self._size < LARGE:
            if not self._small:
                self._small = part  # most contents come in one part: no need to copy it
            else:
                self._small = bytearray(self._small) if isinstance(self._small, bytes) else self._small
                self._small += part
            return
        if self._file is None:
            self._file, name = tempfile.mkstemp(dir=self.store.incoming)
            self._path = Path(name)
            self._write(bytes(self._small))
            self._small = b""
        self._write(part)

    def _write(self, part: bytes) -> None:
        assert self._file is not None
        self._hash.update(part)
        self._hashing = True
        write_all(self._file, part)

    def end(self) -> tuple[bytes, int]:
        """The current content is whole: its hash and size."""
        size = self._size
        if self._file is None:
            content = bytes(self._small)
            name = digest(content)
            if content and name not in self.rows:
                self._waiting[name] = content
                self._waiting_size += size
                if self._waiting_size > BATCH:
                    self.flush()
        else:
            name = self._hash.digest()
            if not self._known([name]):
                self._keep_file(name)
            self._drop_file()
        self._small, self._size = b"", 0
        if self._hashing:
            self._hash, self._hashing = hashlib.blake2b(digest_size=32), False
        return name, size

    def _keep_file(self, name: bytes) -> None:
        assert self._file is not None
        assert self._path is not None
        os.fsync(self._file)
        os.fchmod(self._file, 0o400)
        target = self.store.large_path(name)
        target.parent.mkdir(exist_ok=True)
        self._path.rename(target)
        sync(target.parent)
        sync(self.store.large)
        self.rows[name] = Blob(name, self._size, 0, 0)
        self._path = None

    def flush(self) -> None:
        """Write what waits for the pack."""
        known = self._known(list(self._waiting))
        new = {name: content for name, content in self._waiting.items() if name not in known}
        self._waiting, self._waiting_size = {}, 0
        if new:
            self.rows.update((blob.hash, blob) for blob in self.store.append(new))

    def refer(self, names: Iterable[bytes]) -> None:
        """Keep contents that are about to be referred to."""
        names = list(names)
        self.store.pin(names)
        self._pinned += names

    def _known(self, names: Sequence[bytes]) -> set[bytes]:
        """Return which contents the store has. One that is on record and was lost is brought anew."""
        self.refer(names)  # before the look: what is found now must still be there when it is referred to
        kept = {name for name, blob in recorded(self.reader, names).items() if self.store.holds(blob)}
        kept -= self.store.doomed | self.store.damaged
        return {name for name in names if name in self.rows or name in kept}

    async def save(self) -> None:
        """Make the bytes durable; call before the transaction that inserts `rows`.

        Raises:
            TemporaryError: somebody took away the file that they were written to.
        """
        self.flush()
        if any(blob.pack for blob in self.rows.values()):
            await asyncio.to_thread(self.store.sync)
        if lost := [blob for blob in self.rows.values() if not self.store.holds(blob)]:
            raise TemporaryError(f"{self.store.path(lost[0])} vanished while it was written to; nothing was committed, try again")

    def insert(self, connection: sqlite3.Connection) -> None:
        """Record the new contents, inside the caller's transaction.

        Raises:
            TemporaryError: a content that was there before has been collected.
        """
        # the newest copy counts: the one before may be lost
        sql = "INSERT INTO blob VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET pack = excluded.pack, offset = excluded.offset"
        connection.executemany(sql, [(b.hash, b.size, b.pack, b.offset) for b in self.rows.values()])
        self.store.damaged.difference_update(self.rows)
        old = [name for name in self._pinned if name not in self.rows]
        if len(recorded(connection, old)) < len(set(old) - {EMPTY}):
            raise TemporaryError("a content that this refers to was collected as garbage meanwhile; nothing was written, try again")
