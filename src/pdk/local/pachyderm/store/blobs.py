"""Where content lies: many small files in append-only packs, large ones (from 1 MB) in read-only files of their own.

Content is named by its BLAKE2b-256. Order on disk: bytes written and synced, then the rows of table ``blob`` in the very transaction
that refers to them. A crash in between leaves bytes that nobody refers to, never a reference without bytes.

A pack is a sequence of records: 32 bytes of hash, 8 bytes of size (big-endian), the content.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pdk.errors import EngineError, TemporaryError
from pdk.local.pachyderm.store import tree

LARGE = 1 << 20  # bytes from which content gets a file of its own
PACK_LIMIT = 256 << 20  # bytes after which a new pack is begun
READ = 1 << 20
HEADER = 40  # bytes before each content of a pack
EMPTY = tree.EMPTY


def digest(content: bytes) -> bytes:
    """The name of `content`."""
    return hashlib.blake2b(content, digest_size=32).digest()


@dataclass(frozen=True)
class Blob:
    """Where one content lies; `pack` 0 is a file of its own."""

    hash: bytes
    size: int
    pack: int
    offset: int


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class BlobStore:
    """The content of all repos of one server, below `root`."""

    def __init__(self, root: Path) -> None:
        self.packs, self.large, self.incoming = root / "packs", root / "large", root / "incoming"
        for folder in (self.packs, self.large, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.incoming.iterdir():
            leftover.unlink()
        self._lock = threading.Lock()
        self.pins: Counter[bytes] = Counter()  # contents that somebody is about to refer to: not to be collected
        self.doomed: set[bytes] = set()  # contents that are being collected: still on record for those who look, and as good as gone
        self._number = max((int(path.stem) for path in self.packs.glob("*.pack")), default=1)
        self._pack = self._open_pack()

    def _open_pack(self) -> int:
        descriptor = os.open(self.packs / f"{self._number}.pack", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        sync_folder(self.packs)
        self._end = os.fstat(descriptor).st_size
        return descriptor

    def close(self) -> None:
        """Close the open pack."""
        os.close(self._pack)

    def _next_pack(self) -> None:
        os.fsync(self._pack)
        os.close(self._pack)
        self._number += 1
        self._pack = self._open_pack()

    def begin_pack(self) -> None:
        """Add to a new pack from now on, although the open one is not full."""
        with self._lock:
            self._next_pack()

    def append(self, name: bytes, content: bytes) -> Blob:
        """Add a small content to the open pack (not synced yet: `Incoming.sync`)."""
        with self._lock:
            if self._end >= PACK_LIMIT:
                self._next_pack()
            record = name + len(content).to_bytes(8, "big") + content
            written = os.write(self._pack, record)
            if written != len(record):  # disk nearly full: what was written is garbage that nothing refers to
                self._end += written
                raise EngineError(f"the store's disk is full: {written} of {len(record)} bytes were written to {self.packs}")
            blob = Blob(name, len(content), self._number, self._end + HEADER)
            self._end += written
            return blob

    def sync(self) -> None:
        """Make everything that was appended durable."""
        with self._lock:
            os.fsync(self._pack)

    def large_path(self, name: bytes) -> Path:
        """The file of a large content."""
        text = name.hex()
        return self.large / text[:2] / text

    def open(self, blob: Blob) -> tuple[int, int]:
        """A descriptor (the caller closes it) and the position of the content in it."""
        path = self.large_path(blob.hash) if blob.pack == 0 else self.packs / f"{blob.pack}.pack"
        return os.open(path, os.O_RDONLY), blob.offset

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """For many contents one after the other: packs stay open."""
        reading = Reading(self)
        try:
            yield reading
        finally:
            reading.close()

    def header(self, blob: Blob) -> bytes:
        """What stands before a content in its pack: its hash and size."""
        descriptor, position = self.open(blob)
        try:
            return os.pread(descriptor, HEADER, position - HEADER)
        finally:
            os.close(descriptor)

    def is_there(self, blob: Blob) -> bool:
        """Whether as many bytes as the content has are on disk."""
        descriptor, position = self.open(blob)
        try:
            return os.fstat(descriptor).st_size >= position + blob.size
        finally:
            os.close(descriptor)

    def doom(self, names: Iterable[bytes]) -> set[bytes]:
        """Those of `names` that nobody is about to refer to; whoever brings one of them from now on stores it anew."""
        with self._lock:
            self.doomed.update(name for name in names if name not in self.pins)
            return set(self.doomed)

    def bury(self) -> None:
        """What was doomed is off the record: remove its large files."""
        self.remove_large(self.doomed)
        self.spare()

    def spare(self) -> None:
        """Nothing is doomed any more."""
        with self._lock:
            self.doomed.clear()

    def remove_large(self, names: Iterable[bytes]) -> None:
        """Remove large files, but for those that somebody is about to refer to."""
        for name in list(names):
            with self._lock:
                if name not in self.pins:
                    self.large_path(name).unlink(missing_ok=True)

    def closed_packs(self) -> list[int]:
        """Numbers of the packs that nothing is added to any more."""
        return sorted(number for path in self.packs.glob("*.pack") if (number := int(path.stem)) != self._number)

    def pack_size(self, number: int) -> int:
        """Bytes of a pack."""
        return (self.packs / f"{number}.pack").stat().st_size

    def copy_to_open_pack(self, blobs: Iterable[Blob]) -> list[Blob]:
        """Copy contents to the end of the open pack, durably; says where they lie there."""
        moved = [self.append(blob.hash, b"".join(self.read(blob))) for blob in blobs]
        self.sync()
        return moved

    def remove_pack(self, number: int) -> None:
        """Remove a pack that nothing refers to. Who has it open reads on."""
        (self.packs / f"{number}.pack").unlink()
        sync_folder(self.packs)

    def unpinned_large(self) -> set[bytes]:
        """The large files that nobody is about to refer to: what of them is not on record after this call is nobody's."""
        found = {bytes.fromhex(path.name) for path in self.large.glob("*/*")}
        with self._lock:
            return found - self.pins.keys()

    def pin(self, name: bytes) -> None:
        """Keep a content from being collected, until `unpin`."""
        with self._lock:
            self.pins[name] += 1

    def unpin(self, names: Iterable[bytes]) -> None:
        """Let go of contents."""
        with self._lock:
            for name in names:
                self.pins[name] -= 1
                if not self.pins[name]:
                    del self.pins[name]

    def read(self, blob: Blob, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The content from `start`, in parts of at most 1 MB."""
        left = max(0, blob.size - start) if length is None else max(0, min(length, blob.size - start))
        if left == 0:
            return
        descriptor, position = self.open(blob)
        try:
            position += start
            while left > 0:
                part = os.pread(descriptor, min(left, READ), position)
                if not part:
                    raise EngineError(f"content {blob.hash.hex()[:16]}… is shorter on disk than on record; run `pdk fsck`")
                yield part
                position, left = position + len(part), left - len(part)
        finally:
            os.close(descriptor)


class Reading:
    """Reads many contents; keeps the packs open."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self._packs: dict[int, int] = {}

    def close(self) -> None:
        """Close the packs."""
        for descriptor in self._packs.values():
            os.close(descriptor)

    def write_to(self, blob: Blob | None, path: Path) -> None:
        """Write a content to a new file; an empty one for None."""
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            if blob is None or not blob.size:
                return
            if blob.pack == 0:
                for part in self.store.read(blob):
                    os.write(target, part)
                return
            if blob.pack not in self._packs:
                self._packs[blob.pack] = self.store.open(blob)[0]
            content = os.pread(self._packs[blob.pack], blob.size, blob.offset)
            if len(content) != blob.size:
                raise EngineError(f"content {blob.hash.hex()[:16]}… is shorter on disk than on record; run `pdk fsck`")
            os.write(target, content)
        finally:
            os.close(target)


class Incoming:
    """Contents that one request brings; nothing of it counts before `rows` are in a committed transaction.

    What it brings or refers to is kept from being collected until `release`.
    """

    def __init__(self, store: BlobStore, reader: sqlite3.Connection) -> None:
        self.store, self.reader = store, reader
        self.rows: dict[bytes, Blob] = {}
        self._pinned: list[bytes] = []
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
        view = memoryview(part)
        while view:
            view = view[os.write(self._file, view) :]

    def end(self) -> tuple[bytes, int]:
        """The current content is whole: its hash and size."""
        size = self._size
        if self._file is None:
            content = bytes(self._small)
            name = digest(content)
            if content and not self._known(name):
                self.rows[name] = self.store.append(name, content)
        else:
            name = self._hash.digest()
            if not self._known(name):
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
        sync_folder(target.parent)
        sync_folder(self.store.large)
        self.rows[name] = Blob(name, self._size, 0, 0)
        self._path = None

    def refer(self, name: bytes) -> None:
        """Keep a content that is about to be referred to."""
        self.store.pin(name)
        self._pinned.append(name)

    def _known(self, name: bytes) -> bool:
        self.refer(name)  # before the look: what is found now must still be there when it is referred to
        if name in self.store.doomed:
            return name in self.rows
        return name in self.rows or find(self.reader, name) is not None

    def sync(self) -> None:
        """Make the bytes durable; call before the transaction that inserts `rows`."""
        if any(blob.pack for blob in self.rows.values()):
            self.store.sync()

    def insert(self, connection: sqlite3.Connection) -> None:
        """Record the new contents, inside the caller's transaction.

        Raises:
            TemporaryError: a content that was there before has been collected.
        """
        connection.executemany(
            "INSERT OR IGNORE INTO blob VALUES (?, ?, ?, ?)", [(b.hash, b.size, b.pack, b.offset) for b in self.rows.values()]
        )
        for name in self._pinned:
            if name not in self.rows and find(connection, name) is None:
                raise TemporaryError("a content that this refers to was collected as garbage meanwhile; nothing was written, try again")


def find(connection: sqlite3.Connection, name: bytes) -> Blob | None:
    """Where the content `name` lies."""
    if name == EMPTY:
        return Blob(EMPTY, 0, 0, 0)
    row = connection.execute("SELECT hash, size, pack, offset FROM blob WHERE hash = ?", (name,)).fetchone()
    return Blob(*row) if row else None
