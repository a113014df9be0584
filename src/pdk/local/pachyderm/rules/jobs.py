"""Jobs: which can run, and what becomes of them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdk.errors import Conflict, NotFound
from pdk.local.pachyderm.rules import commits, datums, pipelines
from pdk.local.pachyderm.rules.model import TERMINAL, Commit

Connection = sqlite3.Connection
REASON_LIMIT = 4000  # characters of a reason that are kept: a job's last lines, not its log
STATISTICS = ("download_s", "process_s", "upload_s", "download_bytes", "upload_bytes")


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
    data_total: int
    data_processed: int
    data_skipped: int
    data_failed: int
    data_recovered: int
    download_s: float
    process_s: float
    upload_s: float
    download_bytes: int
    upload_bytes: int
    created: float
    started: float | None
    finished: float | None

    def __str__(self) -> str:
        return f"{self.pipeline.project}/{self.pipeline.name}@{self.id}"


def _job(db: Connection, row: sqlite3.Row) -> Job:
    values = dict(zip(row.keys(), row, strict=True))
    values["commit"] = commits.by_pk(db, values.pop("output_commit"))
    values["pipeline"], values["spec"] = pipelines.by_pk(db, row["pipeline"]), json.loads(row["spec"])
    return Job(**values)


def by_pk(db: Connection, pk: int) -> Job:
    """Return a job by its key."""
    return _job(db, db.execute("SELECT * FROM job WHERE pk = ?", (pk,)).fetchone())


def get(db: Connection, project: str, pipeline: str, id_: str) -> Job:
    """Return the job of a pipeline with a global ID.

    Raises:
        NotFound: in the engine's words.
    """
    row = db.execute(
        "SELECT j.* FROM job j JOIN pipeline p ON j.pipeline = p.pk WHERE p.project = ? AND p.name = ? AND j.id = ?",
        (project, pipeline, id_),
    ).fetchone()
    if row is None:
        raise NotFound(f"jobs {project}/{pipeline}@{id_} not found")
    return _job(db, row)


def of_commit(db: Connection, commit: int) -> Job | None:
    """Return the job that fills a commit, by the commit's key."""
    row = db.execute("SELECT * FROM job WHERE output_commit = ?", (commit,)).fetchone()
    return _job(db, row) if row else None


def listing(
    db: Connection,
    *,
    pipeline: int | None = None,
    id_: str = "",
    projects: list[str] | None = None,
    after: int = 0,
    unfinished: bool = False,
) -> list[Job]:
    """Jobs, newest first; with `after`, those made after the job with that key."""
    sql = "SELECT * FROM job WHERE (?1 IS NULL OR pipeline = ?1) AND (?2 = '' OR id = ?2) AND pk > ?3"
    sql += " AND finished IS NULL" if unfinished else ""
    found = [_job(db, row) for row in db.execute(sql + " ORDER BY pk DESC", (pipeline, id_, after)).fetchall()]
    return [job for job in found if not projects or job.pipeline.project in projects]


def next_step(db: Connection, busy: frozenset[int] = frozenset()) -> tuple[list[Job], list[tuple[Job, str]], list[str]]:
    """Open jobs whose inputs are finished, oldest first and one a pipeline; and those that can never run, with the reason.

    Args:
        busy: keys of pipelines that need not be looked at.

    Returns:
        Both, and what is wrong with jobs that cannot be read.
    """
    ready: dict[int, Job] = {}
    hopeless: list[tuple[Job, str]] = []
    unreadable: list[str] = []
    for row in db.execute("SELECT * FROM job WHERE finished IS NULL ORDER BY pk").fetchall():
        if row["pipeline"] in busy or row["pipeline"] in ready:
            continue
        try:
            job = _job(db, row)
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # of a damaged database: no other job waits for it
            unreadable.append(f"job {row['id']} cannot be read ({error!r})")
            continue
        sources = commits.provenance(db, job.commit.pk)
        failed = {source.repo for source in sources if source.finished is not None and source.error}
        if failed:
            names = ", ".join(name for name, repo in datums.input_names(job.spec) if repo in failed)
            hopeless.append((job, f"unrunnable because the following upstream pipelines failed: {names}"))
        elif all(source.finished is not None for source in sources):
            ready[job.pipeline.pk] = job
    return list(ready.values()), hopeless, unreadable


