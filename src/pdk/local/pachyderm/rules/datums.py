"""Datums: a job's input cut into pieces, what became of each, and a commit made of what they wrote.

What a datum wrote is kept as a result, with the datum's hash. A datum is not run again while its hash is that of the last successful
job, as on the engine, or that of the last time it was processed: what a failed job got done is not lost, and what went away and comes
back is there at once. But data that is put back to what it was before a later change is processed anew, because user code may have acted
on the later one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pdk.local.pachyderm.rules import commits, files, globs, inputs, specs
from pdk.local.pachyderm.rules.model import Commit, Refused, RepoRef
from pdk.local.pachyderm.rules.pipelines import Pipeline
from pdk.local.pachyderm.store import tree

Connection = sqlite3.Connection
Outputs = Mapping[str, tuple[bytes, int]]  # path → content's hash and size


@dataclass(frozen=True)
class Datum:
    """One unit of work of a job; `key` names its result."""

    id: str
    key: str
    position: int
    state: str
    inputs: inputs.Parts
    download_s: float = 0.0
    process_s: float = 0.0
    upload_s: float = 0.0
    download_bytes: int = 0
    upload_bytes: int = 0


def input_names(spec: Mapping[str, Any]) -> list[tuple[str, RepoRef]]:
    """Names of a spec's inputs with their repos."""
    return [(leaf.name, leaf.repo) for leaf in specs.parse(spec).leaves]


def cut(db: Connection, source: inputs.Input, read: Mapping[RepoRef, Commit]) -> Iterator[inputs.Parts]:
    """Give the datums of an input; `read` are the commits that its repos are read at."""

    def matches(leaf: inputs.Leaf) -> Iterator[inputs.Part]:
        commit = read.get(leaf.repo)
        if commit is None:
            return
        for entry in files.glob(db, commits.view(db, commit), leaf.glob):
            yield inputs.Part(
                leaf.name, leaf.repo.name, leaf.branch, commit.pk, entry.path, entry.hash.hex(), entry.size,
                leaf.empty_files, leaf.s3, leaf.outer_join,
                globs.replace(leaf.glob, entry.path, leaf.join_on), globs.replace(leaf.glob, entry.path, leaf.group_by),
            )  # fmt: skip

    return inputs.datums(source, matches)


def lay_out(db: Connection, job: int, raw: Mapping[str, Any], commit: Commit, pipeline: Pipeline) -> list[Datum]:
    """Put the datums of a job on record, in their order; those that have a result already are skipped.

    What an earlier start of the same job processed stays processed.
    """
    spec = specs.parse(raw)
    assert spec.input is not None
    mine = {row["id"]: row["result"] for row in db.execute("SELECT id, result FROM datum WHERE job = ? AND state = 'SUCCESS'", (job,))}
    base = _base_job(db, commit)
    db.execute("DELETE FROM datum WHERE job = ?", (job,))
    read = {source.repo: source for source in commits.provenance(db, commit.pk)}
    found: list[Datum] = []
    for position, parts in enumerate(cut(db, spec.input, read)):
        id_, key = inputs.datum_id(parts), inputs.datum_hash(parts, pipeline.salt)
        if spec.every_job:
            key = f"{key}@{commit.id}"  # a result of this job's own
        result = mine.get(id_) or _earlier(db, pipeline.pk, base, id_, key)
        state = "STARTING" if result is None else "SUCCESS" if id_ in mine else "SKIPPED"
        found.append(Datum(id_, key, position, state, parts))
        db.execute(
            "INSERT INTO datum (job, id, position, state, inputs, result) VALUES (?, ?, ?, ?, ?, ?)",
            (job, id_, position, state, json.dumps([vars(part) for part in parts]), result),
        )
    return found


def _earlier(db: Connection, pipeline: int, base: int | None, datum: str, key: str) -> int | None:
    """Return the result that a datum need not be run again for."""
    for sql, of in (
        ("SELECT r.pk, r.key FROM datum d JOIN result r ON d.result = r.pk WHERE d.job = ? AND d.id = ?", base),
        ("SELECT pk, key FROM result WHERE pipeline = ? AND datum = ? ORDER BY pk DESC LIMIT 1", pipeline),
    ):
        row = db.execute(sql, (of, datum)).fetchone()
        if row and row["key"] == key:
            return int(row["pk"])
    return None


