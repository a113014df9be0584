"""Pipelines: their specs, and their life. Every function works inside the caller's transaction."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdk.errors import Conflict, NotFound, NotSupported, UserError
from pdk.local.pachyderm.service import commits, files, repos
from pdk.local.pachyderm.service.model import SPEC, BranchRef, RepoRef, check_name

Connection = sqlite3.Connection
DURATION = re.compile(r"([0-9.]+)s")
DEFAULT_IMAGE = "ubuntu:20.04"  # what the engine runs where a spec names none
NOT_OFFERED = {
    "spout": "spouts",
    "service": "service pipelines",
    "tf_job": "TFJobs",
    "egress": "egress",
    "s3_out": "S3 outputs",
}


@dataclass(frozen=True)
class Input:
    """A PFS input."""

    name: str
    repo: RepoRef
    branch: str
    glob: str
    empty_files: bool = False


@dataclass(frozen=True)
class SecretUse:
    """A secret's key as an environment variable, or the whole secret as files below a path."""

    name: str
    key: str = ""
    env_var: str = ""
    mount_path: str = ""


@dataclass(frozen=True)
class Spec:
    """What the server needs of a pipeline spec; the whole of it is kept beside."""

    project: str
    name: str
    inputs: tuple[Input, ...]
    image: str
    cmd: tuple[str, ...]
    stdin: tuple[str, ...]
    env: Mapping[str, str]
    secrets: tuple[SecretUse, ...]
    accept: frozenset[int]
    working_dir: str
    output_branch: str
    datum_tries: int
    datum_timeout_s: float | None
    job_timeout_s: float | None
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Pipeline:
    """A pipeline as it is on record."""

    pk: int
    project: str
    name: str
    version: int
    spec: Mapping[str, Any]
    user_spec: str
    spec_commit: str
    stopped: bool
    reason: str
    created: float
    updated: float


def _seconds(value: Any) -> float | None:
    match = DURATION.fullmatch(str(value or ""))
    return float(match[1]) if match else None


def _input(raw: Mapping[str, Any], default_project: str) -> Input:
    kinds = [kind for kind in raw if raw[kind]]
    if kinds != ["pfs"]:
        raise NotSupported(f"the input kind {kinds[0] if kinds else 'none'!r} is not offered by the local server; it takes one pfs input")
    pfs = raw["pfs"]
    for key in ("s3", "join_on", "group_by", "lazy"):
        if pfs.get(key):
            raise NotSupported(f"input.pfs.{key} is not offered by the local server; leave it out")
    if not pfs.get("repo"):
        raise UserError("input must specify a repo")
    if not pfs.get("glob"):
        raise UserError("input must specify a glob")
    files.compile_glob(pfs["glob"])
    repo = RepoRef(pfs.get("project") or default_project, pfs["repo"])
    name = pfs.get("name") or pfs["repo"]
    check_name("input", name)
    if name == "out":
        raise UserError('input cannot be named "out": /pfs/out is where the job writes; give it another name')
    return Input(name, repo, pfs.get("branch") or "master", pfs["glob"], bool(pfs.get("empty_files")))


def parse(raw: Mapping[str, Any]) -> Spec:
    """Read a spec (field names as in the proto).

    Raises:
        UserError: something in it is wrong.
        NotSupported: it asks for what is not offered.
    """
    pipeline, transform = raw.get("pipeline") or {}, raw.get("transform") or {}
    name = pipeline.get("name", "")
    project = (pipeline.get("project") or {}).get("name") or repos.DEFAULT_PROJECT
    if not name:
        raise UserError("invalid pipeline spec: the name is missing (field pipeline.name)")
    check_name("pipeline", name)
    for key, what in NOT_OFFERED.items():
        if raw.get(key):
            raise NotSupported(f"{what} are not supported locally (field {key}); run this pipeline on a cluster")
    if not raw.get("input"):
        raise UserError(f"pipeline {name!r}: no input set; a pipeline needs one")
    if not transform.get("cmd"):
        raise UserError(f"pipeline {name!r}: no transform.cmd set; say which program to run")
    return Spec(
        project=project,
        name=name,
        inputs=(_input(raw["input"], project),),
        image=transform.get("image") or DEFAULT_IMAGE,
        cmd=tuple(transform["cmd"]),
        stdin=tuple(transform.get("stdin") or ()),
        env=dict(transform.get("env") or {}),
        secrets=tuple(
            SecretUse(s.get("name", ""), s.get("key", ""), s.get("env_var", ""), s.get("mount_path", ""))
            for s in transform.get("secrets") or ()
        ),
        accept=frozenset({0, *(int(code) for code in transform.get("accept_return_code") or ())}),
        working_dir=transform.get("working_dir") or "",
        output_branch=raw.get("output_branch") or "master",
        datum_tries=int(raw.get("datum_tries") or 3),
        datum_timeout_s=_seconds(raw.get("datum_timeout")),
        job_timeout_s=_seconds(raw.get("job_timeout")),
        raw=raw,
    )


def _pipeline(row: sqlite3.Row) -> Pipeline:
    values = dict(zip(row.keys(), row, strict=True))
    values["spec"], values["stopped"] = json.loads(row["spec"]), bool(row["stopped"])
    return Pipeline(**values)


