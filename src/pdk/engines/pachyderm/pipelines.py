"""Pipelines, jobs and datums of a Pachyderm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pachyderm_sdk.api import pfs, pps

from pdk.engines.pachyderm.connection import Connection, mapped_errors, moment
from pdk.engines.records import Datum, Job, LogLine, Pipeline

EVERY = -1  # versions of a pipeline, as the engine counts back
COUNTS = {"processed": "data_processed", "skipped": "data_skipped", "total": "data_total", "failed": "data_failed"}


class Pipelines(Connection):
    """The calls about pipelines, jobs and datums."""

    def pipelines(self, project: str) -> list[Pipeline]:
        """List the pipelines of a project, newest first."""
        with mapped_errors(self.address):
            return [_pipeline(info) for info in self._client.pps.list_pipeline(projects=[pfs.Project(name=project)])]

    def pipeline(self, project: str, name: str) -> Pipeline:
        """Return one pipeline."""
        with mapped_errors(self.address):
            return _pipeline(self._client.pps.inspect_pipeline(pipeline=_named(project, name), details=True))

    def create_pipeline(self, spec: Mapping[str, Any], *, update: bool = False, reprocess: bool = False) -> None:
        """Create a pipeline from a spec, field names as in pachctl's files."""
        with mapped_errors(self.address):
            self._client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec), update=update, reprocess=reprocess)

    def render(self, template: str, arguments: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the pipeline specs that a jsonnet template makes."""
        with mapped_errors(self.address):
            text = self._client.pps.render_template(template=template, args=dict(arguments)).json
        content = json.loads(text)
        return list(content) if isinstance(content, list) else [content]

    def delete_pipeline(self, project: str, name: str, *, force: bool, keep_repo: bool) -> None:
        """Remove a pipeline."""
        with mapped_errors(self.address):
            self._client.pps.delete_pipeline(pipeline=_named(project, name), force=force, keep_repo=keep_repo, must_exist=True)

    def start_pipeline(self, project: str, name: str) -> None:
        """Let a pipeline go on."""
        with mapped_errors(self.address):
            self._client.pps.start_pipeline(pipeline=_named(project, name))

    def stop_pipeline(self, project: str, name: str) -> None:
        """Pause a pipeline; its open jobs are killed."""
        with mapped_errors(self.address):
            self._client.pps.stop_pipeline(pipeline=_named(project, name))

    def create_secret(self, name: str, data: Mapping[str, str]) -> None:
        """Create a secret for pipelines."""
        with mapped_errors(self.address):
            self._client.pps.create_secret(name=name, data=dict(data))

    def jobs(self, project: str, pipeline: str | None = None) -> Iterator[Job]:
        """Give the jobs of a project or pipeline, newest first, those of a pipeline's earlier versions too."""
        with mapped_errors(self.address):
            if pipeline:
                found = self._client.pps.list_job(pipeline=_named(project, pipeline), history=EVERY)
            else:
                found = self._client.pps.list_job(projects=[pfs.Project(name=project)], history=EVERY)
            for info in found:
                yield _job(info)

    def job_set(self, id_: str) -> list[Job]:
        """List the jobs that share an ID."""
        with mapped_errors(self.address):
            return [_job(info) for info in self._client.pps.inspect_job_set(job_set=pps.JobSet(id=id_))]

    def job(self, project: str, pipeline: str, id_: str) -> Job:
        """Return one job."""
        with mapped_errors(self.address):
            return _job(self._client.pps.inspect_job(job=pps.Job(pipeline=_named(project, pipeline), id=id_)))

    def stop_job(self, project: str, pipeline: str, id_: str, reason: str) -> None:
        """Kill a job."""
        with mapped_errors(self.address):
            self._client.pps.stop_job(job=pps.Job(pipeline=_named(project, pipeline), id=id_), reason=reason)

    def datums(self, project: str, pipeline: str, id_: str) -> Iterator[Datum]:
        """Give the datums of a job."""
        with mapped_errors(self.address):
            for info in self._client.pps.list_datum(job=pps.Job(pipeline=_named(project, pipeline), id=id_)):
                files = tuple(f"{part.file.commit.repo.name}:{part.file.path}" for part in info.data)
                yield Datum(info.datum.id, id_, pps.DatumState(info.state).name.lower(), files)

    def logs(self, project: str, pipeline: str, id_: str, *, follow: bool = False) -> Iterator[LogLine]:
        """Give a job's output, line by line; with `follow`, until it has ended."""
        with mapped_errors(self.address):
            job = pps.Job(pipeline=_named(project, pipeline), id=id_)
            for message in self._client.pps.get_logs(job=job, follow=follow):
                yield LogLine(message.message, moment(message.ts))


def _named(project: str, pipeline: str) -> pps.Pipeline:
    return pps.Pipeline(name=pipeline, project=pfs.Project(name=project))


def _pipeline(info: pps.PipelineInfo) -> Pipeline:
    spec = info.effective_spec_json or info.user_spec_json
    return Pipeline(
        project=info.pipeline.project.name,
        name=info.pipeline.name,
        version=info.version,
        state=pps.PipelineState(info.state).name.removeprefix("PIPELINE_").lower(),
        last_job=pps.JobState(info.last_job_state).name.removeprefix("JOB_").lower(),
        reason=info.reason,
        spec=json.loads(spec) if spec else None,
    )


def _job(info: pps.JobInfo) -> Job:
    where = info.job.pipeline
    return Job(
        project=where.project.name,
        pipeline=where.name,
        id=info.job.id,
        state=pps.JobState(info.state).name.removeprefix("JOB_"),
        reason=info.reason,
        created=moment(info.created),
        started=moment(info.started),
        finished=moment(info.finished),
        pipeline_version=info.pipeline_version,
        datums={name: getattr(info, key) for name, key in COUNTS.items()},
    )
