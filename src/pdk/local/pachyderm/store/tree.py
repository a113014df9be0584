"""Versions of files: what a commit holds, found without copying what it did not change.

A row of table ``file`` says what a path was from one commit of a lineage until before another. A commit so costs the rows that it
changes (and the folders above them), whatever the repo holds. A lineage that forks from another one sees it through as far as it has no
row of its own for a path.

A folder's hash is the sum modulo 2^256 of the hashes of (path below it, content hash) of all files in it: it depends on content alone
and can be kept up to date file by file.
"""

from __future__ import annotations

import hashlib
import heapq
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

OPEN = 1 << 62  # to_seq of what still is
GONE, FILE, FOLDER = 0, 1, 2
NO_CHANGE = (0, 0, 0)
MODULUS = 1 << 256
EMPTY = hashlib.blake2b(b"", digest_size=32).digest()  # the hash of a file without content


class Entry(NamedTuple):
    """A file or folder (its path ends in '/') in some commit; `files` counts the files below."""

    path: str
    kind: int
    size: int
    hash: bytes
    files: int = 1


@dataclass(frozen=True)
class View:
    """One commit's sight of the table: pairs of lineage and seq, its own first, then those that it forked from."""

    parts: tuple[tuple[int, int], ...]


def view(connection: sqlite3.Connection, lineage: int, seq: int) -> View:
    """Return the view of commit `seq` of `lineage`."""
    parts = []
    at: tuple[int | None, int | None] = (lineage, seq)
    while at[0] is not None and at[1] is not None:
        parts.append((at[0], at[1]))
        at = tuple(connection.execute("SELECT base, base_seq FROM lineage WHERE pk = ?", (at[0],)).fetchone())
    return View(tuple(parts))


def parent_of(path: str) -> str:
    """Return the folder that holds `path`: '/' for '/a' and '/a/', '' for '/'."""
    return path[: path.rindex("/", 0, -1) + 1] if path != "/" else ""


def after(folder: str) -> str:
    """Return the first string behind everything that begins with `folder` (which ends in '/')."""
    return folder[:-1] + "0"


def _entry(row: sqlite3.Row | tuple[str, int, int, bytes, int]) -> Entry:
    return Entry(*row)


COLUMNS = "path, kind, size, hash, files"
NOW = "from_seq <= ? AND to_seq > ?"


def get(connection: sqlite3.Connection, sight: View, path: str) -> Entry | None:
    """Return what `path` is, exactly as spelled ('/a' is a file, '/a/' a folder)."""
    for lineage, seq in sight.parts:
        row = connection.execute(
            f"SELECT {COLUMNS} FROM file WHERE lineage = ? AND path = ? AND {NOW}", (lineage, path, seq, seq)
        ).fetchone()
        if row:
            return _entry(row) if row[1] != GONE else None
    return None


def _merged(cursors: list[Iterator[tuple[str, int, int, bytes, int]]]) -> Iterator[Entry]:
    """Rows of several lineages in path order, the first cursor's word counting for each path."""

    def ranked(rank: int, rows: Iterator[tuple[str, int, int, bytes, int]]) -> Iterator[tuple[str, int, Entry]]:
        return ((row[0], rank, _entry(row)) for row in rows)

    last = None
    for path, _rank, entry in heapq.merge(*(ranked(*pair) for pair in enumerate(cursors)), key=lambda item: item[:2]):
        if path != last and entry.kind != GONE:
            yield entry
        last = path


def children(connection: sqlite3.Connection, sight: View, folder: str) -> Iterator[Entry]:
    """Give the entries directly in `folder`, by path."""
    # named, for the primary key promises the order too, and would be read from its beginning to its end
    sql = f"SELECT {COLUMNS} FROM file INDEXED BY file_children WHERE lineage = ? AND parent = ? AND {NOW} ORDER BY path"
    return _merged([connection.execute(sql, (lineage, folder, seq, seq)) for lineage, seq in sight.parts])


def walk(connection: sqlite3.Connection, sight: View, folder: str) -> Iterator[Entry]:
    """`folder` and everything below it, by path."""
    sql = f"SELECT {COLUMNS} FROM file WHERE lineage = ? AND path >= ? AND path < ? AND {NOW} ORDER BY path"
    return _merged([connection.execute(sql, (lineage, folder, after(folder), seq, seq)) for lineage, seq in sight.parts])


def changed_paths(connection: sqlite3.Connection, old: View, new: View) -> list[str]:
    """Paths that may differ between two commits; looks only at what changed in between when one descends from the other."""
    if old.parts and new.parts and new.parts[-len(old.parts) :][0][0] == old.parts[0][0]:
        shared, upper = old.parts[0], new.parts[-len(old.parts) :][0]
        spans = [(upper[0], *sorted((shared[1], upper[1]))), *((lineage, 0, seq) for lineage, seq in new.parts[: -len(old.parts)])]
    else:
        spans = [(lineage, 0, seq) for lineage, seq in (*old.parts, *new.parts)]
    paths: set[str] = set()
    for lineage, low, high in spans:
        for column in ("from_seq", "to_seq"):
            sql = f"SELECT path FROM file INDEXED BY file_{column[:-4]} WHERE lineage = ? AND {column} > ? AND {column} <= ?"
            if column == "to_seq":
                sql += f" AND to_seq < {OPEN}"
            paths.update(row[0] for row in connection.execute(sql, (lineage, low, high)))
    return sorted(paths)


