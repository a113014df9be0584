"""Everything that the command line asks of a Pachyderm, beyond what the flow needs; the engine's own words, as plain dicts."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pachyderm_sdk.api import pfs, pps

from pdk.engines.pachyderm import PART, Pachyderm, mapped_errors
from pdk.errors import UserError

Row = dict[str, Any]
TARGET = re.compile(r"(?P<repo>[^@:]+)(?:@(?P<commit>[^:=]+)(?:=(?P<id>[0-9a-f]{32}))?)?(?::(?P<path>.*))?")
COMMIT_ID = re.compile(r"[0-9a-f]{32}")


class Place:
    """``REPO[@BRANCH-OR-COMMIT][:PATH]`` as pachctl reads it.

    Raises:
        UserError: it is none.
    """

    def __init__(self, text: str, project: str) -> None:
        match = TARGET.fullmatch(text)
        if match is None:
            raise UserError(f"{text!r}: REPO@BRANCH:/PATH is expected")
        name, _, kind = match["repo"].partition(".")
        self.repo = pfs.Repo(name=name, type=kind or "user", project=pfs.Project(name=project))
        self.spelled, self.path = match["commit"] or "", match["path"] or "/"

    @property
    def branch(self) -> pfs.Branch:
        """The branch."""
        if not self.spelled:
            raise UserError(f"{self.repo.name!r}: REPO@BRANCH is expected")
        return pfs.Branch(repo=self.repo, name=self.spelled)

    @property
    def commit(self) -> pfs.Commit:
        """The commit: an ID, a branch's head, or either with ancestry."""
        if not self.spelled:
            raise UserError(f"{self.repo.name!r}: REPO@BRANCH or REPO@COMMIT is expected")
        if COMMIT_ID.fullmatch(self.spelled[:32]) or re.search(r"[\^~.]", self.spelled):
            return pfs.Commit(repo=self.repo, id=self.spelled)
        return pfs.Commit(repo=self.repo, branch=self.branch)

    @property
    def file(self) -> pfs.File:
        """The file."""
        return pfs.File(commit=self.commit, path=self.path)


def _time(value: Any) -> str | None:
    return value.isoformat(timespec="seconds") if value and value.year > 1970 else None


def _commit_row(info: pfs.CommitInfo) -> Row:
    return {
        "repo": info.commit.repo.name,
        "commit": info.commit.id,
        "origin": pfs.OriginKind(info.origin.kind).name,
        "started": _time(info.started),
        "finished": _time(info.finished),
        "size": info.details.size_bytes if info.details else 0,
        "description": info.description,
        "error": info.error.partition("\n")[0],
    }


def _file_row(info: pfs.FileInfo) -> Row:
    return {"path": info.file.path, "type": pfs.FileType(info.file_type).name.lower(), "size": info.size_bytes, "hash": info.hash.hex()}


