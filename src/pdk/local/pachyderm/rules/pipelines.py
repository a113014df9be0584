"""Pipelines and their life."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import Conflict, NotFound
from pdk.local.pachyderm.rules import branches, commits, repos, schedules, secrets, specs
from pdk.local.pachyderm.rules.model import SPEC, Branch, BranchRef, Refused, RepoRef
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection


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
    salt: str
    stopped: bool
    reason: str
    created: float
    updated: float

    @property
    def output(self) -> RepoRef:
        """Return the repo that its jobs write to."""
        return RepoRef(self.project, self.name)

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


def _pipeline(row: sqlite3.Row) -> Pipeline:
    values = dict(zip(row.keys(), row, strict=True))
    values["spec"], values["stopped"] = json.loads(row["spec"]), bool(row["stopped"])
    return Pipeline(**values)


def get(db: Connection, project: str, name: str) -> Pipeline:
    """Return the pipeline.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute("SELECT * FROM pipeline WHERE project = ? AND name = ?", (project, name)).fetchone()
    if row is None:
        raise NotFound(f'pipeline "{project}/{name}" not found')
    return _pipeline(row)


def by_pk(db: Connection, pk: int) -> Pipeline:
    """Return a pipeline by its key."""
    return _pipeline(db.execute("SELECT * FROM pipeline WHERE pk = ?", (pk,)).fetchone())


def listing(db: Connection, projects: list[str] | None = None, name: str = "") -> list[Pipeline]:
    """Pipelines, newest first; of the given projects where any are given."""
    rows = db.execute("SELECT * FROM pipeline WHERE (?1 = '' OR name = ?1) ORDER BY created DESC, pk DESC", (name,)).fetchall()
    return [_pipeline(row) for row in rows if not projects or row["project"] in projects]


def create(db: Connection, raw: Mapping[str, Any], user_spec: str, *, update: bool = False, reprocess: bool = False) -> Pipeline:
    """Make or update a pipeline, its output repo and branch, and a job on what its input holds now.

    Raises:
        Conflict: it exists and `update` is not set.
        Refused, NotFound: in the engine's words.
    """
    spec = specs.parse(raw)
    repos.project(db, spec.project)
    row = db.execute("SELECT * FROM pipeline WHERE project = ? AND name = ?", (spec.project, spec.name)).fetchone()
    if row is not None and not update:
        raise Conflict(f'pipeline "{spec.project}/{spec.name}" already exists')
    _check_secrets(db, spec)
    _cron_repos(db, spec)
    for leaf in spec.leaves:
        repos.repo_pk(db, leaf.repo)
    now, content, id_ = time.time(), json.dumps(raw), commits.new_id()
    if row is None:
        _output_repos(db, spec)
        salt = str(raw.get("salt") or uuid.uuid4().hex)
        db.execute(
            "INSERT INTO pipeline (project, name, version, spec, user_spec, spec_commit, salt, created, updated) "
            "VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)",
            (spec.project, spec.name, content, user_spec, id_, salt, now, now),
        )
    else:
        salt = uuid.uuid4().hex if reprocess else row["salt"]
        db.execute(
            "UPDATE pipeline SET version = version + 1, spec = ?, user_spec = ?, spec_commit = ?, salt = ?, updated = ? WHERE pk = ?",
            (content, user_spec, id_, salt, now, row["pk"]),
        )
    pipeline = get(db, spec.project, spec.name)
    commits.add_finished(db, branches.bare(db, _spec_branch(pipeline)), id_)
    if not pipeline.stopped:
        connect(db, pipeline, spec, id_)
    for leaf in spec.leaves:
        if leaf.trigger is not None:
            branches.create(db, leaf.source, trigger=leaf.trigger)
    return pipeline


def _check_secrets(db: Connection, spec: specs.Spec) -> None:
    for secret in spec.secrets:
        try:
            data = secrets.data_of(db, secret.name)
        except NotFound:
            what = f"missing Kubernetes secret {secret.name}; create it first (`pachctl create secret`, `pdk create secret`)"
            raise Refused(what) from None
        if secret.key and secret.key not in data:
            raise Refused(f"Kubernetes secret {secret.name} missing key {secret.key}")


def _cron_repos(db: Connection, spec: specs.Spec) -> None:
    for leaf in spec.leaves:
        if leaf.cron and not _exists(db, leaf.repo):
            repos.create_repo(db, leaf.repo, f"Cron tick repo for pipeline {spec.project}/{spec.name}.")


def _output_repos(db: Connection, spec: specs.Spec) -> None:
    output = RepoRef(spec.project, spec.name)
    if _exists(db, output):
        raise Refused(f'pipeline "{spec.name}" cannot be created because a repo with the same name already exists')
    repos.create_repo(db, output, f"Output repo for pipeline {spec.project}/{spec.name}.")
    repos.create_repo(db, RepoRef(spec.project, spec.name, SPEC), f"Spec repo for pipeline {spec.project}/{spec.name}.")


def _exists(db: Connection, ref: RepoRef) -> bool:
    row = db.execute("SELECT 1 FROM repo WHERE project = ? AND name = ? AND type = ?", (ref.project, ref.name, ref.type)).fetchone()
    return row is not None


