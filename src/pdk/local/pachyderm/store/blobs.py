"""Where content lies: many small files in append-only packs, large ones (from 1 MB) in read-only files of their own.

Content is named by its BLAKE2b-256. Order on disk: bytes written and synced, then the rows of table ``blob`` in the very transaction
that refers to them. A crash in between leaves bytes that nobody refers to, never a reference without bytes.

Nothing is trusted to be still as it was written: contents are hashed as they are read, a pack that vanished or became shorter is never
written to again, and its number is not used again while a row names it.

A pack is a sequence of records: 32 bytes of hash, 8 bytes of size (big-endian), the content.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pdk.durable import sync
from pdk.errors import EngineError
from pdk.local.pachyderm.store.locations import Blob, extents

log = logging.getLogger(__name__)
LARGE = 1 << 20  # bytes from which content gets a file of its own
PACK_LIMIT = 256 << 20  # bytes after which a new pack is begun
READ = 1 << 20  # bytes of a content that are read and hashed at once
HEADER = 40  # bytes before each content of a pack


def digest(content: bytes) -> bytes:
    """Return the name of `content`."""
    return hashlib.blake2b(content, digest_size=32).digest()


class Damaged(EngineError):
    """A content is not on disk as it was written."""

    def __init__(self, blob: Blob, path: Path, why: str) -> None:
        super().__init__(
            f"content {blob.hash.hex()[:16]}… cannot be read: {path} {why}; nothing of it is used. `pdk fsck` lists what is damaged; "
            "bring the file back from a backup, or put the same content once more"
        )


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`: the kernel may take a part of it alone, and says so by nothing but a number."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class BlobStore:
    """The content of all repos of one server, below `root`.

    Args:
        reader: of the database whose rows say what is where.
    """

    def __init__(self, root: Path, reader: sqlite3.Connection) -> None:
        self.packs, self.large, self.incoming = root / "packs", root / "large", root / "incoming"
        for folder in (self.packs, self.large, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.incoming.iterdir():
            leftover.unlink()
        self._lock, self._verifying = threading.Lock(), threading.Lock()
        self.pins: Counter[bytes] = Counter()  # contents that somebody is about to refer to: not to be collected
        self.doomed: set[bytes] = set()  # contents that are being collected: still on record for those who look, and as good as gone
        self.damaged: set[bytes] = set()  # contents that were met with another hash
        self._verified: dict[bytes, tuple[int, int, int]] = {}  # large contents that were read whole: inode, time and size of the file
        recorded = extents(reader)
        # bytes that there still are of packs that vanished or became shorter than on record
        self.left = {pack: size for pack, end in recorded.items() if (size := self.pack_size(pack)) < end}
        self._number = max((*recorded, *(int(path.stem) for path in self.packs.glob("*.pack"))), default=0)
        if self._number in self.left or not self._number:  # what is on record beyond its end must not come to name new bytes
            self._number += 1
        self._pack = self._open_pack()

    def _open_pack(self) -> int:
        descriptor = os.open(self.pack_path(self._number), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        sync(self.packs)
        self._end = os.fstat(descriptor).st_size
        return descriptor

    def pack_path(self, number: int) -> Path:
        """Return the file of a pack."""
        return self.packs / f"{number}.pack"

    def _vanished(self) -> bool:
        """Look whether the open pack is still the file of its name; notes it where it is not."""
        opened = os.fstat(self._pack)
        try:
            named = self.pack_path(self._number).stat()
        except OSError:
            named = None
        if named is not None and (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino):
            return False
        if self._number not in self.left:
            log.error("%s vanished while it was written to: what it held is lost, a new pack is begun", self.pack_path(self._number))
        self.left[self._number] = 0
        return True

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
            if self._vanished() or self._end >= PACK_LIMIT:
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
        """Make everything that was appended durable; ask `holds` afterwards whether it still has a name."""
        with self._lock:
            os.fsync(self._pack)
            self._vanished()

    def holds(self, blob: Blob) -> bool:
        """Tell, as far as is known, whether the bytes of a content are where they were written to."""
        if blob.pack:
            left = self.left.get(blob.pack)
            return left is None or blob.offset + blob.size <= left
        return size_of(self.large_path(blob.hash)) == blob.size

    def large_path(self, name: bytes) -> Path:
        """Return the file of a large content."""
        text = name.hex()
        return self.large / text[:2] / text

    def open(self, blob: Blob) -> int:
        """Open the file that a content lies in; the caller closes the descriptor.

        Raises:
            Damaged: the file is gone.
        """
        try:
            return os.open(self.path(blob), os.O_RDONLY)
        except FileNotFoundError:
            if blob.pack:
                self.left[blob.pack] = 0
            raise Damaged(blob, self.path(blob), "is gone") from None

    def path(self, blob: Blob) -> Path:
        """Return the file that a content lies in."""
        return self.pack_path(blob.pack) if blob.pack else self.large_path(blob.hash)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """For many contents one after the other: packs stay open."""
        reading = Reading(self)
        try:
            yield reading
        finally:
            reading.close()

    def header(self, blob: Blob) -> bytes:
        """Return what stands before a content in its pack: its hash and size."""
        with self._opened(blob) as descriptor:
            return os.pread(descriptor, HEADER, blob.offset - HEADER)

    def is_there(self, blob: Blob) -> bool:
        """Return whether as many bytes as the content has are on disk.

        Raises:
            Damaged: not even its file is.
        """
        with self._opened(blob) as descriptor:
            return os.fstat(descriptor).st_size >= blob.offset + blob.size

    def doom(self, names: Iterable[bytes]) -> set[bytes]:
        """Return those of `names` that nobody is about to refer to; whoever brings one of them from now on stores it anew."""
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
        """Return the bytes of a pack; 0 where it is gone."""
        return size_of(self.pack_path(number))

    def copy_to_open_pack(self, blobs: Iterable[Blob]) -> list[Blob]:
        """Copy contents to the end of the open pack, durably; says where they lie there."""
        moved = [copy for blob in blobs for copy in self.append({blob.hash: b"".join(self.read(blob))})]
        self.sync()
        return moved

    def remove_pack(self, number: int) -> None:
        """Remove a pack that nothing refers to. Who has it open reads on."""
        self.pack_path(number).unlink()
        sync(self.packs)

    def unpinned_large(self) -> set[bytes]:
        """Return the large files that nobody is about to refer to: what of them is not on record after this call is nobody's."""
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
        """Read the content from `start`, in parts of at most 1 MB; only a part of a large content is not hashed (`verify`).

        Raises:
            Damaged: the content is not as it was written; before the first part of a small one, else before the last.
        """
        left = max(0, blob.size - start) if length is None else max(0, min(length, blob.size - start))
        if left == 0:
            return
        with self._opened(blob) as descriptor:
            if blob.pack:
                yield self.small(blob, descriptor)[start : start + left]
            else:
                yield from self._large(blob, descriptor, start, left)

    @contextlib.contextmanager
    def _opened(self, blob: Blob) -> Iterator[int]:
        descriptor = self.open(blob)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def small(self, blob: Blob, descriptor: int) -> bytes:
        """Read a content of an open pack.

        Raises:
            Damaged: it is not as it was written.
        """
        content = os.pread(descriptor, blob.size, blob.offset)
        if len(content) != blob.size:
            raise Damaged(blob, self.path(blob), f"has {len(content)} instead of {blob.size} bytes at {blob.offset}")
        if digest(content) != blob.hash:
            raise self._changed(blob, f"holds something else at {blob.offset} than was written there")
        return content

    def _changed(self, blob: Blob, why: str) -> Damaged:
        self.damaged.add(blob.hash)
        return Damaged(blob, self.path(blob), why)

    def _large(self, blob: Blob, descriptor: int, position: int, left: int) -> Iterator[bytes]:
        if (size := os.fstat(descriptor).st_size) != blob.size:
            raise Damaged(blob, self.path(blob), f"has {size} instead of {blob.size} bytes")
        hashed = hashlib.blake2b(digest_size=32) if left == blob.size else None
        while left > 0:
            part = os.pread(descriptor, min(left, READ), position)
            if not part:
                raise Damaged(blob, self.path(blob), f"ends at {position} instead of {blob.size} bytes")
            position, left = position + len(part), left - len(part)
            if hashed:
                hashed.update(part)
                if left == 0 and hashed.digest() != blob.hash:
                    raise self._changed(blob, "holds something else than was written")
            yield part

    def verify(self, blob: Blob) -> None:
        """Hash a large content of which only a part is going to be read, unless its file was hashed before and is still the same.

        Raises:
            Damaged: it is not as it was written.
        """
        if blob.pack or not blob.size:
            return
        with self._verifying:  # clients ask for several parts at once
            with self._opened(blob) as descriptor:
                state = os.fstat(descriptor)
            mark = (state.st_ino, state.st_mtime_ns, state.st_size)
            if self._verified.get(blob.hash) != mark:
                for _ in self.read(blob):
                    pass
                self._verified[blob.hash] = mark


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
        """Write a content to a new file; an empty one for None.

        Raises:
            Damaged: the content is not as it was written.
        """
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.fchmod(target, 0o644)  # whatever the server's own umask: the job may run as another user
            if blob is None or not blob.size:
                return
            if blob.pack == 0:
                for part in self.store.read(blob):
                    write_all(target, part)
                return
            write_all(target, self.store.small(blob, self._pack(blob)))
        finally:
            os.close(target)

    def _pack(self, blob: Blob) -> int:
        if blob.pack not in self._packs:
            self._packs[blob.pack] = self.store.open(blob)
        return self._packs[blob.pack]
