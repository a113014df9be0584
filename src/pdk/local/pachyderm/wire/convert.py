"""Between protobuf messages and the service's dataclasses."""

from __future__ import annotations

import hashlib
from typing import Any

from google.protobuf import json_format

from pdk.kit.db import Connection
from pdk.local.pachyderm.rules import commits, datums, inputs, jobs, pipelines, repos, specs
from pdk.local.pachyderm.rules.model import USER, Branch, BranchRef, Commit, CommitRef, Project, Repo, RepoRef
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.wire.schema import Schema

Message = Any  # classes made at run time


def repo_ref(message: Message) -> RepoRef:
    """``pfs_v2.Repo`` → RepoRef with the engine's defaults."""
    return RepoRef(message.project.name or repos.DEFAULT_PROJECT, message.name, message.type or USER)


def branch_ref(message: Message) -> BranchRef:
    """``pfs_v2.Branch`` → BranchRef."""
    return BranchRef(repo_ref(message.repo), message.name)


def commit_ref(message: Message) -> CommitRef:
    """``pfs_v2.Commit`` → CommitRef; the repo may stand in the commit or in its branch."""
    repo = message.repo if message.repo.name else message.branch.repo
    return CommitRef(repo_ref(repo), message.id, message.branch.name)


def set_time(field: Message, seconds: float | None) -> None:
    """Fill a Timestamp; None leaves it unset."""
    if seconds is not None:
        field.FromMicroseconds(int(seconds * 1_000_000))


def to_dict(message: Message) -> dict[str, Any]:
    """Return a message as JSON with the proto's field names."""
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def shown_hash(entry: tree.Entry) -> bytes:
    """Return an entry's hash as clients see it: a small file's is that of its only chunk's hash, so that it is the engine's own."""
    return hashlib.blake2b(entry.hash, digest_size=32).digest() if entry.kind == tree.FILE and entry.size else entry.hash


