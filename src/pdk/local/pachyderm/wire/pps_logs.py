"""The methods of ``pps_v2.API`` about logs and secrets."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

from pdk.errors import Conflict, NotFound, UserError
from pdk.local.kit import logs
from pdk.local.kit.db import Database
from pdk.local.pachyderm.rules import datums, jobs, pipelines, repos
from pdk.local.pachyderm.rules.model import check_name
from pdk.local.pachyderm.runtime.worker import Worker
from pdk.local.pachyderm.wire.convert import Message
from pdk.local.pachyderm.wire.pps import find_job, matches
from pdk.local.pachyderm.wire.schema import Schema

DEFAULT_SINCE_S = 24 * 3600  # what pachctl sends where --since is not given; the logs of older jobs are shown all the same
SECRET_KEY = re.compile(r"(?!\.\.?$)[-._a-zA-Z0-9]+")


def secret_data(db: sqlite3.Connection, name: str) -> dict[str, str]:
    """The keys and values of a secret.

    Raises:
        NotFound: there is none of that name.
    """
    row = db.execute("SELECT data FROM secret WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"secret {name!r} does not exist; create it with `pachctl create secret` or `pdk create secret`")
    return dict(json.loads(row[0]))


class Logs:
    """What jobs print."""

    def __init__(self, schema: Schema, db: Database, worker: Worker) -> None:
        self.schema, self.db, self.worker = schema, db, worker

    def _pipeline(self, request: Message) -> pipelines.Pipeline:
        return pipelines.get(self.db.reader, request.pipeline.project.name or repos.DEFAULT_PROJECT, request.pipeline.name)

    async def GetLogs(self, request: Message) -> AsyncIterator[Message]:
        wanted = request.datum.job if request.HasField("datum") and request.datum.HasField("job") else request.job
        if wanted.id:
            found = [find_job(self.db.reader, wanted)]
        elif request.pipeline.name:
            found = list(reversed(jobs.listing(self.db.reader, pipeline=self._pipeline(request).pk)))
        else:
            raise UserError("say whose logs: a pipeline (`pachctl logs -p NAME`) or a job (`pachctl logs -j PIPELINE@ID`)")
        skip = 0
        if request.tail > 0:
            skip = max(0, sum([1 async for _ in self._every(found, request, follow=False)]) - request.tail)
        async for job, datum, line in self._every(found, request, follow=request.follow):
            if skip:
                skip -= 1
            else:
                yield self._log_message(job, datum, line)

    async def _every(self, found: list[jobs.Job], request: Message, *, follow: bool) -> AsyncIterator[tuple[jobs.Job, str, str]]:
        """The lines of jobs' logs, with job and datum."""
        for job in found:
            async for datum, line in self._lines(job, request, follow=follow):
                yield job, datum, line

    def _files(self, job: jobs.Job, request: Message) -> list[tuple[str, Path]]:
        """A job's logs (with the datum of each), as far as they are asked for."""
        since_s = request.since.ToSeconds()
        oldest = 0.0 if since_s in (0, DEFAULT_SINCE_S) else time.time() - since_s
        files = [found for found in self.worker.log_files(job, request.datum.id) if found[1].stat().st_mtime >= oldest]
        if not request.data_filters:
            return files
        matching = {datum.id for datum in datums.listing(self.db.reader, job.pk) if matches(datum, request.data_filters)}
        return [found for found in files if found[0] in matching]

    async def _lines(self, job: jobs.Job, request: Message, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """The lines of a job's logs; with `follow`, those to come as well, until the job has ended."""

        def ended() -> bool:
            return not follow or jobs.by_pk(self.db.reader, job.pk).finished is not None

        silent = True
        async for name, line in logs.follow_all((job.pk, request.SerializeToString()), lambda: self._files(job, request), ended):
            silent = False
            yield name, line
        if silent and not request.datum.id and not request.data_filters and (reason := jobs.by_pk(self.db.reader, job.pk).reason):
            yield "", reason  # there was no program to say anything

    def _log_message(self, job: jobs.Job, datum: str, line: str) -> Message:
        message = self.schema["pps_v2.LogMessage"](
            project_name=job.pipeline.project, pipeline_name=job.pipeline.name, job_id=job.id, datum_id=datum, user=True
        )
        message.message = self.worker.around.redact(line)
        message.ts.FromMicroseconds(int(time.time() * 1_000_000))
        return message


class Secrets:
    """Values that pipelines use and nobody lists."""

    def __init__(self, schema: Schema, db: Database) -> None:
        self.schema, self.db = schema, db

    def _empty(self) -> Message:
        return self.schema["google.protobuf.Empty"]()

    async def CreateSecret(self, request: Message) -> Message:
        try:
            content = json.loads(request.file)
            name = content["metadata"]["name"]
            data = {key: base64.b64decode(value, validate=True).decode() for key, value in (content.get("data") or {}).items()}
            data.update({key: str(value) for key, value in (content.get("stringData") or {}).items()})
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise UserError(f"the secret is not a Kubernetes Secret in JSON with metadata.name and base64 data: {error!r}") from error
        check_name("secret", name)
        for key in data:
            if not SECRET_KEY.fullmatch(key):
                raise UserError(f"the secret's key {key!r} may hold letters, digits, '.', '_' and '-' only: it becomes a file's name")

        def work(db: sqlite3.Connection) -> None:
            if db.execute("SELECT 1 FROM secret WHERE name = ?", (name,)).fetchone():
                raise Conflict(f'secrets "{name}" already exists')
            row = (name, content.get("type") or "Opaque", json.dumps(data), time.time())
            db.execute("INSERT INTO secret VALUES (?, ?, ?, ?)", row)

        await self.db.write(work)
        return self._empty()

    def _secret_info(self, row: sqlite3.Row) -> Message:
        info = self.schema["pps_v2.SecretInfo"](type=row["type"])
        info.secret.name = row["name"]
        info.creation_timestamp.FromMicroseconds(int(row["created"] * 1_000_000))
        return info

    async def ListSecret(self, request: Message) -> Message:
        answer = self.schema["pps_v2.SecretInfos"]()
        for row in self.db.reader.execute("SELECT * FROM secret ORDER BY name").fetchall():
            answer.secret_info.add().CopyFrom(self._secret_info(row))
        return answer

    async def InspectSecret(self, request: Message) -> Message:
        row = self.db.reader.execute("SELECT * FROM secret WHERE name = ?", (request.secret.name,)).fetchone()
        if row is None:
            raise NotFound(f'secrets "{request.secret.name}" not found')
        return self._secret_info(row)

    async def DeleteSecret(self, request: Message) -> Message:
        def work(db: sqlite3.Connection) -> None:
            if not db.execute("DELETE FROM secret WHERE name = ?", (request.secret.name,)).rowcount:
                raise NotFound(f'secrets "{request.secret.name}" not found')

        await self.db.write(work)
        return self._empty()