class Versioned(Pachyderm):
    """One Pachyderm, for people."""

    # projects, repos, branches

    def projects(self) -> list[Row]:
        """All projects."""
        with mapped_errors(self.address):
            found = self._client.pfs.list_project()
            return [{"project": i.project.name, "created": _time(i.created_at), "description": i.description} for i in found]

    def project(self, name: str) -> Row:
        """One project."""
        with mapped_errors(self.address):
            info = self._client.pfs.inspect_project(project=pfs.Project(name=name))
        return {"project": info.project.name, "created": _time(info.created_at), "description": info.description}

    def delete_project(self, name: str, *, force: bool) -> None:
        """Remove a project."""
        with mapped_errors(self.address):
            self._client.pfs.delete_project(project=pfs.Project(name=name), force=force)

    def repos(self, project: str) -> list[Row]:
        """The repos of a project."""
        with mapped_errors(self.address):
            found = self._client.pfs.list_repo(type="user", projects=[pfs.Project(name=project)])
            return [
                {"repo": i.repo.name, "created": _time(i.created), "size": i.size_bytes_upper_bound, "description": i.description}
                for i in found
            ]

    def repo(self, project: str, name: str) -> Row:
        """One repo."""
        with mapped_errors(self.address):
            info = self._client.pfs.inspect_repo(repo=Place(name, project).repo)
        branches = ", ".join(branch.name for branch in info.branches)
        size = info.details.size_bytes
        return {"repo": name, "created": _time(info.created), "size": size, "branches": branches, "description": info.description}

    def delete_repo(self, project: str, name: str, *, force: bool) -> None:
        """Remove a repo."""
        with mapped_errors(self.address):
            self._client.pfs.delete_repo(repo=Place(name, project).repo, force=force)

    def create_branch(self, project: str, name: str, head: str, trigger: Mapping[str, Any] | None) -> None:
        """Make or move a branch."""
        branch, commit = Place(name, project).branch, Place(f"{name.partition('@')[0]}@{head}", project).commit if head else None
        with mapped_errors(self.address):
            self._client.pfs.create_branch(branch=branch, head=commit, trigger=pfs.Trigger(**trigger) if trigger else None)

    def branches(self, project: str, repo: str) -> list[Row]:
        """The branches of a repo."""
        with mapped_errors(self.address):
            return [self._branch_row(info) for info in self._client.pfs.list_branch(repo=Place(repo, project).repo)]

    def branch(self, project: str, name: str) -> Row:
        """One branch."""
        with mapped_errors(self.address):
            return self._branch_row(self._client.pfs.inspect_branch(branch=Place(name, project).branch))

    def _branch_row(self, info: pfs.BranchInfo) -> Row:
        sources = ", ".join(f"{source.repo.name}@{source.name}" for source in info.direct_provenance)
        follows = info.trigger.branch if info.trigger else ""
        return {"branch": info.branch.name, "head": info.head.id if info.head else None, "computed from": sources, "follows": follows}

    def delete_branch(self, project: str, name: str, *, force: bool) -> None:
        """Remove a branch."""
        with mapped_errors(self.address):
            self._client.pfs.delete_branch(branch=Place(name, project).branch, force=force)

    # commits

    def start_commit(self, project: str, branch: str, description: str) -> str:
        """Open a commit; its ID."""
        with mapped_errors(self.address):
            return str(self._client.pfs.start_commit(branch=Place(branch, project).branch, description=description).id)

    def finish_commit(self, project: str, commit: str, description: str) -> None:
        """Close a commit."""
        with mapped_errors(self.address):
            self._client.pfs.finish_commit(commit=Place(commit, project).commit, description=description)

    def commits(self, project: str, target: str, number: int) -> list[Row]:
        """The commits of a repo, or of a branch's line, newest first."""
        place = Place(target, project)
        with mapped_errors(self.address):
            to = place.commit if place.spelled else None
            return [_commit_row(info) for info in self._client.pfs.list_commit(repo=place.repo, to=to, number=number)]

    def commit_row(self, project: str, commit: str, *, wait: bool) -> Row:
        """One commit."""
        state = pfs.CommitState.FINISHED if wait else None
        with mapped_errors(self.address):
            return _commit_row(self._client.pfs.inspect_commit(commit=Place(commit, project).commit, wait=state))

    def commit_set(self, id_: str) -> list[Row]:
        """All commits that share an ID."""
        with mapped_errors(self.address):
            return [_commit_row(info) for info in self._client.pfs.inspect_commit_set(commit_set=pfs.CommitSet(id=id_))]

    def squash(self, id_: str) -> None:
        """Take the commits with an ID out of history."""
        with mapped_errors(self.address):
            self._client.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=id_))

    def drop(self, id_: str) -> None:
        """Remove the newest commits, those with an ID, and what they changed."""
        with mapped_errors(self.address):
            self._client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=id_))

    # files

    def files(self, project: str, target: str) -> list[Row]:
        """The entries of a folder."""
        with mapped_errors(self.address):
            return [_file_row(info) for info in self._client.pfs.list_file(file=Place(target, project).file)]

    def glob(self, project: str, target: str) -> list[Row]:
        """The files that match a pattern."""
        place = Place(target, project)
        with mapped_errors(self.address):
            return [_file_row(info) for info in self._client.pfs.glob_file(commit=place.commit, pattern=place.path)]

    def file_row(self, project: str, target: str) -> Row:
        """One file."""
        with mapped_errors(self.address):
            return _file_row(self._client.pfs.inspect_file(file=Place(target, project).file))

    def content(self, project: str, target: str) -> Iterator[bytes]:
        """A file's content."""
        with mapped_errors(self.address), self._client.pfs.pfs_file(file=Place(target, project).file) as source:
            while part := source.read(PART):
                yield part

    def archive(self, project: str, target: str) -> Iterator[tuple[str, int, Iterable[bytes]]]:
        """Every file below a folder: path in the repo, size, content."""
        with mapped_errors(self.address):
            parts = self._client.pfs.get_file_tar(file=Place(target, project).file)
            with tarfile.open(fileobj=_Stream(part.value for part in parts), mode="r|") as archive:
                for member in archive:
                    if member.isfile() and (file := archive.extractfile(member)):
                        yield member.name, member.size, iter(lambda file=file: file.read(PART), b"")  # type: ignore[misc]

    def copy_file(self, project: str, source: str, target: str, *, append: bool) -> None:
        """Copy a file or folder, in a commit of its own or in the branch's open one."""
        origin, place = Place(source, project), Place(target, project)

        def requests() -> Iterator[Any]:
            yield pfs.ModifyFileRequest(set_commit=place.commit)
            yield pfs.ModifyFileRequest(copy_file=pfs.CopyFile(dst=place.path, src=origin.file, append=append))

        with mapped_errors(self.address):
            self._client.pfs.modify_file(requests())

    def delete_file(self, project: str, target: str, *, recursive: bool) -> None:
        """Remove a file, or with `recursive` a folder."""
        place = Place(target, project)
        path = place.path.rstrip("/") + "/" if recursive else place.path

        def requests() -> Iterator[Any]:
            yield pfs.ModifyFileRequest(set_commit=place.commit)
            yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))

        with mapped_errors(self.address):
            self._client.pfs.modify_file(requests())

    def diff(self, project: str, new: str, old: str) -> list[Row]:
        """Files that differ between two places, or between a commit and its parent."""
        rows = []
        with mapped_errors(self.address):
            before = Place(old, project).file if old else None
            for change in self._client.pfs.diff_file(new_file=Place(new, project).file, old_file=before):
                was, now = (side if side and side.file else None for side in (change.old_file, change.new_file))
                kind = "changed" if was and now else "added" if now else "deleted"
                info = now or was
                if info is not None and info.file_type == pfs.FileType.FILE:
                    rows.append({"change": kind, "path": info.file.path, "old": was and was.size_bytes, "new": now and now.size_bytes})
        return rows

    # pipelines and jobs

    def pipelines(self, project: str) -> list[Row]:
        """The pipelines of a project."""
        with mapped_errors(self.address):
            return [self._pipeline_row(info) for info in self._client.pps.list_pipeline(projects=[pfs.Project(name=project)])]

    def _pipeline_row(self, info: pps.PipelineInfo) -> Row:
        return {
            "pipeline": info.pipeline.name,
            "version": info.version,
            "state": pps.PipelineState(info.state).name.removeprefix("PIPELINE_").lower(),
            "last job": pps.JobState(info.last_job_state).name.removeprefix("JOB_").lower(),
            "reason": info.reason.partition("\n")[0],
        }

    def pipeline_row(self, project: str, name: str) -> Row:
        """One pipeline with its spec."""
        with mapped_errors(self.address):
            info = self._client.pps.inspect_pipeline(pipeline=self._pipeline(project, name), details=True)
        return {**self._pipeline_row(info), "spec": info.effective_spec_json or info.user_spec_json}

    def delete_pipeline(self, project: str, name: str, *, force: bool, keep_repo: bool) -> None:
        """Remove a pipeline."""
        with mapped_errors(self.address):
            pipeline = self._pipeline(project, name)
            self._client.pps.delete_pipeline(pipeline=pipeline, force=force, keep_repo=keep_repo, must_exist=True)

    def start_pipeline(self, project: str, name: str) -> None:
        """Let a pipeline go on."""
        with mapped_errors(self.address):
            self._client.pps.start_pipeline(pipeline=self._pipeline(project, name))

    def stop_pipeline(self, project: str, name: str) -> None:
        """Pause a pipeline; its open jobs are killed."""
        with mapped_errors(self.address):
            self._client.pps.stop_pipeline(pipeline=self._pipeline(project, name))

    def stop_job(self, project: str, pipeline: str, id_: str, reason: str) -> None:
        """Kill a job."""
        with mapped_errors(self.address):
            self._client.pps.stop_job(job=pps.Job(pipeline=self._pipeline(project, pipeline), id=id_), reason=reason)

    def datums(self, project: str, pipeline: str, id_: str) -> list[Row]:
        """The datums of a job."""
        with mapped_errors(self.address):
            found = self._client.pps.list_datum(job=pps.Job(pipeline=self._pipeline(project, pipeline), id=id_))
            return [
                {
                    "datum": info.datum.id,
                    "state": pps.DatumState(info.state).name.lower(),
                    "files": ", ".join(f"{part.file.commit.repo.name}:{part.file.path}" for part in info.data),
                }
                for info in found
            ]


class _Stream(io.RawIOBase):
    """An iterator of bytes as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts, self.rest = parts, b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes."""
        while not self.rest:
            part = next(self.parts, None)
            if part is None:
                return 0
            self.rest = part
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count


def save(members: Iterable[tuple[str, int, Iterable[bytes]]], folder: Path, prefix: str) -> Iterator[int]:
    """Write an archive's files below `folder`, their paths taken from below `prefix`; yields bytes written.

    Raises:
        UserError: a path leads out of the folder.
    """
    root = folder.resolve()
    for name, _size, content in members:
        relative = "/" + name.lstrip("/")
        relative = relative.removeprefix(prefix.rstrip("/")) or "/" + relative.rsplit("/", 1)[-1]
        target = root / relative.lstrip("/")
        if not target.resolve().is_relative_to(root):
            raise UserError(f"the file {name!r} would be written outside {folder}; nothing was written for it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            for part in content:
                file.write(part)
                yield len(part)
