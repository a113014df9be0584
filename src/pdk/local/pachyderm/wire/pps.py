"""The methods of ``pps_v2.API`` about pipelines, jobs and datums."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

from google.protobuf import json_format

from pdk.errors import NotFound, UserError
from pdk.kit.db import Connection, Database
from pdk.local.pachyderm.rules import commits, datums, inputs, jobs, pipelines, repos, specs, templates
from pdk.local.pachyderm.rules.model import CommitRef, Refused
from pdk.local.pachyderm.runtime.worker import Worker
from pdk.local.pachyderm.wire import filters
from pdk.local.pachyderm.wire.convert import Converter, Message, commit_ref, to_dict
from pdk.local.pachyderm.wire.schema import Schema

MERGE_FIELDS = ("update", "reprocess")  # of a spec; they override the request's


def find_job(db: Connection, message: Message) -> jobs.Job:
    """Return the job that a ``pps_v2.Job`` names.

    Raises:
        NotFound: in the engine's words.
    """
    return jobs.get(db, message.pipeline.project.name or repos.DEFAULT_PROJECT, message.pipeline.name, message.id)


class Pps:
    """Pipelines, jobs and datums."""

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
            raise UserError(
                f"could not make effective spec: could not parse the spec as Create Pipeline Request message: {what}"
            ) from error
        update, reprocess = spec.update or request.update, spec.reprocess or request.reprocess
        for name in MERGE_FIELDS:
            spec.ClearField(name)
        raw = specs.with_defaults(to_dict(spec))
        project = spec.pipeline.project.name or repos.DEFAULT_PROJECT
        try:
            repos.project(self.db.reader, project)
        except NotFound as error:
            raise UserError(f"could not make effective spec: could not get defaults for project {project}: {error}") from error
        if not request.dry_run:
            await self._create(raw, text, update=update, reprocess=reprocess)
        answer = json_format.MessageToJson(self.convert.request(raw), indent=None)
        return self.schema["pps_v2.CreatePipelineV2Response"](effective_create_pipeline_request_json=answer)

    async def CreatePipeline(self, request: Message) -> Message:
        update, reprocess = request.update, request.reprocess
        for name in MERGE_FIELDS:
            request.ClearField(name)
        if not request.dry_run:
            raw, text = specs.with_defaults(to_dict(request)), json_format.MessageToJson(request, indent=None)
            await self._create(raw, text, update=update, reprocess=reprocess)
        return self._empty()

    async def _create(self, raw: dict[str, Any], text: str, *, update: bool, reprocess: bool) -> None:
        spec = specs.parse(raw)
        if spec.egress:
            self.worker.around.reach.target(spec.egress)

        def work(db: Connection) -> list[jobs.Job]:
            killed: list[jobs.Job] = []
            for pipeline in pipelines.listing(db, [spec.project], spec.name) if update else ():
                killed += jobs.kill_open(db, "all jobs killed because pipeline was updated", pipeline=pipeline.pk)
            pipelines.create(db, raw, text, update=update, reprocess=reprocess)
            return killed

        await self.worker.end(await self.db.write(work))

    async def _stop_jobs(self, pipeline: pipelines.Pipeline, reason: str, change: Callable[[Connection], None]) -> None:
        """Close a pipeline's open jobs and apply `change` in one step, then end what runs."""

        def work(db: Connection) -> list[jobs.Job]:
            killed = jobs.kill_open(db, reason, pipeline=pipeline.pk)
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
        if request.HasField("pipeline"):
            self._pipeline(request.pipeline)
        found = pipelines.listing(self.db.reader, projects, request.pipeline.name)
        for info in await filters.passing(request.jq_filter, [self.convert.pipeline_info(pipeline, details=True) for pipeline in found]):
            yield info

    async def StartPipeline(self, request: Message) -> Message:
        await self.db.write(partial(pipelines.start, pipeline=self._pipeline(request.pipeline)))
        return self._empty()

    async def StopPipeline(self, request: Message) -> Message:
        pipeline = self._pipeline(request.pipeline)
        reason = "all jobs killed because pipeline was stopped"
        await self._stop_jobs(pipeline, reason, partial(pipelines.stop, pipeline=pipeline))
        return self._empty()

    async def RerunPipeline(self, request: Message) -> Message:
        pipeline = self._pipeline(request.pipeline)
        await self._create(dict(pipeline.spec), pipeline.user_spec, update=True, reprocess=request.reprocess)
        return self._empty()

    async def RunPipeline(self, request: Message) -> Message:
        raise Refused("unimplemented: RunPipeline is not offered by the engine either; use `rerun pipeline` or commit to its input")

    async def RunCron(self, request: Message) -> Message:
        pipeline, now = self._pipeline(request.pipeline), time.time()
        names = [leaf.name for leaf in specs.parse(pipeline.spec).leaves if leaf.cron]
        if not names:
            raise Refused("pipeline doesn't have a cron input")
        for name in names:
            await self.db.write(partial(pipelines.tick, pipeline=pipeline, name=name, when=now))
        return self._empty()

    async def _delete(self, pipeline: pipelines.Pipeline, *, keep_repo: bool, force: bool) -> None:
        change = partial(pipelines.delete, pipeline=pipeline, keep_repo=keep_repo, force=force)
        await self._stop_jobs(pipeline, "all jobs killed because pipeline was stopped", change)

    async def DeletePipeline(self, request: Message) -> Message:
        try:
            pipeline = self._pipeline(request.pipeline)
        except NotFound:
            if request.must_exist:
                raise
            return self._empty()
        await self._delete(pipeline, keep_repo=request.keep_repo, force=request.force)
        return self._empty()

    async def DeletePipelines(self, request: Message) -> Message:
        """Return all pipelines of some projects, or of all: those first that nothing reads."""
        answer = self.schema["pps_v2.DeletePipelinesResponse"]()
        projects = [project.name for project in request.projects]
        if not projects and not request.all:
            return answer
        while found := pipelines.listing(self.db.reader, projects):
            free = [pipeline for pipeline in found if not pipelines.readers(self.db.reader, pipeline)]
            for pipeline in free or found[:1]:
                await self._delete(pipeline, keep_repo=request.keep_repo, force=request.force)
                named = answer.pipelines.add()
                named.name, named.project.name = pipeline.name, pipeline.project
        return answer

    async def RenderTemplate(self, request: Message) -> Message:
        text, found = await asyncio.to_thread(templates.render, request.template, dict(request.args))
        answer = self.schema["pps_v2.RenderTemplateResponse"](json=text)
        for spec in found:
            json_format.ParseDict(spec, answer.specs.add(), ignore_unknown_fields=True)
        return answer

    # jobs

    def _job(self, message: Message) -> jobs.Job:
        return find_job(self.db.reader, message)

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
        pipeline = self._pipeline(request.pipeline) if request.HasField("pipeline") and request.pipeline.name else None
        projects = [project.name for project in request.projects] if pipeline is None else None
        found = jobs.listing(self.db.reader, pipeline=pipeline.pk if pipeline else None, projects=projects)
        found = [job for job in found if _in_history(job, request.history) and self._reads(job, request.input_commit)]
        infos = [self.convert.job_info(job, details=request.details) for job in _from_marker(found, request)]
        for info in (await filters.passing(request.jq_filter, infos))[: request.number or None]:
            yield info

    def _reads(self, job: jobs.Job, wanted: Iterable[Message]) -> bool:
        """Return whether a job reads all of some commits."""
        read = {source.pk for source in commits.provenance(self.db.reader, job.commit.pk)}
        return all(commits.resolve(self.db.reader, commit_ref(commit)).pk in read for commit in wanted)

    async def SubscribeJob(self, request: Message) -> AsyncIterator[Message]:
        pipeline, seen = self._pipeline(request.pipeline), 0
        async for _ in self.db.changes.watch():
            for job in reversed(jobs.listing(self.db.reader, pipeline=pipeline.pk, after=seen, unfinished=not seen)):
                seen = job.pk
                yield self.convert.job_info(job, details=request.details)

    async def InspectJobSet(self, request: Message) -> AsyncIterator[Message]:
        for job in reversed(jobs.listing(self.db.reader, id_=request.job_set.id)):
            yield self.convert.job_info(await self._until_ended(job) if request.wait else job, details=request.details)

    async def ListJobSet(self, request: Message) -> AsyncIterator[Message]:
        if request.number < 0:
            raise Refused("number must be non-negative")
        sets: dict[str, list[jobs.Job]] = {}
        for job in _from_marker(jobs.listing(self.db.reader, projects=[project.name for project in request.projects]), request):
            sets.setdefault(job.id, []).append(job)
        sent = 0
        for id_, members in sets.items():
            infos = [self.convert.job_info(job, details=request.details) for job in sorted(members, key=lambda job: job.pk)]
            if passing := await filters.passing(request.jq_filter, infos):
                yield self.schema["pps_v2.JobSetInfo"](job_set=self.schema["pps_v2.JobSet"](id=id_), jobs=passing)
                sent += 1
            if request.number and sent == request.number:
                return

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

    # datums

    async def ListDatum(self, request: Message) -> AsyncIterator[Message]:
        if request.HasField("job") and request.HasField("input"):
            raise Refused("cannot specify both job and input")
        if request.reverse and not request.number:
            raise Refused("number must be > 0 when reverse is set")
        if request.HasField("input"):
            for info in self._datums_of_input(request):
                yield info
            return
        if not request.HasField("job"):
            raise Refused("must specify a job")
        job = self._job(request.job)
        states = {self.schema.member("pps_v2.DatumState", state) for state in request.filter.state}
        found = [datum for datum in datums.listing(self.db.reader, job.pk) if datum.state in states or not states]
        if marker := request.pagination_marker:
            found = [datum for datum in found if (datum.id < marker if request.reverse else datum.id > marker)]
        if request.number:
            found = found[-request.number :][::-1] if request.reverse else found[: request.number]
        for datum in found:
            yield self.convert.datum_info(job, datum)

    def _datums_of_input(self, request: Message) -> list[Message]:
        """Return the datums that a spec's input would be cut into now."""
        source = inputs.parse(to_dict(request.input), "", repos.DEFAULT_PROJECT)
        if any(leaf.cron for leaf in inputs.leaves(source)):
            raise Refused("can't list datums with a cron input, there will be no datums until the pipeline is created")
        read = {leaf.repo: commits.resolve(self.db.reader, CommitRef(leaf.repo, branch=leaf.branch)) for leaf in inputs.leaves(source)}
        found = []
        for parts in datums.cut(self.db.reader, source, read):
            info = self.schema["pps_v2.DatumInfo"]()
            info.datum.id = inputs.datum_id(parts)
            self.convert.datum_files(info, parts)
            found.append(info)
        return sorted(found, key=lambda info: str(info.datum.id))[: request.number or None]

    async def InspectDatum(self, request: Message) -> Message:
        if not request.datum.id:
            raise Refused("must specify a datum")
        if not request.datum.job.id:
            raise Refused("must specify a job")
        job = self._job(request.datum.job)
        datum = datums.get(self.db.reader, job.pk, request.datum.id)
        if datum is None:
            raise Refused(f"datum {request.datum.id} not found in job {job}")
        return self.convert.datum_info(job, datum)

    async def RestartDatum(self, request: Message) -> Message:
        job, wanted = self._job(request.job), list(request.data_filters)
        for datum in datums.listing(self.db.reader, job.pk):
            if datum.state == "STARTING" and matches(datum, wanted) and await self.worker.restart_datum(job, datum.id):
                return self._empty()
        raise Refused(f"datum matching filter [{' '.join(wanted)}] could not be found for job ID {job.id}")


def _from_marker(found: list[jobs.Job], request: Message) -> list[jobs.Job]:
    """Jobs (newest first) in the order that a request asks for, from behind its marker on."""
    if request.HasField("pagination_marker"):
        marker = request.pagination_marker.ToMicroseconds()
        found = [job for job in found if (int(job.created * 1e6) > marker if request.reverse else int(job.created * 1e6) < marker)]
    return found[::-1] if request.reverse else found


def _in_history(job: jobs.Job, history: int) -> bool:
    """Return whether a job is of one of the pipeline's last versions."""
    return history < 0 or job.version >= job.pipeline.version - history


def matches(datum: datums.Datum, filters: Iterable[str]) -> bool:
    """Return whether every filter is the path or the hash of some input."""
    names = {name for part in datum.inputs for name in (part.path, part.hash, base64.b64encode(bytes.fromhex(part.hash)).decode())}
    return all(wanted in names for wanted in filters)