def _datum(row: sqlite3.Row) -> Datum:
    return Datum(
        row["id"], "", row["position"], row["state"], tuple(inputs.Part(**part) for part in json.loads(row["inputs"])),
        row["download_s"], row["process_s"], row["upload_s"], row["download_bytes"], row["upload_bytes"],
    )  # fmt: skip


def listing(db: Connection, job: int) -> list[Datum]:
    """Return the datums of a job, by ID."""
    return [_datum(row) for row in db.execute("SELECT * FROM datum WHERE job = ? ORDER BY id", (job,)).fetchall()]


def get(db: Connection, job: int, id_: str) -> Datum | None:
    """Return one datum of a job."""
    row = db.execute("SELECT * FROM datum WHERE job = ? AND id = ?", (job, id_)).fetchone()
    return _datum(row) if row else None


def record(db: Connection, job: int, pipeline: int, datum: Datum, outputs: Outputs | None) -> None:
    """Put a datum's state and statistics on record, and as its result what it wrote."""
    result = None
    if outputs is not None:
        result = db.execute("INSERT INTO result (pipeline, datum, key) VALUES (?, ?, ?)", (pipeline, datum.id, datum.key)).lastrowid
        rows = [(result, path, content, size) for path, (content, size) in outputs.items()]
        db.executemany("INSERT INTO result_file VALUES (?, ?, ?, ?)", rows)
    db.execute(
        "UPDATE datum SET state = ?, result = ?, download_s = ?, process_s = ?, upload_s = ?, download_bytes = ?, upload_bytes = ? "
        "WHERE job = ? AND id = ?",
        (
            datum.state, result, datum.download_s, datum.process_s, datum.upload_s, datum.download_bytes, datum.upload_bytes,
            job, datum.id,
        ),
    )  # fmt: skip


def collect(db: Connection, job: int, commit: Commit) -> None:
    """Make an output commit hold what the job's datums wrote, by changing only what differs from the job before.

    Raises:
        Refused: two datums wrote the same path, in the engine's words.
    """
    writer = tree.Writer(db, commit.lineage, commit.seq)
    base = _base_job(db, commit)
    if base is None:
        writer.delete_tree("/")
    now, before = _results(db, job), _results(db, base) if base is not None else set()
    for result in before - now:
        for row in db.execute("SELECT path FROM result_file WHERE result = ?", (result,)).fetchall():
            writer.delete(row["path"])
    writer.close()
    for result in sorted(now - before):
        for row in db.execute("SELECT path, hash, size FROM result_file WHERE result = ? ORDER BY path", (result,)).fetchall():
            if writer.get(row["path"]):
                raise Refused(_duplicate(db, job, row["path"]))
            files.put(writer, row["path"], row["hash"], row["size"])
    writer.close()


def _results(db: Connection, job: int) -> set[int]:
    return {row[0] for row in db.execute("SELECT result FROM datum WHERE job = ? AND result IS NOT NULL", (job,)).fetchall()}


def _base_job(db: Connection, commit: Commit) -> int | None:
    """Return the newest successful job whose output the commit's content starts from; None where its datums are not known."""
    seen = dict(commits.view(db, commit).parts)
    for older in commits.ancestors(db, commit):
        if older.pk == commit.pk or older.error or older.finished is None or older.seq > seen.get(older.lineage, 0):
            continue
        row = db.execute("SELECT pk FROM job WHERE output_commit = ? AND state = 'JOB_SUCCESS'", (older.pk,)).fetchone()
        return row["pk"] if row else None
    return None


def _duplicate(db: Connection, job: int, path: str) -> str:
    rows = db.execute(
        "SELECT d.id FROM datum d JOIN result_file f ON f.result = d.result WHERE d.job = ? AND f.path = ? ORDER BY d.id", (job, path)
    ).fetchall()
    names = [row["id"] for row in rows]
    return f"duplicate path output by different datums ({' and '.join(f'{path} from {name}' for name in names)})"