def get(db: Connection, project: str, name: str) -> Pipeline:
    """The pipeline.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute("SELECT * FROM pipeline WHERE project = ? AND name = ?", (project, name)).fetchone()
    if row is None:
        raise NotFound(f'pipeline "{project}/{name}" not found')
    return _pipeline(row)


def by_pk(db: Connection, pk: int) -> Pipeline:
    """A pipeline by its key."""
    return _pipeline(db.execute("SELECT * FROM pipeline WHERE pk = ?", (pk,)).fetchone())


def listing(db: Connection, projects: list[str] | None = None, name: str = "") -> list[Pipeline]:
    """Pipelines, newest first; of the given projects where any are given."""
    rows = db.execute("SELECT * FROM pipeline WHERE (?1 = '' OR name = ?1) ORDER BY created DESC, pk DESC", (name,)).fetchall()
    return [_pipeline(row) for row in rows if not projects or row["project"] in projects]


def create(db: Connection, raw: Mapping[str, Any], user_spec: str, *, update: bool = False, reprocess: bool = False) -> Pipeline:
    """Make or update a pipeline, its output repo and branch, and its first job where its input has a commit.

    Raises:
        Conflict: it exists and `update` is not set, or its input is its own output.
    """
    spec = parse(raw)
    repos.project(db, spec.project)
    for secret in spec.secrets:
        if not db.execute("SELECT 1 FROM secret WHERE name = ?", (secret.name,)).fetchone():
            raise NotFound(f"pipeline {spec.name!r} uses the secret {secret.name!r}, which does not exist; create it first")
    for source in spec.inputs:
        repos.repo_pk(db, source.repo)
    now, spec_commit, content = time.time(), commits.new_id(), json.dumps(raw)
    row = db.execute("SELECT pk, spec FROM pipeline WHERE project = ? AND name = ?", (spec.project, spec.name)).fetchone()
    output = RepoRef(spec.project, spec.name)
    if row is None:
        if db.execute("SELECT 1 FROM repo WHERE project = ? AND name = ? AND type = 'user'", (spec.project, spec.name)).fetchone():
            raise Conflict(f"cannot create pipeline {spec.name!r}: a repo of that name exists already; delete it or rename the pipeline")
        repos.create_repo(db, output, f"Output repo for pipeline {spec.project}/{spec.name}.")
        repos.create_repo(db, RepoRef(spec.project, spec.name, SPEC), f"Spec repo for pipeline {spec.project}/{spec.name}.")
        db.execute(
            "INSERT INTO pipeline (project, name, version, spec, user_spec, spec_commit, created, updated) VALUES (?, ?, 1, ?, ?, ?, ?, ?)",
            (spec.project, spec.name, content, user_spec, spec_commit, now, now),
        )
    elif not update:
        raise Conflict(f'pipeline "{spec.project}/{spec.name}" already exists; use update pipeline to change it')
    else:
        db.execute(
            "UPDATE pipeline SET version = version + 1, spec = ?, user_spec = ?, spec_commit = ?, stopped = 0, updated = ? WHERE pk = ?",
            (content, user_spec, spec_commit, now, row["pk"]),
        )
    changed = row is None or reprocess or json.loads(row["spec"]) != json.loads(content)
    connect(db, spec, run=changed)
    return get(db, spec.project, spec.name)


def connect(db: Connection, spec: Spec, *, run: bool) -> None:
    """Make the output branch computed from the inputs; with `run`, start on what they hold now."""
    ref = BranchRef(RepoRef(spec.project, spec.name), spec.output_branch)
    for former in repos.list_branches(db, ref.repo):  # an update may have moved the output to another branch
        db.execute("DELETE FROM branch_provenance WHERE branch = ?", (former.pk,))
    branch = commits.create_branch(db, ref, None, [BranchRef(source.repo, source.branch) for source in spec.inputs])
    if run:
        commit = commits.open_output(db, branch, commits.new_id())
        commits.propagate(db, branch, commit.id)


def stop(db: Connection, pipeline: Pipeline) -> None:
    """No new jobs until `start`; open jobs go on."""
    spec = parse(pipeline.spec)
    branch = repos.branch(db, BranchRef(RepoRef(pipeline.project, pipeline.name), spec.output_branch))
    db.execute("DELETE FROM branch_provenance WHERE branch = ?", (branch.pk,))
    db.execute("UPDATE pipeline SET stopped = 1 WHERE pk = ?", (pipeline.pk,))


def start(db: Connection, pipeline: Pipeline) -> None:
    """Go on after `stop`, with a job where the inputs moved meanwhile."""
    if not pipeline.stopped:
        return
    db.execute("UPDATE pipeline SET stopped = 0 WHERE pk = ?", (pipeline.pk,))
    spec = parse(pipeline.spec)
    branch = repos.branch(db, BranchRef(RepoRef(pipeline.project, pipeline.name), spec.output_branch))
    last = commits.by_pk(db, branch.head) if branch.head is not None else None
    done = {commit.pk for commit in commits.provenance(db, last.pk)} if last and last.finished and not last.error else set()
    heads = {repos.branch(db, BranchRef(source.repo, source.branch)).head for source in spec.inputs}
    connect(db, spec, run=bool(heads - done - {None}))


def delete(db: Connection, pipeline: Pipeline, *, keep_repo: bool = False, force: bool = False) -> None:
    """Remove a pipeline with its jobs and, unless kept, its output.

    Raises:
        Conflict: another pipeline reads its output.
    """
    output = RepoRef(pipeline.project, pipeline.name)
    for branch in repos.list_branches(db, output):
        below = repos.downstream(db, branch.pk)
        if below and not force:
            raise Conflict(
                f"pipeline {pipeline.name!r} cannot be deleted: {below[0].ref} reads its output; delete that first, or use --force"
            )
        db.execute("DELETE FROM branch_provenance WHERE branch = ?1 OR upstream = ?1", (branch.pk,))
    db.execute("DELETE FROM pipeline WHERE pk = ?", (pipeline.pk,))
    repos.delete_repo(db, RepoRef(pipeline.project, pipeline.name, SPEC))
    if not keep_repo:
        repos.delete_repo(db, output)