def diff(connection: sqlite3.Connection, old: View, new: View) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Files and folders that differ, as (before, after), by path."""
    for path in changed_paths(connection, old, new):
        before, now = get(connection, old, path), get(connection, new, path)
        if before != now:
            yield before, now


def element(path: str, content: bytes) -> int:
    """Return what one file adds to the hash of a folder; `path` is relative to that folder."""
    return int.from_bytes(hashlib.blake2b(path.encode() + b"\0" + content, digest_size=32).digest(), "big")


class Writer:
    """Changes to one open commit inside a transaction; nothing is written before `close`.

    What a path was in the commit is looked up once, and not at all below folders that the commit did not have.
    """

    def __init__(self, connection: sqlite3.Connection, lineage: int, seq: int) -> None:
        self.connection, self.lineage, self.seq = connection, lineage, seq
        self.sight = view(connection, lineage, seq)
        self._files: dict[str, tuple[Entry | None, Entry | None]] = {}  # path → what it was, what it is now
        self._folders: dict[str, list[int]] = {}  # path → change of size, files, hash
        self._stored: dict[str, Entry | None] = {}  # folders of the commit, as far as they were looked up

    def get(self, path: str) -> Entry | None:
        """Return what the file `path` is, changes included."""
        if path in self._files:
            return self._files[path][1]
        return get(self.connection, self.sight, path) if self._folder(parent_of(path)) else None

    def _folder(self, path: str) -> Entry | None:
        """Return what a folder is without the changes."""
        if path not in self._stored:
            above = parent_of(path)
            self._stored[path] = get(self.connection, self.sight, path) if not above or self._folder(above) else None
        return self._stored[path]

    def put(self, path: str, content: bytes, size: int) -> None:
        """`path` now holds `content` (a hash) of `size` bytes."""
        old = self.get(path)
        if not old or old.hash != content:
            self._change(path, old, Entry(path, FILE, size, content))

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens where there is none."""
        if old := self.get(path):
            self._change(path, old, None)

    def delete_tree(self, folder: str) -> None:
        """Remove every file below `folder` (which ends in '/')."""
        for path in [path for path, (_, now) in self._files.items() if now and path.startswith(folder)]:
            self.delete(path)
        if self._folder(folder):
            for entry in list(walk(self.connection, self.sight, folder)):
                if entry.kind == FILE:
                    self.delete(entry.path)

    def holds(self, folder: str) -> bool:
        """Return whether there is a file below `folder` (which ends in '/'), changes included."""
        stored = self._folder(folder)
        return (stored.files if stored else 0) + self._folders.get(folder, NO_CHANGE)[1] > 0

    def _change(self, path: str, old: Entry | None, new: Entry | None) -> None:
        first = self._files[path][0] if path in self._files else old
        self._files[path] = (first, new)
        folder = parent_of(path)
        while folder:
            change = self._folders.setdefault(folder, [0, 0, 0])
            for entry, sign in ((old, -1), (new, 1)):
                if entry:
                    change[0] += sign * entry.size
                    change[1] += sign
                    change[2] += sign * element(path[len(folder) :], entry.hash)
            folder = parent_of(folder)

    def close(self) -> None:
        """Write the changes: the files, then the folders that hold them."""
        rows = [self._row(new) for path, (old, new) in self._files.items() if self._end(path, old, new) and new]
        for folder, (size, files, hashed) in self._folders.items():
            old = self._folder(folder)
            before = old or Entry(folder, FOLDER, 0, bytes(32), 0)
            total = (int.from_bytes(before.hash, "big") + hashed) % MODULUS
            new = Entry(folder, FOLDER, before.size + size, total.to_bytes(32, "big"), before.files + files)
            if self._end(folder, old, new if new.files else None) and new.files:
                rows.append(self._row(new))
        self.connection.executemany("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._files.clear()
        self._folders.clear()
        self._stored.clear()

    def _row(self, entry: Entry) -> tuple[object, ...]:
        return (self.lineage, entry.path, self.seq, OPEN, parent_of(entry.path), entry.kind, entry.size, entry.files, entry.hash)

    def _end(self, path: str, old: Entry | None, new: Entry | None) -> bool:
        """Let go of this lineage's present row of `path`: it ends here, or never was if it began here. False where nothing changes."""
        if old == new:
            return False
        key = (self.lineage, path)
        if old is not None or len(self.sight.parts) > 1:
            self.connection.execute("DELETE FROM file WHERE lineage = ? AND path = ? AND from_seq = ?", (*key, self.seq))
            self.connection.execute(f"UPDATE file SET to_seq = ? WHERE lineage = ? AND path = ? AND to_seq = {OPEN}", (self.seq, *key))
        if new is None and len(self.sight.parts) > 1 and get(self.connection, View(self.sight.parts[1:]), path):
            self.connection.execute("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._row(Entry(path, GONE, 0, b"", 0)))
        return True


def undo(connection: sqlite3.Connection, lineage: int, seq: int) -> None:
    """Take back what the newest commit of a lineage changed, as if it had never been."""
    connection.execute("DELETE FROM file WHERE lineage = ? AND from_seq = ?", (lineage, seq))
    connection.execute(f"UPDATE file SET to_seq = {OPEN} WHERE lineage = ? AND to_seq = ?", (lineage, seq))


def root(connection: sqlite3.Connection, sight: View) -> Entry:
    """Return the whole commit as a folder; empty where it holds nothing."""
    return get(connection, sight, "/") or Entry("/", FOLDER, 0, bytes(32), 0)


def files_below(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Only the files."""
    return (entry for entry in entries if entry.kind == FILE)
