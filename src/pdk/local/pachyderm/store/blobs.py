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
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pdk.errors import EngineError
from pdk.local.pachyderm.store import tree

LARGE = 1 << 20  # bytes from which content gets a file of its own
PACK_LIMIT = 256 << 20  # bytes after which a new pack is begun
READ = 1 << 20
HEADER = 40  # bytes before each content of a pack
EMPTY = tree.EMPTY


def digest(content: bytes) -> bytes:
    """The name of `content`."""
    return hashlib.blake2b(content, digest_size=32).digest()


class Blob(NamedTuple):
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

    def append(self, contents: Mapping[bytes, bytes]) -> list[Blob]:
        """Add small contents, given by their hashes, to the open pack (not synced yet: `Incoming.save`)."""
        records = b"".join(part for name, content in contents.items() for part in (name, len(content).to_bytes(8, "big"), content))
        with self._lock:
            if self._end >= PACK_LIMIT:
                self._next_pack()
            written, position = os.write(self._pack, records), self._end
            self._end += written
            if written != len(records):  # disk nearly full: what was written is garbage that nothing refers to
                raise EngineError(f"the store's disk is full: {written} of {len(records)} bytes were written to {self.packs}")
            blobs = []
            for name, content in contents.items():
                blobs.append(Blob(name, len(content), self._number, position + HEADER))
                position += HEADER + len(content)
            return blobs

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
        moved = [copy for blob in blobs for copy in self.append({blob.hash: b"".join(self.read(blob))})]
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

    def pin(self, names: Iterable[bytes]) -> None:
        """Keep contents from being collected, until `unpin`."""
        with self._lock:
            self.pins.update(names)

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

    def write_to(self, blob: Blob | None, path: str) -> None:
        """Write a content to a new file; an empty one for None."""
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.fchmod(target, 0o644)  # whatever the server's own umask: the job may run as another user
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


def find(connection: sqlite3.Connection, name: bytes) -> Blob | None:
    """Where the content `name` lies."""
    if name == EMPTY:
        return Blob(EMPTY, 0, 0, 0)
    row = connection.execute("SELECT hash, size, pack, offset FROM blob WHERE hash = ?", (name,)).fetchone()
    return Blob(*row) if row else None
