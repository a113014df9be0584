"""What one request brings: contents for the store, and the changes that refer to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Self

from pdk.errors import NotFound, TemporaryError
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import commits, file_sets, files
from pdk.local.pachyderm.rules.files import Change, Delete, Put
from pdk.local.pachyderm.rules.model import Commit, CommitRef, check_path
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.incoming import Incoming
from pdk.local.pachyderm.store.locations import Blob, find

TRIES = 20  # times that an append starts anew because somebody else appended to the same file


def blob_of(db: sqlite3.Connection, name: bytes, path: str) -> Blob:
    """Return where the content of `path` lies.

    Raises:
        NotFound: the store has lost it.
    """
    blob = find(db, name)
    if blob is None:
        raise NotFound(f"the content of {path} is missing from the store; run `pdk fsck`")
    return blob


class Upload:
    """Collects a request's contents and changes, and commits them in one step.

    Parts of one file that follow each other are one content; what is put onto a path that was not deleted before is appended, as the
    engine does it.
    """

    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self.db, self.blobs = db, blobs
        self.incoming = Incoming(blobs, db.reader)
        self.changes: list[Change] = []
        self._path: str | None = None
        self._raw = ""

    def __enter__(self) -> Self:
        self.incoming.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self.incoming.__exit__(*details)

    def add(self, path: str, part: bytes) -> None:
        """More bytes of the file at `path`."""
        if path != self._raw or self._path is None:
            self._close()
            self._path, self._raw = check_path(path), path
        self.incoming.feed(part)

    def replace(self, path: str, content: bytes) -> None:
        """Make `content` the file at `path`."""
        self.delete(path.rstrip("/"))
        self.add(path, content)

    def delete(self, path: str) -> None:
        """Remove a file, or everything below with a slash at the end."""
        self._close()
        if path != "/":
            check_path(path)
        self.changes.append(Delete(path))

    def change(self, change: Change) -> None:
        """Any other change."""
        self._close()
        self.changes.append(change)

    def referred(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Keep the contents that changes of somebody else refer to."""
        self.incoming.refer(change.hash for change in changes if isinstance(change, Put) and change.size)
        return changes

    def _close(self) -> None:
        if self._path is not None:
            append = not self.changes or self.changes[-1] != Delete(self._path)
            if not append:  # removed and put anew, as clients overwrite: one change
                self.changes.pop()
            self.changes.append(Put(self._path, *self.incoming.end(), append=append))
            self._path = None

    async def commit(self, target: CommitRef, changes: Sequence[Change] | None = None) -> Commit:
        """Make the changes (or those given instead) in an open commit, or in a commit of their own."""
        self._close()
        wanted = self.changes if changes is None else changes
        for attempt in range(TRIES):
            settled = files.settle(self.db.reader, self._sight(target), wanted, self._join)
            await self.incoming.save()

            def work(db: sqlite3.Connection, settled: list[Change] = settled) -> Commit:
                self.incoming.insert(db)
                return files.modify(db, target, settled)

            try:
                return await self.db.write(work)
            except files.Moved:
                if attempt == TRIES - 1:
                    raise
        raise TemporaryError(f"{target} changes too fast to append to; try again")

    async def keep(self, ttl_s: float) -> str:
        """Make a file set of the changes; returns its ID."""
        self._close()
        await self.incoming.save()
        settled = files.settle(self.db.reader, tree.View(()), self.changes, self._join)
        await self.incoming.save()

        def work(db: sqlite3.Connection) -> str:
            self.incoming.insert(db)
            return file_sets.create(db, self.changes, settled, ttl_s)

        return await self.db.write(work)

    def _sight(self, target: CommitRef) -> tree.View:
        try:
            commit = commits.resolve(self.db.reader, target)
        except NotFound:
            return tree.View(())
        return commits.view(self.db.reader, commit)

    def _join(self, first: bytes, first_size: int, second: bytes, second_size: int) -> tuple[bytes, int]:
        self.incoming.flush()
        for name, size in ((first, first_size), (second, second_size)):
            if size:
                blob = self.incoming.rows.get(name) or blob_of(self.db.reader, name, "a file that was appended to")
                for part in self.blobs.read(blob):
                    self.incoming.feed(part)
        return self.incoming.end()