def begin(db: Connection, job: Job) -> list[datums.Datum] | None:
    """The job starts, or starts again after a restart of the server.

    Returns:
        The datums that are still to be processed; None when the job was ended meanwhile.
    """
    again = 1 if job.state != "JOB_CREATED" else 0
    sql = "UPDATE job SET state = 'JOB_RUNNING', started = coalesce(started, ?), restart = restart + ? WHERE pk = ? AND finished IS NULL"
    if not db.execute(sql, (time.time(), again, job.pk)).rowcount:
        return None
    found = datums.lay_out(db, job.pk, job.spec, job.commit, job.pipeline)
    _count(db, job.pk)
    return [datum for datum in found if datum.state == "STARTING"]


COUNTERS = {"SUCCESS": "data_processed", "SKIPPED": "data_skipped", "FAILED": "data_failed", "RECOVERED": "data_recovered"}


def record_datum(db: Connection, job: Job, datum: datums.Datum, outputs: datums.Outputs | None = None) -> None:
    """Put what became of a datum on record; what a successful one wrote is kept for ever."""
    datums.record(db, job.pk, job.pipeline.pk, datum, outputs)
    summed = ", ".join(f"{name} = {name} + ?" for name in STATISTICS)
    values = [getattr(datum, name) for name in STATISTICS]
    counter = COUNTERS[datum.state]
    db.execute(f"UPDATE job SET {counter} = {counter} + 1, {summed} WHERE pk = ?", (*values, job.pk))


def _count(db: Connection, pk: int) -> None:
    """Bring a job's counters up to date."""
    counted = ", ".join(f"{name} = (SELECT count(*) FROM datum WHERE job = ?1 AND state = '{state}')" for state, name in COUNTERS.items())
    summed = ", ".join(f"{name} = (SELECT coalesce(sum({name}), 0) FROM datum WHERE job = ?1)" for name in STATISTICS)
    db.execute(f"UPDATE job SET data_total = (SELECT count(*) FROM datum WHERE job = ?1), {counted}, {summed} WHERE pk = ?1", (pk,))


def set_state(db: Connection, job: Job, state: str) -> None:
    """A state on the way; does nothing to a job that has ended."""
    db.execute("UPDATE job SET state = ? WHERE pk = ? AND finished IS NULL", (state, job.pk))


def end(db: Connection, job: Job, state: str, reason: str = "") -> bool:
    """Close a job and its output commit in one step; False when it had ended already (then nothing changes).

    Args:
        state: one of the terminal states; with success the commit gets what the datums wrote.

    Raises:
        Refused: the outputs of two datums do not fit together.
    """
    assert state in TERMINAL, state
    if db.execute("SELECT 1 FROM job WHERE pk = ? AND finished IS NOT NULL", (job.pk,)).fetchone():
        return False
    if state == "JOB_SUCCESS":
        datums.collect(db, job.pk, job.commit)
    reason = reason if len(reason) <= REASON_LIMIT else "… " + reason[-REASON_LIMIT:]
    if db.execute("SELECT 1 FROM commits WHERE pk = ? AND finished IS NULL", (job.commit.pk,)).fetchone():
        commits.finish(db, job.commit, error=reason if state != "JOB_SUCCESS" else "")
    now = time.time()
    sql = "UPDATE job SET state = ?, reason = ?, started = coalesce(started, ?), finished = ? WHERE pk = ?"
    db.execute(sql, (state, reason, now, now, job.pk))
    return True


def kill_open(db: Connection, reason: str, *, pipeline: int | None = None, id_: str = "") -> list[Job]:
    """Close the open jobs of a pipeline, or with a global ID; returns them, for their programs to be ended."""
    found = listing(db, pipeline=pipeline, id_=id_, unfinished=True)
    for job in reversed(found):
        end(db, job, "JOB_KILLED", reason)
    return found


def delete(db: Connection, job: Job) -> None:
    """Forget a job that has ended; its output commit stays."""
    if job.finished is None:
        raise Conflict(f"job {job} is still {job.state}; stop it first")
    db.execute("DELETE FROM job WHERE pk = ?", (job.pk,))
