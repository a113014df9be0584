"""Jobs and datums: which can run, what becomes of them. Every function works inside the caller's transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import Conflict, NotFound
from pdk.local.pachyderm.service import commits, files, pipelines
from pdk.local.pachyderm.service.model import TERMINAL, Commit, RepoRef
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection
REASON_LIMIT = 4000  # characters of a reason that are kept: a job's last lines, not its log


@dataclass(frozen=True)
class Job:
    """A job as it is on record; `commit` is its output."""

    pk: int
    pipeline: pipelines.Pipeline
    id: str
    commit: Commit
    version: int
    spec: Mapping[str, Any]
    state: str
    reason: str
    restart: int
    created: float
    started: float | None
    finished: float | None

    def __str__(self) -> str:
        return f"{self.pipeline.project}/{self.pipeline.name}@{self.id}"


@dataclass(frozen=True)
class DatumInput:
    """What a datum gets under /pfs/`name`: the entry at `path` of a commit."""

    name: str
    commit: int
    path: str
    hash: str
    size: int
    empty_files: bool


@dataclass(frozen=True)
class Datum:
    """One unit of work of a job."""

    id: str
    position: int
    state: str
    inputs: tuple[DatumInput, ...]
    download_s: float = 0.0
    process_s: float = 0.0
    upload_s: float = 0.0
    download_bytes: int = 0
    upload_bytes: int = 0


def _job(db: Connection, row: sqlite3.Row) -> Job:
    return Job(
        pk=row["pk"], pipeline=pipelines.by_pk(db, row["pipeline"]), id=row["id"], commit=commits.by_pk(db, row["output_commit"]),
        version=row["version"], spec=json.loads(row["spec"]), state=row["state"], reason=row["reason"], restart=row["restart"],
        created=row["created"], started=row["started"], finished=row["finished"],
    )  # fmt: skip


def by_pk(db: Connection, pk: int) -> Job:
    """A job by its key."""
    return _job(db, db.execute("SELECT * FROM job WHERE pk = ?", (pk,)).fetchone())


def get(db: Connection, project: str, pipeline: str, id_: str) -> Job:
    """The job of a pipeline with a global ID.

    Raises:
        NotFound: in the engine's words.
    """
    found = pipelines.get(db, project, pipeline)
    row = db.execute("SELECT * FROM job WHERE pipeline = ? AND id = ?", (found.pk, id_)).fetchone()
    if row is None:
        raise NotFound(f"job {project}/{pipeline}@{id_} not found")
    return _job(db, row)


def listing(db: Connection, *, pipeline: int | None = None, id_: str = "", projects: list[str] | None = None) -> list[Job]:
    """Jobs, newest first."""
    sql = "SELECT * FROM job WHERE (?1 IS NULL OR pipeline = ?1) AND (?2 = '' OR id = ?2) ORDER BY pk DESC"
    found = [_job(db, row) for row in db.execute(sql, (pipeline, id_)).fetchall()]
    return [job for job in found if not projects or job.pipeline.project in projects]


def next_step(db: Connection) -> tuple[list[Job], list[tuple[Job, str]]]:
    """Open jobs whose inputs are finished, oldest first and one a pipeline; and those that can never run, with the reason."""
    ready: dict[int, Job] = {}
    hopeless: list[tuple[Job, str]] = []
    for row in db.execute("SELECT * FROM job WHERE finished IS NULL ORDER BY pk").fetchall():
        job = _job(db, row)
        sources = commits.provenance(db, job.commit.pk)
        failed = [source for source in sources if source.finished is not None and source.error]
        if failed:
            hopeless.append((job, f"unrunnable because the following upstream commits failed: {', '.join(str(c.ref) for c in failed)}"))
        elif all(source.finished is not None for source in sources):
            ready.setdefault(job.pipeline.pk, job)
    return list(ready.values()), hopeless


def datums_of(db: Connection, job: Job) -> list[Datum]:
    """Cut the job's input into datums along its glob: one for every match."""
    spec = pipelines.parse(job.spec)
    found: list[Datum] = []
    for source in spec.inputs:
        commit = input_commit(db, job, source.repo)
        if commit is None:
            continue
        for entry in files.glob(db, commits.view(db, commit), source.glob):
            part = DatumInput(source.name, commit.pk, entry.path, entry.hash.hex(), entry.size, source.empty_files)
            name = hashlib.sha256(json.dumps([source.name, entry.path, entry.hash.hex()]).encode()).hexdigest()
            found.append(Datum(name, len(found), "STARTING", (part,)))
    return found


