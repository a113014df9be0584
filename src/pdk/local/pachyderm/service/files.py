"""Files of a commit: written in batches, listed, globbed, compared."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pdk.errors import Conflict, NotFound, TemporaryError, UserError
from pdk.local.pachyderm.service import commits, repos
from pdk.local.pachyderm.service.model import BranchRef, Commit, CommitRef, clean_path
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection


@dataclass(frozen=True)
class Put:
    """Set the file at `path` to a content of the store; `onto` is the content that it was made from, where it was appended to."""

    path: str
    hash: bytes
    size: int
    onto: bytes | None = None


@dataclass(frozen=True)
class Delete:
    """Remove the file or folder at `path`."""

    path: str


@dataclass(frozen=True)
class Copy:
    """Make `path` a copy of a file or folder of some commit."""

    path: str
    source: CommitRef
    source_path: str


Change = Put | Delete | Copy


def target(db: Connection, ref: CommitRef) -> Commit | None:
    """The open commit that changes to `ref` go into; None when a commit has to be made for them.

    Raises:
        Conflict: `ref` names a finished commit.
    """
    if ref.id:
        commit = commits.resolve(db, ref)
        if commit.finished is not None:
            raise Conflict(f"commit {commit.ref} is finished: finished commits cannot be changed; write to a branch")
        return commit
    branch = repos.find_branch(db, BranchRef(ref.repo, ref.branch or "master"))
    if branch is None or branch.head is None:
        return None
    head = commits.by_pk(db, branch.head)
    return None if head.finished is not None else head


def modify(db: Connection, ref: CommitRef, changes: list[Change]) -> Commit:
    """Apply `changes` in their order to an open commit, or to a commit made and finished for them.

    Args:
        ref: the open commit, or the branch (made when missing).
    """
    commit = target(db, ref)
    own = commit is None
    if commit is None:
        commit = commits.start(db, BranchRef(ref.repo, ref.branch or "master"))
    elif commit.origin != "USER":
        raise UserError(f"commit {commit.ref} is computed by a pipeline and cannot be written to")
    writer = tree.Writer(db, commit.lineage, commit.seq)
    for change in changes:
        apply(db, writer, change)
    writer.close()
    return commits.finish(db, commit) if own else commit


def apply(db: Connection, writer: tree.Writer, change: Change) -> None:
    """One change."""
    path = clean_path(change.path)
    if isinstance(change, Delete):
        if path != "/":
            writer.delete(path)
        writer.delete_tree(path.rstrip("/") + "/")
    elif isinstance(change, Put):
        present = tree.get(db, writer.sight, path) if change.onto is not None else None
        if change.onto is not None and (present is None or present.hash != change.onto):
            raise TemporaryError(f"{path} was changed by somebody else while it was appended to; nothing was written, try again")
        put(db, writer, path, change.hash, change.size)
    else:
        source = commits.view(db, commits.resolve(db, change.source))
        origin = clean_path(change.source_path)
        for entry in tree.files_below(entries_at(db, source, origin)):
            put(db, writer, (path.rstrip("/") + entry.path[len(origin.rstrip("/")) :]) or "/", entry.hash, entry.size)


def put(db: Connection, writer: tree.Writer, path: str, content: bytes, size: int) -> None:
    """Set a file.

    Raises:
        Conflict: the path is a folder, or passes through a file.
    """
    if path == "/":
        raise UserError("a file needs a name: '/' is the repo's root; write REPO@BRANCH:/NAME")
    if writer.holds(path + "/"):
        raise Conflict(f"file / directory path collision ({path}): there is a folder of that name; delete it first")
    folder = tree.parent_of(path)
    while folder not in ("", "/") and not writer.holds(folder):
        if tree.get(db, writer.sight, folder.rstrip("/")):
            raise Conflict(f"file / directory path collision ({folder.rstrip('/')}): there is a file of that name; delete it first")
        folder = tree.parent_of(folder)
    writer.put(path, content, size)


def entries_at(db: Connection, sight: tree.View, path: str) -> Iterator[tree.Entry]:
    """The file at `path`, or the folder and everything below.

    Raises:
        NotFound: there is neither.
    """
    entry = find(db, sight, path)
    if entry is None:
        raise NotFound(f"file {path} not found")
    return tree.walk(db, sight, entry.path) if entry.kind == tree.FOLDER else iter([entry])


def find(db: Connection, sight: tree.View, path: str) -> tree.Entry | None:
    """What is at `path`, spelled with or without a slash at its end; the root is always there."""
    if path == "/":
        return tree.root(db, sight)
    return tree.get(db, sight, path) or tree.get(db, sight, path + "/")


def inspect(db: Connection, commit: Commit, path: str) -> tree.Entry:
    """What is at `path` of a commit.

    Raises:
        NotFound: in the engine's words.
    """
    entry = find(db, commits.view(db, commit), clean_path(path))
    if entry is None:
        raise NotFound(f"file {clean_path(path)} not found in repo {commit.repo} at commit {commit.id}")
    return entry


def listing(db: Connection, commit: Commit, path: str) -> Iterator[tree.Entry]:
    """The entries of a folder, or the file itself; a path with wildcards lists what it matches."""
    if is_pattern(path):
        for entry in glob(db, commits.view(db, commit), path):
            yield from tree.children(db, commits.view(db, commit), entry.path) if entry.kind == tree.FOLDER else [entry]
        return
    entry = inspect(db, commit, path)
    yield from tree.children(db, commits.view(db, commit), entry.path) if entry.kind == tree.FOLDER else [entry]


def is_pattern(path: str) -> bool:
    """Whether a path holds wildcards."""
    return any(character in path for character in "*?[]{}!()@+^")


def _character_class(pattern: str, inside: str) -> str:
    """The regular expression for what stands between ``[`` and ``]``."""
    negated = "^" if inside[:1] in ("!", "^") else ""
    members = inside[len(negated) :]
    ranges = re.sub(r"(.)-(.)|.", lambda m: f"{re.escape(m[1])}-{re.escape(m[2])}" if m[1] else re.escape(m[0]), members)
    try:
        re.compile(f"[{ranges}]")
    except re.error:
        raise UserError(f"glob pattern {pattern!r} is malformed: '[{inside}' is no list of characters that ']' ends") from None
    return f"[{negated}{ranges}]"


@lru_cache(maxsize=1024)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """A regular expression for the engine's globs.

    ``*`` and ``?`` match within a name, ``**`` across folders; ``[ab]``, ``{a,b}``, ``@(a|b)``; groups for ``(…)``.

    Raises:
        UserError: brackets that do not close.
    """
    out, depth, index = [], 0, 0
    while index < len(pattern):
        character = pattern[index]
        if pattern.startswith("**", index):
            out.append(".*")
            index += 1
        elif character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            end = pattern.find("]", index + 1)
            out.append(_character_class(pattern, pattern[index + 1 : end] if end > 0 else ""))
            index = end
        elif character in "@+" and pattern.startswith("(", index + 1):
            pass  # the group that follows says it all, but for '+', which repeats it
        elif character in "({":
            out.append("(" if character == "(" else "(?:")
            depth += 1
        elif character in ")}" and depth:
            out.append(")")
            depth -= 1
        elif character in "|," and depth:
            out.append("|")
        else:
            out.append(re.escape(character))
        index += 1
    if depth:
        raise UserError(f"glob pattern {pattern!r} is malformed: a bracket does not close")
    return re.compile("".join(out), re.DOTALL)


def glob(db: Connection, sight: tree.View, pattern: str) -> Iterator[tree.Entry]:
    """Files and folders whose path matches; the pattern '/' is the root."""
    pattern = "/" + pattern.strip("/")
    if pattern == "/":
        whole = tree.root(db, sight)
        if whole.files:
            yield whole
        return
    expression = compile_glob(pattern)
    prefix = re.split(r"[*?\[\]{}!()@+^]", pattern, maxsplit=1)[0]
    start = prefix[: prefix.rfind("/") + 1]
    deep = "**" in pattern or "(" in pattern or "{" in pattern
    for entry in _candidates(db, sight, start, pattern.count("/", len(start)) if not deep else None):
        if entry.path != "/" and expression.fullmatch(entry.path.rstrip("/")):
            yield entry


def _candidates(db: Connection, sight: tree.View, folder: str, depth: int | None) -> Iterator[tree.Entry]:
    """Entries below `folder`; with `depth`, only those that many folders down, without reading what lies deeper."""
    if depth is None:
        yield from tree.walk(db, sight, folder)
        return
    for entry in tree.children(db, sight, folder):
        if depth == 0:
            yield entry
        elif entry.kind == tree.FOLDER:
            yield from _candidates(db, sight, entry.path, depth - 1)
