"""The methods of ``pps_v2.API`` about logs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

from pdk.errors import UserError
from pdk.kit import logs
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import datums, jobs, pipelines, repos
from pdk.local.pachyderm.runtime.worker import Worker
from pdk.local.pachyderm.wire.convert import Message
from pdk.local.pachyderm.wire.pps import find_job, matches
from pdk.local.pachyderm.wire.schema import Schema

DEFAULT_SINCE_S = 24 * 3600  # what pachctl sends where --since is not given; the logs of older jobs are shown all the same


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
        """Give the lines of jobs' logs, with job and datum."""
        for job in found:
            async for datum, line in self._lines(job, request, follow=follow):
                yield job, datum, line

    def _files(self, job: jobs.Job, request: Message) -> list[tuple[str, Path]]:
        """Return a job's logs (with the datum of each), as far as they are asked for."""
        since_s = request.since.ToSeconds()
        oldest = 0.0 if since_s in (0, DEFAULT_SINCE_S) else time.time() - since_s
        files = [found for found in self.worker.log_files(job, request.datum.id) if found[1].stat().st_mtime >= oldest]
        if not request.data_filters:
            return files
        matching = {datum.id for datum in datums.listing(self.db.reader, job.pk) if matches(datum, request.data_filters)}
        return [found for found in files if found[0] in matching]

    async def _lines(self, job: jobs.Job, request: Message, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """Give the lines of a job's logs; with `follow`, those to come as well, until the job has ended."""

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