def input_commit(db: Connection, job: Job, repo: RepoRef) -> Commit | None:
    """The commit of `repo` that the job reads."""
    return next((commit for commit in commits.provenance(db, job.commit.pk) if commit.repo == repo), None)


def begin(db: Connection, job: Job) -> list[Datum] | None:
    """The job starts, or starts again after a restart of the server; returns its datums, None when it was ended meanwhile."""
    again = 1 if job.state != "JOB_CREATED" else 0
    sql = "UPDATE job SET state = 'JOB_RUNNING', started = coalesce(started, ?), restart = restart + ? WHERE pk = ? AND finished IS NULL"
    if not db.execute(sql, (time.time(), again, job.pk)).rowcount:
        return None
    db.execute("DELETE FROM datum WHERE job = ?", (job.pk,))
    found = datums_of(db, job)
    for datum in found:
        inputs = json.dumps([vars(part) for part in datum.inputs])
        db.execute(
            "INSERT OR IGNORE INTO datum (job, id, position, state, inputs) VALUES (?, ?, ?, ?, ?)",
            (job.pk, datum.id, datum.position, datum.state, inputs),
        )
    return found


def datums(db: Connection, job_pk: int) -> list[Datum]:
    """The datums of a job in their order."""
    rows = db.execute("SELECT * FROM datum WHERE job = ? ORDER BY position", (job_pk,)).fetchall()
    return [
        Datum(
            row["id"], row["position"], row["state"], tuple(DatumInput(**part) for part in json.loads(row["inputs"])),
            row["download_s"], row["process_s"], row["upload_s"], row["download_bytes"], row["upload_bytes"],
        )
        for row in rows
    ]  # fmt: skip


def record_datum(db: Connection, job: Job, datum: Datum) -> None:
    """Put a datum's state and statistics on record."""
    db.execute(
        "UPDATE datum SET state = ?, download_s = ?, process_s = ?, upload_s = ?, download_bytes = ?, upload_bytes = ? "
        "WHERE job = ? AND id = ?",
        (
            datum.state, datum.download_s, datum.process_s, datum.upload_s, datum.download_bytes, datum.upload_bytes,
            job.pk, datum.id,
        ),
    )  # fmt: skip


def set_state(db: Connection, job: Job, state: str) -> None:
    """A state on the way; does nothing to a job that has ended."""
    db.execute("UPDATE job SET state = ? WHERE pk = ? AND finished IS NULL", (state, job.pk))


def end(db: Connection, job: Job, state: str, reason: str = "", outputs: Mapping[str, tuple[bytes, int]] | None = None) -> bool:
    """Close a job and its output commit in one step; False when it had ended already (then nothing changes).

    Args:
        state: one of the terminal states.
        outputs: path → (content hash, size) of everything that the job wrote; what is not among them goes.
    """
    assert state in TERMINAL, state
    if db.execute("SELECT 1 FROM job WHERE pk = ? AND finished IS NOT NULL", (job.pk,)).fetchone():
        return False
    if outputs is not None:
        writer = tree.Writer(db, job.commit.lineage, job.commit.seq)
        gone = [e.path for e in tree.files_below(tree.walk(db, writer.sight, "/")) if e.path not in outputs]
        for path in gone:
            writer.delete(path)
        writer.close()
        for path, (content, size) in outputs.items():
            files.put(db, writer, path, content, size)
        writer.close()
    reason = reason if len(reason) <= REASON_LIMIT else "… " + reason[-REASON_LIMIT:]
    if db.execute("SELECT 1 FROM commits WHERE pk = ? AND finished IS NULL", (job.commit.pk,)).fetchone():
        commits.finish(db, job.commit, error=reason if state != "JOB_SUCCESS" else "")
    db.execute("UPDATE job SET state = ?, reason = ?, finished = ? WHERE pk = ?", (state, reason, time.time(), job.pk))
    return True


def kill_open(db: Connection, pipeline: int, reason: str) -> list[Job]:
    """Close the open jobs of a pipeline; returns them, for their programs to be ended."""
    found = [job for job in listing(db, pipeline=pipeline) if job.finished is None]
    for job in reversed(found):
        end(db, job, "JOB_KILLED", reason)
    return found


def delete(db: Connection, job: Job) -> None:
    """Forget a job that has ended; its output commit stays."""
    if job.finished is None:
        raise Conflict(f"job {job} is still {job.state}; stop it first")
    db.execute("DELETE FROM job WHERE pk = ?", (job.pk,))
