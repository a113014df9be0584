"""Looks for damage: contents against their hashes, folders against their files, commits and branches against each other.

A flipped bit is found wherever it changes what somebody would read: in a pack or a large file by the content's hash, in the file table
by the hash that every finished commit keeps of all it holds, in the rest of the database by SQLite's own check and by the references.
"""

from __future__ import annotations

import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from pdk.kit.db import Database, damage
from pdk.local.pachyderm.rules import commits
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore, Damaged
from pdk.local.pachyderm.store.locations import Blob, find

Connection = sqlite3.Connection


def everything(db: Database, blobs: BlobStore, share: float) -> list[str]:
    """Return all problems, in words.

    Args:
        share: which part of the contents is read and hashed, 0 to 1; the rest is looked at only for being there.
    """
    with db.own_reader() as reader:
        reader.execute("BEGIN")  # one moment of the database, whatever is written meanwhile
        try:
            file = (f"database: {problem}" for problem in damage(reader, db.path))
            parts = (file, contents(reader, blobs, share), references(reader), history(reader), provenance(reader))
            return [problem for part in parts for problem in _all_of(part, db.path)]
        finally:
            reader.execute("ROLLBACK")


def _all_of(problems: Iterable[str], path: Path) -> Iterator[str]:
    """Pass problems on; a page that cannot be read ends the part that needs it, and is one more."""
    try:
        yield from problems
    except sqlite3.DatabaseError as error:
        yield f"database: damaged page in {path}: {error}; what depends on it was not looked at"


def counts(db: Connection) -> dict[str, int]:
    """Count what was looked at: contents and commits; 0 where not even that can be read, which is among the problems."""
    found = {}
    for what, table in (("contents", "blob"), ("commits", "commits")):
        try:
            found[what] = int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        except sqlite3.DatabaseError:
            found[what] = 0
    return found


def contents(db: Connection, blobs: BlobStore, share: float) -> Iterator[str]:
    """Every content is there with its size; a share of them has its hash."""
    chosen = random.Random()  # noqa: S311 - a sample, not a secret
    for row in db.execute("SELECT hash, size, pack, offset FROM blob ORDER BY pack, offset"):
        blob = Blob(*row)
        where = f"large file {blob.hash.hex()}" if blob.pack == 0 else f"pack {blob.pack} at {blob.offset}"
        try:
            if chosen.random() < share:
                for _ in blobs.read(blob):
                    pass
                if blob.pack and blobs.header(blob) != blob.hash + blob.size.to_bytes(8, "big"):
                    yield f"content {blob.hash.hex()} ({where}) has another header in its pack: it was changed on disk"
            elif not blobs.is_there(blob):
                yield f"content {blob.hash.hex()} ({where}) is missing or shorter than {blob.size} bytes"
        except Damaged as error:
            changed = blob.hash in blobs.damaged
            what = "does not have its hash: it was changed on disk" if changed else f"is missing or shorter than {blob.size} bytes: {error}"
            yield f"content {blob.hash.hex()} ({where}) {what}"
        except OSError as error:
            yield f"content {blob.hash.hex()} ({where}) cannot be read: {error}"


def references(db: Connection) -> Iterator[str]:
    """Every file's content is in the store, with the file's size."""
    for table, what in (("file", "file"), ("result_file", "result")):
        condition = "kind = 1" if table == "file" else "1"
        for row in db.execute(f"SELECT DISTINCT path, hash, size FROM {table} WHERE {condition}"):
            blob = find(db, row["hash"])
            if blob is None:
                yield f"{what} {row['path']}: its content {row['hash'].hex()} is not in the store"
            elif blob.size != row["size"]:
                yield f"{what} {row['path']}: its content has {blob.size} bytes instead of {row['size']}"


def history(db: Connection) -> Iterator[str]:
    """Finished commits hold what they held when they were finished; parents and heads are there."""
    for row in db.execute("SELECT pk FROM commits ORDER BY pk").fetchall():
        commit = commits.by_pk(db, row["pk"])
        if commit.finished is not None:
            yield from _tree(db, commits.view(db, commit), str(commit.ref), commit.hash, commit.size)
        if commit.parent is not None and commits.find(db, commit.parent) is None:
            yield f"consistency error: the commit {commit.parent} could not be found while checking parent commit of {commit.ref}"
    for row in db.execute("SELECT b.name, b.head, r.project, r.name AS repo FROM branch b JOIN repo r ON b.repo = r.pk").fetchall():
        where = f"{row['project']}/{row['repo']}@{row['name']}"
        if row["head"] is not None and commits.find(db, row["head"]) is None:
            yield f"consistency error: the commit {row['head']} could not be found while checking head commit of {where}"


def _tree(db: Connection, sight: tree.View, where: str, wanted: bytes | None, size: int) -> Iterator[str]:
    """The folders' rows say what their files add up to, and the root what the commit had."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    folders: dict[str, tree.Entry] = {}
    for entry in tree.walk(db, sight, "/"):
        if entry.kind == tree.FOLDER:
            folders[entry.path] = entry
            continue
        folder = tree.parent_of(entry.path)
        while folder:
            total = sums[folder]
            total[0] += entry.size
            total[1] += 1
            total[2] += tree.element(entry.path[len(folder) :], entry.hash)
            folder = tree.parent_of(folder)
    for path in sorted(sums.keys() | folders.keys()):
        total, entry_ = sums[path], folders.get(path)
        hashed = (total[2] % tree.MODULUS).to_bytes(32, "big")
        if entry_ is None or (entry_.size, entry_.files, entry_.hash) != (total[0], total[1], hashed):
            yield f"{where}: the folder {path} does not add up to its files"
    total = sums.get("/", [0, 0, 0])
    if wanted != (total[2] % tree.MODULUS).to_bytes(32, "big") or size != total[0]:
        yield f"{where}: what it holds is not what it held when it was finished"


def provenance(db: Connection) -> Iterator[str]:
    """Branches and commits are not computed from themselves; a computed branch's head comes from its sources' repos."""
    for table, key in (("branch_provenance", "branch"), ("commit_provenance", "commit_pk")):
        edges: dict[int, list[int]] = defaultdict(list)
        for row in db.execute(f"SELECT {key}, upstream FROM {table}"):
            edges[row[0]].append(row[1])
        for start, above in edges.items():
            seen, pending = set(), list(above)
            while pending:
                pk = pending.pop()
                if pk not in seen:
                    seen.add(pk)
                    pending += edges.get(pk, [])
            if start in seen:
                yield f"consistency error: {table}: row {start} is computed from itself"
    sql = (
        "SELECT j.id FROM job j LEFT JOIN commits c ON c.pk = j.output_commit "
        "WHERE c.pk IS NULL OR c.id != j.id OR (j.finished IS NULL) != (c.finished IS NULL)"
    )
    for row in db.execute(sql):
        yield f"consistency error: job {row[0]} and its output commit disagree"
