"""What the Pachyderm server speaks of, free of protocol and tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pdk.errors import UserError

NAME = re.compile(r"[a-zA-Z0-9_-]+")
PROJECT = re.compile(r"[a-zA-Z0-9-][a-zA-Z0-9_-]*")
COMMIT_ID = re.compile(r"[0-9a-f]{32}")
PROJECT_LIMIT, NAME_LIMIT = 51, 63  # characters, as the engine limits them
PATH_LIMIT = 4096  # bytes

USER, SPEC, META = "user", "spec", "meta"
TERMINAL = frozenset({"JOB_SUCCESS", "JOB_FAILURE", "JOB_KILLED", "JOB_UNRUNNABLE"})


@dataclass(frozen=True)
class RepoRef:
    """Names a repo."""

    project: str
    name: str
    type: str = USER

    def __str__(self) -> str:
        return f"{self.project}/{self.name}" + (f".{self.type}" if self.type != USER else "")


@dataclass(frozen=True)
class BranchRef:
    """Names a branch."""

    repo: RepoRef
    name: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.name}"


@dataclass(frozen=True)
class CommitRef:
    """Names a commit by its ID, or by a branch whose head is meant; the ID may carry ancestry (``ID^2``, ``master.1``)."""

    repo: RepoRef
    id: str = ""
    branch: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.id or self.branch}"


@dataclass(frozen=True)
class Commit:
    """A commit as it is on record; times are unix seconds, `size` bytes."""

    pk: int
    repo: RepoRef
    id: str
    branch: str
    parent: int | None
    lineage: int
    seq: int
    origin: str
    description: str
    started: float
    finishing: float | None
    finished: float | None
    error: str
    size: int
    hash: bytes | None

    @property
    def ref(self) -> CommitRef:
        """Its name."""
        return CommitRef(self.repo, self.id, self.branch)


@dataclass(frozen=True)
class Branch:
    """A branch as it is on record."""

    pk: int
    repo: RepoRef
    name: str
    head: int | None
    created: float

    @property
    def ref(self) -> BranchRef:
        """Its name."""
        return BranchRef(self.repo, self.name)


def check_project_name(name: str) -> None:
    """Raise UserError for a name that no project may have."""
    if not PROJECT.fullmatch(name):
        raise UserError(
            f"project name {name!r} invalid: only alphanumeric characters, underscores, and dashes are allowed; "
            "the first character must not be an underscore"
        )
    if len(name) > PROJECT_LIMIT:
        raise UserError(f"project name {name!r} is {len(name) - PROJECT_LIMIT} characters longer than the {PROJECT_LIMIT} max")


def check_name(kind: str, name: str) -> None:
    """Raise UserError for a name that no repo, branch or pipeline may have."""
    if not NAME.fullmatch(name):
        raise UserError(f"{kind} name {name!r} invalid: only alphanumeric characters, underscores, and dashes are allowed")
    if len(name) > NAME_LIMIT:
        raise UserError(f"{kind} name {name!r} is {len(name) - NAME_LIMIT} characters longer than the {NAME_LIMIT} max")


def clean_path(path: str) -> str:
    """The canonical form of a file's path ('/a/b'); folders lose their trailing slash.

    Raises:
        UserError: the path leaves the repo, or holds what no file system takes.
    """
    if "\0" in path or "\\" in path or any(ord(character) < 32 for character in path):
        raise UserError(f"path {path!r} holds a control character or backslash, so it cannot be a file's name; rename the file")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UserError(f"path {path!r} holds '..'; paths are given from the repo's root")
    cleaned = "/" + "/".join(parts)
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        raise UserError(f"path {path!r} is not UTF-8; rename the file") from None
    if len(cleaned.encode()) > PATH_LIMIT or any(len(part.encode()) > 255 for part in parts):
        raise UserError(f"path {path[:60]!r}… is longer than {PATH_LIMIT} bytes, or a part of it than 255")
    return cleaned