class Converter:
    """Makes messages of `schema` from dataclasses, reading what they refer to from `db`."""

    def __init__(self, schema: Schema, db: Connection) -> None:
        self.schema, self.db = schema, db

    def repo(self, target: Message, ref: RepoRef) -> None:
        """Fill ``pfs_v2.Repo``."""
        target.name, target.type, target.project.name = ref.name, ref.type, ref.project

    def commit(self, target: Message, ref: CommitRef) -> None:
        """Fill ``pfs_v2.Commit``, without the branch, as the engine answers."""
        self.repo(target.repo, ref.repo)
        target.id = ref.id

    def branch(self, target: Message, ref: BranchRef) -> None:
        """Fill ``pfs_v2.Branch``."""
        self.repo(target.repo, ref.repo)
        target.name = ref.name

    def project_info(self, project: Project) -> Message:
        """``pfs_v2.ProjectInfo``."""
        info = self.schema["pfs_v2.ProjectInfo"](description=project.description)
        info.project.name = project.name
        set_time(info.created_at, project.created)
        return info

    def repo_info(self, repo: Repo, *, details: bool = False) -> Message:
        """``pfs_v2.RepoInfo``; its size is that of master's newest finished commit."""
        info = self.schema["pfs_v2.RepoInfo"](description=repo.description)
        self.repo(info.repo, repo.ref)
        size = 0
        set_time(info.created, repo.created)
        for branch in repos.list_branches(self.db, repo.ref):
            self.branch(info.branches.add(), branch.ref)
            if branch.name == "master" and branch.head is not None:
                size = commits.by_pk(self.db, branch.head).size
        if details:
            info.details.size_bytes = size
        else:
            info.size_bytes_upper_bound = size
        return info

    def branch_info(self, branch: Branch) -> Message:
        """``pfs_v2.BranchInfo``."""
        info = self.schema["pfs_v2.BranchInfo"]()
        self.branch(info.branch, branch.ref)
        if branch.head is not None:
            self.commit(info.head, commits.by_pk(self.db, branch.head).ref)
        for source in repos.upstream(self.db, branch.pk):
            self.branch(info.direct_provenance.add(), source.ref)
        for source in repos.all_upstream(self.db, branch.pk):
            self.branch(info.provenance.add(), source.ref)
        if branch.trigger:
            json_format.ParseDict(dict(branch.trigger), info.trigger)
        for below in commits.reached_from(self.db, branch):
            self.branch(info.subvenance.add(), below.ref)
        set_time(info.created_at, branch.created)
        set_time(info.updated_at, branch.created)
        return info

    def commit_info(self, commit: Commit, *, listed: bool = False) -> Message:
        """``pfs_v2.CommitInfo``; only a listing gives the size's upper bound, as the engine has it."""
        info = self.schema["pfs_v2.CommitInfo"](description=commit.description, error=commit.error)
        self.commit(info.commit, commit.ref)
        info.origin.kind = self.schema.number("pfs_v2.OriginKind", commit.origin)
        if commit.parent is not None:
            self.commit(info.parent_commit, commits.by_pk(self.db, commit.parent).ref)
        for child in commits.children(self.db, commit.pk):
            self.commit(info.child_commits.add(), child.ref)
        for source in commits.provenance(self.db, commit.pk):
            self.commit(info.direct_provenance.add(), source.ref)
        for below in commits.subvenance(self.db, commit.pk):
            self.commit(info.direct_subvenance.add(), below.ref)
        for field, seconds in ((info.started, commit.started), (info.finishing, commit.finishing), (info.finished, commit.finished)):
            set_time(field, seconds)
        set_time(info.created_at, commit.started)
        set_time(info.updated_at, commit.finished or commit.started)
        info.size_bytes_upper_bound = commit.size if listed else 0
        info.details.size_bytes = commit.size
        return info

    def file_info(self, commit: Commit, entry: tree.Entry) -> Message:
        """``pfs_v2.FileInfo``."""
        info = self.schema["pfs_v2.FileInfo"](size_bytes=entry.size, hash=shown_hash(entry))
        self.commit(info.file.commit, commit.ref)
        info.file.path = entry.path
        info.file.datum = "default" if entry.kind == tree.FILE else ""
        info.file_type = self.schema.number("pfs_v2.FileType", "FILE" if entry.kind == tree.FILE else "DIR")
        set_time(info.committed, commit.finishing)
        return info

    def pipeline_info(self, pipeline: pipelines.Pipeline, *, details: bool) -> Message:
        """``pps_v2.PipelineInfo``."""
        spec = specs.parse(pipeline.spec)
        info = self.schema["pps_v2.PipelineInfo"](version=pipeline.version, stopped=pipeline.stopped, reason=pipeline.reason)
        info.pipeline.name, info.pipeline.project.name = pipeline.name, pipeline.project
        self.repo(info.spec_commit.repo, RepoRef(pipeline.project, pipeline.name, "spec"))
        info.spec_commit.id = pipeline.spec_commit
        last = next(iter(jobs.listing(self.db, pipeline=pipeline.pk)), None)
        busy = last is not None and last.finished is None
        state = "PIPELINE_PAUSED" if pipeline.stopped else "PIPELINE_RUNNING"
        if not pipeline.stopped and pipeline.spec.get("autoscaling") and not busy:
            state = "PIPELINE_STANDBY"
        info.state = self.schema.number("pps_v2.PipelineState", state)
        info.last_job_state = self.schema.number("pps_v2.JobState", last.state) if last else 0
        info.parallelism = spec.parallelism
        info.type = self.schema.number("pps_v2.PipelineInfoPipelineType", "PIPELINE_TYPE_TRANSFORM")
        info.user_spec_json = pipeline.user_spec
        info.effective_spec_json = json_format.MessageToJson(self.request(pipeline.spec), indent=None)
        if details:
            self._shared_details(info.details, pipeline.spec)
            info.details.reprocess_spec = pipeline.spec.get("reprocess_spec") or "until_success"
            info.details.output_branch = spec.output_branch
            info.details.description = pipeline.spec.get("description", "")
            info.details.workers_requested = info.details.workers_available = spec.parallelism
            info.details.salt = pipeline.salt
            info.details.autoscaling = bool(pipeline.spec.get("autoscaling"))
            set_time(info.details.created_at, pipeline.created)
            set_time(info.details.updated_at, pipeline.updated)
        return info

    def request(self, spec: Any) -> Message:
        """``pps_v2.CreatePipelineRequest`` of a stored spec."""
        return json_format.ParseDict(spec, self.schema["pps_v2.CreatePipelineRequest"]())

    def _shared_details(self, target: Message, spec: Any) -> None:
        request = self.request(spec)
        for name in (
            "transform",
            "input",
            "parallelism_spec",
            "egress",
            "datum_set_spec",
            "resource_requests",
            "resource_limits",
            "datum_timeout",
            "job_timeout",
        ):
            if request.HasField(name):
                getattr(target, name).CopyFrom(getattr(request, name))
        target.datum_tries = request.datum_tries or 3
        target.pod_patch, target.pod_spec, target.salt = request.pod_patch, request.pod_spec, request.salt

    def job_info(self, job: jobs.Job, *, details: bool) -> Message:
        """``pps_v2.JobInfo``."""
        info = self.schema["pps_v2.JobInfo"](
            pipeline_version=job.version, restart=job.restart, reason=job.reason, data_total=job.data_total, data_failed=job.data_failed,
            data_processed=job.data_processed, data_skipped=job.data_skipped, data_recovered=job.data_recovered,
        )  # fmt: skip
        info.job.id = job.id
        info.job.pipeline.name, info.job.pipeline.project.name = job.pipeline.name, job.pipeline.project
        self.commit(info.output_commit, job.commit.ref)
        self._stats(info.stats, job)
        info.state = self.schema.number("pps_v2.JobState", job.state)
        set_time(info.created, job.created)
        set_time(info.started, job.started)
        set_time(info.finished, job.finished)
        if details:
            self._shared_details(info.details, job.spec)
            _set_commits(info.details.input, job.id)
        return info

    def _stats(self, target: Message, measured: jobs.Job | datums.Datum) -> None:
        target.SetInParent()
        for name in ("download", "process", "upload"):
            getattr(target, f"{name}_time").FromMicroseconds(int(getattr(measured, f"{name}_s") * 1_000_000))
        target.download_bytes, target.upload_bytes = measured.download_bytes, measured.upload_bytes

    def datum_info(self, job: jobs.Job, datum: datums.Datum) -> Message:
        """``pps_v2.DatumInfo``."""
        info = self.schema["pps_v2.DatumInfo"]()
        info.datum.id, info.datum.job.id = datum.id, job.id
        info.datum.job.pipeline.name, info.datum.job.pipeline.project.name = job.pipeline.name, job.pipeline.project
        info.state = self.schema.number("pps_v2.DatumState", datum.state)
        self._stats(info.stats, datum)
        self.commit(info.pfs_state.commit, job.commit.ref)
        info.pfs_state.path = f"/pfs/{datum.id}"
        self.datum_files(info, datum.inputs)
        return info

    def datum_files(self, info: Message, parts: inputs.Parts) -> None:
        """Fill ``pps_v2.DatumInfo.data``."""
        for part in parts:
            kind = tree.FOLDER if part.path.endswith("/") else tree.FILE
            entry = tree.Entry(part.path, kind, part.size, bytes.fromhex(part.hash))
            info.data.add().CopyFrom(self.file_info(commits.by_pk(self.db, part.commit), entry))


def _set_commits(source: Message, id_: str) -> None:
    """Say in an input which commit was read: the one with the job's ID."""
    for kind in ("pfs", "cron"):
        if source.HasField(kind):
            getattr(source, kind).commit = id_
    for kind in ("cross", "union", "join", "group"):
        for part in getattr(source, kind):
            _set_commits(part, id_)
