"""What a pipeline reads: inputs, alone or combined, and how a job's input is cut into datums.

The order of datums and their IDs are the engine's (2.12.2, ``worker/datum``): a datum's ID depends on the names, repos, branches and
paths that it is made of, its hash on their content and the pipeline's salt as well.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pdk.errors import NotSupported, UserError
from pdk.local.pachyderm.rules import globs, schedules
from pdk.local.pachyderm.rules.model import NAME, BranchRef, RepoRef

KINDS = ("cross", "union", "join", "group")
NO_S3 = frozenset({"join", "group", "union"})


@dataclass(frozen=True)
class Cron:
    """When a cron input ticks; each tick is a file in its repo."""

    spec: str
    start: float | None  # unix time; None for the pipeline's creation
    overwrite: bool


@dataclass(frozen=True)
class Leaf:
    """A branch's files, cut along a glob."""

    name: str
    repo: RepoRef
    branch: str
    glob: str
    join_on: str = ""
    outer_join: bool = False
    group_by: str = ""
    empty_files: bool = False
    s3: bool = False
    trigger: Mapping[str, Any] | None = None
    cron: Cron | None = None

    @property
    def source(self) -> BranchRef:
        """Return the branch that is read."""
        return BranchRef(self.repo, self.branch)


@dataclass(frozen=True)
class Combined:
    """Inputs put together: every combination (cross), all of them (union), those that agree on a key (join, group)."""

    kind: str
    parts: tuple[Input, ...]


Input = Leaf | Combined


def leaves(source: Input | None) -> Iterator[Leaf]:
    """Give the branches that an input reads, in their order."""
    if isinstance(source, Leaf):
        yield source
    elif source is not None:
        for part in source.parts:
            yield from leaves(part)


def parse(raw: Mapping[str, Any], pipeline: str, project: str) -> Input:
    """Read the input of a spec (field names as in the proto), with the engine's defaults filled in.

    Raises:
        UserError: in the engine's words.
    """
    found = _Parser(pipeline, project).one(raw)
    _check_names({}, found)
    return found


@dataclass
class _Parser:
    pipeline: str
    project: str
    triggers: dict[str, int] = field(default_factory=dict)  # repo → how many branches its triggers made

    def one(self, raw: Mapping[str, Any]) -> Input:
        kinds = [kind for kind in ("pfs", "cron", *KINDS) if raw.get(kind)]
        if not kinds:
            raise UserError("no input set")
        if len(kinds) > 1:
            raise UserError("multiple input types set")
        kind = kinds[0]
        if kind == "pfs":
            return self.pfs(raw["pfs"])
        if kind == "cron":
            return self.cron(raw["cron"])
        parts = [self.one(part) for part in raw[kind]]
        if kind in NO_S3 and any(leaf.s3 for part in parts for leaf in leaves(part)):
            raise UserError(f"S3 inputs in {kind} expressions are not supported")
        return Combined(kind, tuple(sorted(parts, key=_name)))

    def pfs(self, raw: Mapping[str, Any]) -> Leaf:
        repo = raw.get("repo") or ""
        if not repo:
            raise UserError("input must specify a repo")
        if repo == "out" and not raw.get("name"):
            raise UserError(
                "inputs based on repos named \"out\" must have 'name' set, as pachyderm already creates /pfs/out to collect job output"
            )
        s3, glob = bool(raw.get("s3")), raw.get("glob") or ""
        if not s3 and not glob:
            raise UserError("input must specify a glob")
        if s3 and globs.clean(glob) != "/":
            raise UserError(
                "inputs that set 's3' to 'true' must also set 'glob', to \"/\", "
                "as the S3 gateway is only able to expose data at the commit level"
            )
        for other in ("lazy", "empty_files"):
            if s3 and raw.get(other):
                raise UserError(
                    f"input cannot specify both 's3' and '{other}', as 's3' requires input data to be accessed "
                    "via Pachyderm's S3 gateway rather than the file system"
                )
        if raw.get("commit"):
            raise UserError("input cannot come from a commit; use a branch with head pointing to the commit")
        if raw.get("lazy"):
            raise NotSupported("lazy inputs (named pipes) are not supported locally; leave 'lazy' out: files are read from this machine")
        if raw.get("repo_type") not in (None, "", "user"):
            raise NotSupported(f"inputs of repo type {raw['repo_type']!r} are not supported locally; read a user repo")
        globs.compile_glob(globs.clean(glob))
        branch, trigger = raw.get("branch") or "", raw.get("trigger") or None
        if not branch:
            branch = "master"
            if trigger is not None:
                self.triggers[repo] = self.triggers.get(repo, 0) + 1
                branch = f"{self.pipeline}-trigger-{self.triggers[repo]}"
                trigger = {"branch": "master", **trigger}
        return Leaf(
            name=raw.get("name") or repo,
            repo=RepoRef(raw.get("project") or self.project, repo),
            branch=branch,
            glob=globs.clean(glob),
            join_on=raw.get("join_on") or "",
            outer_join=bool(raw.get("outer_join")),
            group_by=raw.get("group_by") or "",
            empty_files=bool(raw.get("empty_files")),
            s3=s3,
            trigger=trigger,
        )

    def cron(self, raw: Mapping[str, Any]) -> Leaf:
        schedules.parse(raw.get("spec") or "")
        name = raw.get("name") or ""
        repo = RepoRef(raw.get("project") or self.project, raw.get("repo") or f"{self.pipeline}_{name}")
        cron = Cron(raw["spec"], schedules.timestamp(raw["start"]) if raw.get("start") else None, bool(raw.get("overwrite")))
        return Leaf(name, repo, "master", "/*", cron=cron)