def _spec_branch(pipeline: Pipeline) -> BranchRef:
    return BranchRef(RepoRef(pipeline.project, pipeline.name, SPEC), "master")


def output_branch(db: Connection, pipeline: Pipeline) -> Branch:
    """Return the branch that its jobs write to."""
    return repos.branch(db, BranchRef(pipeline.output, pipeline.spec.get("output_branch") or "master"))


def connect(db: Connection, pipeline: Pipeline, spec: specs.Spec, id_: str) -> None:
    """Make the output branch computed from the inputs and the spec, and start a job on what they hold now."""
    for former in repos.list_branches(db, pipeline.output):  # an update may have moved the output to another branch
        db.execute("DELETE FROM branch_provenance WHERE branch = ?", (former.pk,))
    sources = [branches.ensure(db, leaf.source) for leaf in spec.leaves]
    branch = branches.bare(db, BranchRef(pipeline.output, spec.output_branch))
    for source in sources:
        if source.repo == pipeline.output:
            raise Refused(f"could not create/update output branch: repo {source.repo} cannot be in the provenance of its own branch")
    repos.set_provenance(db, branch, [*sources, repos.branch(db, _spec_branch(pipeline))])
    commits.check_structure(db, branch)
    commits.open_output(db, branch, id_)
    commits.propagate(db, branch, id_)


def stop(db: Connection, pipeline: Pipeline) -> None:
    """No new jobs until `start`."""
    db.execute("DELETE FROM branch_provenance WHERE branch = ?", (output_branch(db, pipeline).pk,))
    db.execute("UPDATE pipeline SET stopped = 1 WHERE pk = ?", (pipeline.pk,))


def start(db: Connection, pipeline: Pipeline) -> None:
    """Go on after `stop`, with a job on what the inputs hold now."""
    if not pipeline.stopped:
        return
    db.execute("UPDATE pipeline SET stopped = 0 WHERE pk = ?", (pipeline.pk,))
    connect(db, pipeline, specs.parse(pipeline.spec), commits.new_id())


def delete(db: Connection, pipeline: Pipeline, *, keep_repo: bool = False, force: bool = False) -> None:
    """Remove a pipeline with its jobs, its cron repos and, unless kept, its output.

    Raises:
        Refused: another pipeline reads its output.
    """
    for branch in repos.list_branches(db, pipeline.output):
        below = repos.downstream(db, branch.pk)
        if below and not force and not keep_repo:
            raise Refused(
                f'delete branch {branch.ref}: branch "{branch.ref}" cannot be deleted because '
                f"it's in the direct provenance of [{' '.join(str(other.ref) for other in below)}]"
            )
        db.execute("DELETE FROM branch_provenance WHERE branch = ?", (branch.pk,))
    db.execute("DELETE FROM pipeline WHERE pk = ?", (pipeline.pk,))
    for leaf in specs.parse(pipeline.spec).leaves:
        if leaf.cron:
            repos.delete_repo(db, leaf.repo, force=True)
    repos.delete_repo(db, RepoRef(pipeline.project, pipeline.name, SPEC), force=True)
    if not keep_repo:
        repos.delete_repo(db, pipeline.output, force=force)


def readers(db: Connection, pipeline: Pipeline) -> list[Branch]:
    """Return the branches that are computed from a pipeline's output."""
    return [below for branch in repos.list_branches(db, pipeline.output) for below in repos.downstream(db, branch.pk)]


def next_ticks(db: Connection) -> list[tuple[float, Pipeline, str]]:
    """Return the next tick of every cron input of a running pipeline: unix time, pipeline, name of the input."""
    found: list[tuple[float, Pipeline, str]] = []
    # asked after every change: a spec without such an input is not even read
    for row in db.execute("""SELECT * FROM pipeline WHERE NOT stopped AND instr(spec, '"cron"')""").fetchall():
        pipeline = _pipeline(row)
        for leaf in specs.parse(pipeline.spec).leaves:
            if leaf.cron is None:
                continue
            start = pipeline.created if leaf.cron.start is None else leaf.cron.start
            tick = schedules.parse(leaf.cron.spec)(max(start, _last_tick(db, leaf.repo)))
            if tick is not None:
                found.append((tick, pipeline, leaf.name))
    return found


def _last_tick(db: Connection, repo: RepoRef) -> float:
    """Unix time of the newest tick of a cron repo; 0 where there was none."""
    branch = repos.find_branch(db, BranchRef(repo, "master"))
    if branch is None or branch.head is None:
        return 0.0
    sight = commits.view(db, commits.by_pk(db, branch.head))
    names = [entry.path.strip("/") for entry in tree.children(db, sight, "/")]
    return max((schedules.timestamp(name) for name in names if schedules.is_timestamp(name)), default=0.0)


def tick(db: Connection, pipeline: Pipeline, name: str, when: float) -> None:
    """One tick of a cron input: a commit with an empty file named by the time."""
    leaf = next(leaf for leaf in specs.parse(pipeline.spec).leaves if leaf.name == name)
    assert leaf.cron is not None
    commit = commits.start(db, leaf.source)
    writer = tree.Writer(db, commit.lineage, commit.seq)
    if leaf.cron.overwrite:
        writer.delete_tree("/")
    writer.put(f"/{schedules.spelled(when)}", tree.EMPTY, 0)
    writer.close()
    commits.finish(db, commit)
