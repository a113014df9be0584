"""The methods of ``pps_v2.API``."""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from pdk.errors import Conflict, NotFound, UserError
from pdk.local.kit import logs
from pdk.local.kit.db import Database
from pdk.local.pachyderm.service import jobs, pipelines, repos
from pdk.local.pachyderm.service.model import check_name
from pdk.local.pachyderm.service.worker import Worker
from pdk.local.pachyderm.wire.convert import Converter, Message, to_dict
from pdk.local.pachyderm.wire.schema import Schema

SECRET_KEY = re.compile(r"(?!\.\.?$)[-._a-zA-Z0-9]+")
MERGE_FIELDS = ("update", "reprocess")  # of a spec; they override the request's


def secret_data(db: sqlite3.Connection, name: str) -> dict[str, str]:
    """The keys and values of a secret.

    Raises:
        NotFound: there is none of that name.
    """
    row = db.execute("SELECT data FROM secret WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"secret {name!r} does not exist; create it with `pachctl create secret` or `pdk create secret`")
    return dict(json.loads(row[0]))


class Pps:
    """Pipelines, jobs, datums, logs and secrets."""

    def __init__(self, schema: Schema, db: Database, worker: Worker) -> None:
        self.schema, self.db, self.worker = schema, db, worker
        self.convert = Converter(schema, db.reader)

    def _empty(self) -> Message:
        return self.schema["google.protobuf.Empty"]()

    # pipelines

    async def CreatePipelineV2(self, request: Message) -> Message:
        text = request.create_pipeline_request_json
        try:
            spec = json_format.Parse(text, self.schema["pps_v2.CreatePipelineRequest"]())
        except json_format.ParseError as error:
            what = str(error).partition("\n")[0]
            raise UserError(f"could not parse the spec as a Create Pipeline Request message: {what}") from error
        update, reprocess = spec.update or request.update, spec.reprocess or request.reprocess
        for name in MERGE_FIELDS:
            spec.ClearField(name)
        raw = to_dict(spec)
        pipelines.parse(raw)
        if not request.dry_run:
            await self._create(raw, text, update=update, reprocess=reprocess)
        answer = json_format.MessageToJson(spec, indent=None)
        return self.schema["pps_v2.CreatePipelineV2Response"](effective_create_pipeline_request_json=answer)

    async def CreatePipeline(self, request: Message) -> Message:
        update, reprocess = request.update, request.reprocess
        for name in MERGE_FIELDS:
            request.ClearField(name)
        raw = to_dict(request)
        if not request.dry_run:
            await self._create(raw, json_format.MessageToJson(request, indent=None), update=update, reprocess=reprocess)
        return self._empty()

    async def _create(self, raw: dict[str, Any], text: str, *, update: bool, reprocess: bool) -> None:
        spec = pipelines.parse(raw)

        def work(db: sqlite3.Connection) -> list[jobs.Job]:
            killed: list[jobs.Job] = []
            for pipeline in pipelines.listing(db, [spec.project], spec.name) if update else ():
                killed += jobs.kill_open(db, pipeline.pk, "all jobs killed because the pipeline was updated")
            pipelines.create(db, raw, text, update=update, reprocess=reprocess or bool(killed))
            return killed

        await self.worker.end(await self.db.write(work))

    async def _stop_jobs(self, pipeline: pipelines.Pipeline, reason: str, change: Callable[[sqlite3.Connection], None]) -> None:
        """Close a pipeline's open jobs and apply `change` in one step, then end what runs."""

        def work(db: sqlite3.Connection) -> list[jobs.Job]:
            killed = jobs.kill_open(db, pipeline.pk, reason)
            change(db)
            return killed

        await self.worker.end(await self.db.write(work))

    def _pipeline(self, message: Message) -> pipelines.Pipeline:
        return pipelines.get(self.db.reader, message.project.name or repos.DEFAULT_PROJECT, message.name)

    async def InspectPipeline(self, request: Message) -> Message:
        return self.convert.pipeline_info(self._pipeline(request.pipeline), details=request.details)

    async def ListPipeline(self, request: Message) -> AsyncIterator[Message]:
        projects = [project.name for project in request.projects]
        if request.HasField("pipeline"):
            projects = [request.pipeline.project.name or repos.DEFAULT_PROJECT]
        for pipeline in pipelines.listing(self.db.reader, projects, request.pipeline.name):
            yield self.convert.pipeline_info(pipeline, details=True)

    async def StartPipeline(self, request: Message) -> Message:
        await self.db.write(partial(pipelines.start, pipeline=self._pipeline(request.pipeline)))
        return self._empty()

    async def StopPipeline(self, request: Message) -> Message:
        pipeline = self._pipeline(request.pipeline)
        reason = "all jobs killed because the pipeline was stopped"
        await self._stop_jobs(pipeline, reason, partial(pipelines.stop, pipeline=pipeline))
        return self._empty()

    async def RerunPipeline(self, request: Message) -> Message:
        pipeline = self._pipeline(request.pipeline)
        await self._create(dict(pipeline.spec), pipeline.user_spec, update=True, reprocess=True)
        return self._empty()

    async def DeletePipeline(self, request: Message) -> Message:
        pipeline = self._pipeline(request.pipeline)
        change = partial(pipelines.delete, pipeline=pipeline, keep_repo=request.keep_repo, force=request.force)
        await self._stop_jobs(pipeline, "the pipeline was deleted", change)
        return self._empty()

    # jobs

    def _job(self, message: Message) -> jobs.Job:
        project = message.pipeline.project.name or repos.DEFAULT_PROJECT
        return jobs.get(self.db.reader, project, message.pipeline.name, message.id)

    async def _until_ended(self, job: jobs.Job) -> jobs.Job:
        async for _ in self.db.changes.watch():
            job = jobs.get(self.db.reader, job.pipeline.project, job.pipeline.name, job.id)
            if job.finished is not None:
                break
        return job

    async def InspectJob(self, request: Message) -> Message:
        job = self._job(request.job)
        if request.wait:
            job = await self._until_ended(job)
        return self.convert.job_info(job, details=request.details)

    async def ListJob(self, request: Message) -> AsyncIterator[Message]:
        pipeline = self._pipeline(request.pipeline).pk if request.HasField("pipeline") and request.pipeline.name else None
        projects = [project.name for project in request.projects] if pipeline is None else None
        for job in jobs.listing(self.db.reader, pipeline=pipeline, projects=projects):
            yield self.convert.job_info(job, details=request.details)

    async def SubscribeJob(self, request: Message) -> AsyncIterator[Message]:
        pipeline, seen = self._pipeline(request.pipeline), 0
        async for _ in self.db.changes.watch():
            for job in reversed(jobs.listing(self.db.reader, pipeline=pipeline.pk)):
                if job.pk > seen and (seen or job.finished is None):
                    yield self.convert.job_info(job, details=request.details)
                seen = max(seen, job.pk)

    async def InspectJobSet(self, request: Message) -> AsyncIterator[Message]:
        for job in reversed(jobs.listing(self.db.reader, id_=request.job_set.id)):
            yield self.convert.job_info(await self._until_ended(job) if request.wait else job, details=request.details)

    async def ListJobSet(self, request: Message) -> AsyncIterator[Message]:
        sets: dict[str, list[jobs.Job]] = {}
        for job in jobs.listing(self.db.reader, projects=[project.name for project in request.projects]):
            sets.setdefault(job.id, []).append(job)
        for id_, members in sets.items():
            info = self.schema["pps_v2.JobSetInfo"]()
            info.job_set.id = id_
            for job in reversed(members):
                info.jobs.add().CopyFrom(self.convert.job_info(job, details=request.details))
            yield info

    async def StopJob(self, request: Message) -> Message:
        job = self._job(request.job)
        if job.finished is None:
            await self.worker.stop_job(job, request.reason or "job stopped")
        return self._empty()

    async def DeleteJob(self, request: Message) -> Message:
        job = self._job(request.job)
        if job.finished is None:
            await self.worker.stop_job(job, "job deleted")
        await self.db.write(partial(jobs.delete, job=jobs.by_pk(self.db.reader, job.pk)))
        return self._empty()

    # datums and logs

    async def ListDatum(self, request: Message) -> AsyncIterator[Message]:
        job = self._job(request.job)
        for datum in jobs.datums(self.db.reader, job.pk):
            yield self.convert.datum_info(job, datum)

    async def InspectDatum(self, request: Message) -> Message:
        job = self._job(request.datum.job)
        for datum in jobs.datums(self.db.reader, job.pk):
            if datum.id == request.datum.id:
                return self.convert.datum_info(job, datum)
        raise NotFound(f"datum {request.datum.id} not found in job {job}")

    async def GetLogs(self, request: Message) -> AsyncIterator[Message]:
        wanted = request.datum.job if request.HasField("datum") and request.datum.HasField("job") else request.job
        if wanted.id:
            found = [self._job(wanted)]
        elif request.pipeline.name:
            found = list(reversed(jobs.listing(self.db.reader, pipeline=self._pipeline(request.pipeline).pk)))
        else:
            raise UserError("say whose logs: a pipeline (`pachctl logs -p NAME`) or a job (`pachctl logs -j PIPELINE@ID`)")
        for job in found:
            async for datum, line in self._lines(job, request.datum.id, follow=request.follow):
                yield self._log_message(job, datum, line)

    async def _lines(self, job: jobs.Job, datum: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """The lines of a job's logs; with `follow`, those to come as well, until the job has ended."""

        def ended() -> bool:
            return not follow or jobs.by_pk(self.db.reader, job.pk).finished is not None

        read: set[Path] = set()
        async for _ in self.db.changes.watch(poll_s=logs.POLL_S):
            over = ended()
            for name, path in self.worker.log_files(job, datum):
                if path in read:
                    continue
                read.add(path)
                # a try is over when its exit status is there, or when its job has ended
                async for line in logs.follow(path, lambda p=path: ended() or (p.parent / "exit.json").exists()):  # type: ignore[misc]
                    yield name, line
            if over:
                break
        if not datum and job.finished is not None and not read and job.reason:
            yield "", job.reason  # there was no program to say anything

    def _log_message(self, job: jobs.Job, datum: str, line: str) -> Message:
        message = self.schema["pps_v2.LogMessage"](
            project_name=job.pipeline.project, pipeline_name=job.pipeline.name, job_id=job.id, datum_id=datum, user=True
        )
        message.message = self.worker.around.redact(line)
        message.ts.FromMicroseconds(int(time.time() * 1_000_000))
        return message

    # secrets

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
