"""Files of a commit: written in batches, listed, globbed, compared."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pdk.errors import NotFound, TemporaryError
from pdk.local.pachyderm.rules import commits, globs, repos
from pdk.local.pachyderm.rules.model import COMMIT_ID, BranchRef, Commit, CommitRef, Refused, clean_path
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection


class Put(NamedTuple):
    """The file at `path` gets a content of the store, behind what it holds with `append`.

    `onto` is set by `settle`: what was appended to (`ABSENT`: nothing), which must still be so when the change is made.
    """

    path: str
    hash: bytes
    size: int
    append: bool = False
    onto: bytes | None = None


class Delete(NamedTuple):
    """Remove the file at `path`, or with a slash at its end everything below."""

    path: str


class Copy(NamedTuple):
    """Make `path` a copy of a file or folder of some commit, or append to it."""

    path: str
    source: CommitRef
    source_path: str
    append: bool = False


Change = Put | Delete | Copy
ABSENT = b""  # in place of the hash of a file that is not there
Join = Callable[[bytes, int, bytes, int], tuple[bytes, int]]


class Moved(TemporaryError):
    """Somebody else changed a file while it was appended to."""


def target(db: Connection, ref: CommitRef) -> Commit | None:
    """Return the open commit that changes to `ref` go into; None when a commit has to be made for them.

    Raises:
        Refused: `ref` names a finished commit.
        NotFound: it names one that is not there.
    """
    if COMMIT_ID.fullmatch(ref.id):
        commit = commits.resolve(db, ref)
        if commit.finished is not None:
            raise Refused(f"commit {commit.ref} has already finished")
        return commit
    branch = repos.find_branch(db, BranchRef(ref.repo, ref.branch or ref.id))
    if branch is None or branch.head is None:
        return None
    head = commits.by_pk(db, branch.head)
    return None if head.finished is not None else head


def settle(db: Connection, sight: tree.View, changes: Iterable[Change], join: Join) -> list[Change]:
    """Work out what files hold after appending.

    Args:
        sight: what the commit holds now.
        join: stores the content (hash, size) followed by another (hash, size); returns the hash and size of both together.
    """
    settled: list[Change] = []
    known: dict[str, Put] = {}
    folders: dict[str, bool] = {}  # whether they are there
    cleared: set[str] = set()  # files and folders (with a slash) that were removed on the way

    def gone(path: str) -> bool:
        if path in cleared:
            return True
        folder = tree.parent_of(path)
        while folder and folder not in cleared:
            folder = tree.parent_of(folder)
        return bool(folder)

    def present(path: str) -> tuple[bytes, int] | None:
        if path in known:
            return known[path].hash, known[path].size
        if gone(path):
            return None
        folder = tree.parent_of(path)
        if folder not in folders:
            folders[folder] = tree.get(db, sight, folder) is not None
        entry = tree.get(db, sight, path) if folders[folder] else None
        return (entry.hash, entry.size) if entry else None

    def add(change: Put) -> None:
        before = present(change.path) if change.append else None
        content, size, onto = change.hash, change.size, None
        if change.append and change.path not in known and not gone(change.path):
            onto = before[0] if before else ABSENT
        if before is not None:
            content, size = join(before[0], before[1], change.hash, change.size)
        known[change.path] = done = Put(change.path, content, size, append=False, onto=onto)
        settled.append(done)

    for change in changes:
        if isinstance(change, Delete):
            path = change.path if change.path == "/" else clean_path(change.path) + "/" * change.path.endswith("/")
            cleared.add(path)
            known.pop(path, None)
            if path.endswith("/"):
                for name in [name for name in known if name.startswith(path)]:
                    del known[name]
            settled.append(change)
        elif isinstance(change, Put):
            add(change)
        else:
            settled += _appended(db, change, add)
    return settled


def _appended(db: Connection, change: Copy, add: Callable[[Put], None]) -> list[Change]:
    """Return a copy as changes; with `append` its files are added one by one."""
    if not change.append:
        return [change]
    for path, entry in copied(db, change):
        add(Put(path, entry.hash, entry.size, append=True))
    return []


def copied(db: Connection, change: Copy) -> Iterator[tuple[str, tree.Entry]]:
    """Give the files that a copy brings, each with its new path."""
    sight = commits.view(db, commits.resolve(db, change.source))
    origin, path = clean_path(change.source_path), clean_path(change.path)
    found = find(db, sight, origin)
    if found is None or (found.kind == tree.FOLDER and not found.files):
        return
    for entry in list(tree.files_below(entries_at(db, sight, origin))):
        yield (path.rstrip("/") + entry.path[len(origin.rstrip("/")) :]) or "/", entry


def modify(db: Connection, ref: CommitRef, changes: Iterable[Change]) -> Commit:
    """Apply settled `changes` in their order to an open commit, or to a commit made and finished for them.

    Args:
        ref: the open commit, or the branch (made when missing).
    """
    commit = target(db, ref)
    own = commit is None
    if commit is None:
        commit = commits.start(db, BranchRef(ref.repo, ref.branch or ref.id))
    elif commit.origin != "USER":
        raise Refused(f"commit {commit.ref} is computed by a pipeline and cannot be written to")
    writer = tree.Writer(db, commit.lineage, commit.seq)
    for change in changes:
        apply(db, writer, change)
    writer.close()
    return commits.finish(db, commit) if own else commit


def apply(db: Connection, writer: tree.Writer, change: Change) -> None:
    """One settled change."""
    if isinstance(change, Delete):
        if change.path.endswith("/"):
            writer.delete_tree(clean_path(change.path).rstrip("/") + "/")
        else:
            writer.delete(clean_path(change.path))
    elif isinstance(change, Put):
        present = writer.get(change.path) if change.onto is not None else None
        if change.onto is not None and (present.hash if present else ABSENT) != change.onto:
            raise Moved(f"{change.path} was changed by somebody else while it was appended to; nothing was written, try again")
        put(writer, change.path, change.hash, change.size)
    else:
        brought = list(copied(db, change))
        writer.delete(clean_path(change.path))
        writer.delete_tree(clean_path(change.path).rstrip("/") + "/")
        for path, entry in brought:
            put(writer, path, entry.hash, entry.size)


def put(writer: tree.Writer, path: str, content: bytes, size: int) -> None:
    """Set a file.

    Raises:
        Conflict: the path is a folder, or passes through a file.
    """
    if path == "/":
        raise Refused("a file needs a name: '/' is the repo's root; write REPO@BRANCH:/NAME")
    if writer.holds(path + "/"):
        raise Refused(f"file / directory path collision ({path}): there is a folder of that name; delete it first")
    folder = tree.parent_of(path)
    while folder not in ("", "/") and not writer.holds(folder):
        if writer.get(folder.rstrip("/")):
            raise Refused(f"file / directory path collision ({folder.rstrip('/')}): there is a file of that name; delete it first")
        folder = tree.parent_of(folder)
    writer.put(path, content, size)


def entries_at(db: Connection, sight: tree.View, path: str) -> Iterator[tree.Entry]:
    """Give the file at `path`, or the folder and everything below.

    Raises:
        NotFound: there is neither.
    """
    entry = find(db, sight, path)
    if entry is None:
        raise NotFound(f"file {path} not found")
    return tree.walk(db, sight, entry.path) if entry.kind == tree.FOLDER else iter([entry])


def find(db: Connection, sight: tree.View, path: str) -> tree.Entry | None:
    """Return what is at `path`, spelled with or without a slash at its end; the root is always there."""
    if path == "/":
        return tree.root(db, sight)
    return tree.get(db, sight, path) or tree.get(db, sight, path + "/")


def inspect(db: Connection, commit: Commit, path: str, *, empty: bool = False) -> tree.Entry:
    """Return what is at `path` of a commit; the root of one that holds nothing only with `empty`.

    Raises:
        NotFound: in the engine's words.
    """
    entry = find(db, commits.view(db, commit), clean_path(path))
    if entry is None or not (entry.files or empty):
        raise NotFound(f"file {path} not found in repo {commit.repo} at commit {commit.id}")
    return entry


def listing(db: Connection, commit: Commit, path: str) -> Iterator[tree.Entry]:
    """Give the entries of a folder, or the file itself."""
    entry = inspect(db, commit, path)
    yield from tree.children(db, commits.view(db, commit), entry.path) if entry.kind == tree.FOLDER else [entry]


def glob(db: Connection, sight: tree.View, pattern: str) -> Iterator[tree.Entry]:
    """Files and folders whose path matches; the pattern '/' is the root."""
    pattern = globs.clean(pattern)
    if pattern == "/":
        whole = tree.root(db, sight)
        if whole.files:
            yield whole
        return
    expression, start = globs.compile_glob(pattern), globs.literal_folder(pattern)
    if not globs.crosses_folders(pattern):
        yield from _descend(db, sight, start, globs.levels(pattern, start))
        return
    for entry in tree.walk(db, sight, start):
        if entry.path != "/" and expression.fullmatch(entry.path.rstrip("/")):
            yield entry


def _descend(db: Connection, sight: tree.View, folder: str, levels: list[re.Pattern[str]]) -> Iterator[tree.Entry]:
    """Give what lies as many folders below `folder` as there are levels, on paths that match at each of them; nothing else is read."""
    for entry in tree.children(db, sight, folder):
        if levels[0].fullmatch(entry.path.rstrip("/")):
            if len(levels) == 1:
                yield entry
            elif entry.kind == tree.FOLDER:
                yield from _descend(db, sight, entry.path, levels[1:])
