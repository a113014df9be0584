"""What the Pachyderm server speaks of, free of protocol and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import UserError

NAME = re.compile(r"[a-zA-Z0-9_-]+")
COMMIT_ID = re.compile(r"[0-9a-f]{32}")
PROJECT_LIMIT = PIPELINE_LIMIT = 51  # characters, as the engine limits them
PATH_LIMIT, PART_LIMIT = 4096, 255  # bytes, as file systems limit them
WILDCARDS = "*?[]{}!()@+^"
PLAIN = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9_.,=~%#&';:$ -]+)+")  # what needs no closer look

USER, SPEC, META = "user", "spec", "meta"
FILE_SETS = "__filesets__"  # the repo whose commits are file sets
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
class Project:
    """A project as it is on record; `created` in unix time."""

    name: str
    description: str
    created: float


@dataclass(frozen=True)
class Repo:
    """A repo as it is on record; `created` in unix time."""

    pk: int
    ref: RepoRef
    description: str
    created: float


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
        """Return its name."""
        return CommitRef(self.repo, self.id, self.branch)


@dataclass(frozen=True)
class Branch:
    """A branch as it is on record."""

    pk: int
    repo: RepoRef
    name: str
    head: int | None
    created: float
    trigger: Mapping[str, Any] | None = None

    @property
    def ref(self) -> BranchRef:
        """Return its name."""
        return BranchRef(self.repo, self.name)


class Refused(UserError):
    """A call that the engine refuses without a gRPC code of its own: clients of the engine see code UNKNOWN."""


def check_project_name(name: str) -> None:
    """Raise Refused for a name that no project may have."""
    if len(name) > PROJECT_LIMIT:
        over = len(name) - PROJECT_LIMIT
        raise Refused(f'invalid project name: project name "{name}" is {over} characters longer than the {PROJECT_LIMIT} max')
    check_name("invalid project name: ", name)
    if not name[0].isalnum():
        raise Refused("invalid project name: project names must start with an alphanumeric character")


def check_name(what: str, name: str) -> None:
    """Raise Refused for a name that nothing may have; `what` stands before the engine's words."""
    if not NAME.fullmatch(name):
        raise Refused(f"{what}name ({name}) invalid: only alphanumeric characters, underscores, and dashes are allowed")


def clean_path(path: str) -> str:
    """Return the canonical form of a path ('/a/b'), as it is looked up."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def check_path(path: str) -> str:
    """Return the canonical form of a path that is written to.

    The engine takes printable ASCII without wildcards; so do we, so that what is written here can be written there.

    Raises:
        Refused: it is no file's name, in the engine's words.
    """
    if PLAIN.fullmatch(path) and len(path) <= PART_LIMIT:  # nearly every path there is
        return path
    if not path.isascii() or not path.isprintable() or not path:
        raise Refused(f"path ({path}) invalid: only printable ASCII characters allowed; rename the file")
    wildcard = next((character for character in path if character in WILDCARDS), None)
    if wildcard:
        raise Refused(f"path ({path}) invalid: globbing character ({wildcard}) not allowed in path; rename the file")
    parts = path.strip("/").split("/")
    if "." in parts or ".." in parts:
        raise Refused(f"path ({path}) invalid: relative file paths are not allowed; paths are given from the repo's root")
    if "\\" in path:
        raise Refused(f"path ({path}) invalid: a backslash cannot be part of a file's name on every system; rename the file")
    cleaned = clean_path(path)
    if len(cleaned) > PATH_LIMIT or any(len(part) > PART_LIMIT for part in parts):
        raise Refused(f"path ({path[:60]}…) invalid: it is longer than {PATH_LIMIT} bytes, or a part of it than {PART_LIMIT}")
    return cleaned