def _name(source: Input) -> str:
    """Return what the engine sorts combined inputs by."""
    return source.name if isinstance(source, Leaf) else _name(source.parts[0]) if source.parts else ""


def _check_names(seen: dict[str, bool], source: Input) -> None:
    """Every input has a name of its own; the branches of a union may share one."""
    if isinstance(source, Leaf):
        if not source.name:
            raise UserError("input must specify a name")
        if source.name == "out":
            raise UserError('input cannot be named "out", as pachyderm already creates /pfs/out to collect job output')
        if not NAME.fullmatch(source.name):
            raise UserError(f"input name {source.name!r} invalid: only alphanumeric characters, underscores, and dashes are allowed")
        if source.name in seen:
            raise UserError(f'name "{source.name}" was used more than once')
        seen[source.name] = True
        return
    if source.kind != "union":
        for part in source.parts:
            _check_names(seen, part)
        return
    met: list[dict[str, bool]] = []
    for part in source.parts:
        mine = dict(seen)
        _check_names(mine, part)
        met.append(mine)
    for mine in met:
        seen.update(mine)


@dataclass(frozen=True)
class Part:
    """One input of a datum: the entry at `path` (a folder's ends in '/') of a commit, as /pfs/`name`."""

    name: str
    repo: str
    branch: str
    commit: int
    path: str
    hash: str
    size: int
    empty_files: bool = False
    s3: bool = False
    outer_join: bool = False
    join_on: str = ""
    group_by: str = ""


Parts = tuple[Part, ...]


def datum_id(parts: Sequence[Part]) -> str:
    """Return the engine's name of a datum: BLAKE2b-256 of names, repos, branches and paths, each with its length (8 bytes, big-endian)."""
    hashed = hashlib.blake2b(digest_size=32)
    for part in parts:
        for text in (part.name, part.repo, part.branch, part.path):
            raw = text.encode()
            hashed.update(raw + len(raw).to_bytes(8, "big"))
    return hashed.hexdigest()


def datum_hash(parts: Sequence[Part], salt: str) -> str:
    """Return what decides whether a datum was processed before: its ID, its content, and the pipeline's salt."""
    hashed = hashlib.blake2b(datum_id(parts).encode(), digest_size=32)
    for part in parts:
        hashed.update(bytes.fromhex(part.hash))
    hashed.update(salt.encode())
    return hashed.hexdigest()


def datums(source: Input, matches: Callable[[Leaf], Iterable[Part]]) -> Iterator[Parts]:
    """Give the datums of an input, in their order; `matches` gives what a leaf's glob matches."""
    seen: set[str] = set()
    for parts in _datums(source, matches):
        name = datum_id(parts)
        if name not in seen:
            seen.add(name)
            yield parts


def _datums(source: Input, matches: Callable[[Leaf], Iterable[Part]]) -> Iterator[Parts]:
    if isinstance(source, Leaf):
        yield from ((part,) for part in matches(source))
    elif source.kind == "union":
        for part in source.parts:
            yield from datums(part, matches)
    elif source.kind == "cross":
        sides = [list(datums(part, matches)) for part in source.parts]
        yield from (tuple(itertools.chain.from_iterable(combination)) for combination in itertools.product(*sides))
    elif source.kind == "join":
        yield from _joined(source, matches)
    else:
        for members in _by_key(source, matches, lambda part: part.group_by):
            yield tuple(itertools.chain.from_iterable(members))


def _joined(source: Combined, matches: Callable[[Leaf], Iterable[Part]]) -> Iterator[Parts]:
    for sides in _by_key(source, matches, lambda part: part.join_on):
        present = [side for side in sides if side]
        for combination in itertools.product(*present):
            if len(present) == len(sides):
                yield combination
            elif outer := tuple(part for part in combination if part.outer_join):
                yield outer


def _by_key(source: Combined, matches: Callable[[Leaf], Iterable[Part]], key: Callable[[Part], str]) -> Iterator[list[list[Part]]]:
    """For every key (in the order of the keys' hashes), what each side has of it."""
    found: dict[str, list[list[Part]]] = {}
    for index, side in enumerate(source.parts):
        for part in itertools.chain.from_iterable(datums(side, matches)):
            found.setdefault(key(part), [[] for _ in source.parts])[index].append(part)
    for name in sorted(found, key=lambda text: hashlib.blake2b(text.encode(), digest_size=32).digest()):
        yield found[name]
