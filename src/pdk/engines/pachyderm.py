"""Pachyderm, as the flow sees it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import auth, pfs, pps
from pachyderm_sdk.errors import AuthServiceNotActivated

from pdk.errors import AuthError, Conflict, EngineError, NotFound, PdkError, TemporaryError, UserError

CODES: dict[grpc.StatusCode, type[PdkError]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.INVALID_ARGUMENT: UserError,
    grpc.StatusCode.UNAUTHENTICATED: AuthError,
    grpc.StatusCode.PERMISSION_DENIED: AuthError,
    grpc.StatusCode.UNAVAILABLE: TemporaryError,
}
PART = 1 << 20  # bytes of a file that travel in one message
TOKEN_S = 24 * 3600  # life of the token that an experiment reads its data with: no training takes longer


@dataclass(frozen=True)
class DataCommit:
    """A commit of a repo; `content` is the hash of everything in it, the same for the same files."""

    project: str
    repo: str
    id: str
    content: str
    parent: str | None = None


@dataclass(frozen=True)
class Difference:
    """What changed between two commits: paths of files."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]


@contextlib.contextmanager
def mapped_errors(address: str) -> Iterator[None]:
    """Vendor errors stop here."""
    try:
        yield
    except grpc.RpcError as error:
        raise _mapped(error, address) from error
    except ConnectionError as error:  # what the SDK makes of an engine that is away
        raise _away(address, str(error).strip()) from error
    except ValueError as error:  # what it makes of any error at the beginning of a file
        if not isinstance(error.__cause__, grpc.RpcError):
            raise
        raise _mapped(error.__cause__, address) from error


def _mapped(error: grpc.RpcError, address: str) -> PdkError:
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    text = error.details() if isinstance(error, grpc.Call) else str(error)
    kind = CODES.get(code, EngineError)
    return _away(address, text) if kind is TemporaryError else kind(f"Pachyderm at {address}: {text}")


def _away(address: str, text: str) -> TemporaryError:
    return TemporaryError(f"Pachyderm at {address} does not answer ({text}); is it running, and is the address right?")


@dataclass(frozen=True)
class Job:
    """A job of a pipeline; state and reason are the engine's words."""

    project: str
    pipeline: str
    id: str
    state: str
    reason: str
    started: datetime | None
    finished: datetime | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("SUCCESS", "FAILURE", "KILLED", "UNRUNNABLE")


class Pachyderm:
    """One Pachyderm.

    Args:
        host: its host name.
        port: its gRPC port.
        token: a session token, where it has authentication.
    """

    def __init__(self, host: str, port: int, token: str = "") -> None:
        self.address, self.token = f"{host}:{port}", token
        self.host, self.port = host, port
        self._client = Client(host=host, port=port, auth_token=token or None)

    def _commit(self, project: str, repo: str, id_: str) -> pfs.Commit:
        return pfs.Commit(repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name=project)), id=id_)

    def version(self) -> str:
        """The server's version."""
        with mapped_errors(self.address):
            found = self._client.get_version()
        return f"{found.major}.{found.minor}.{found.micro}"

    def count_repos(self) -> int:
        """How many repos this token may see."""
        with mapped_errors(self.address):
            return sum(1 for _ in self._client.pfs.list_repo(type="user"))

    def commit(self, project: str, repo: str, id_: str) -> DataCommit:
        """A finished commit with the hash of its content.

        Raises:
            NotFound: no such repo or commit.
        """
        with mapped_errors(self.address):
            info = self._client.pfs.inspect_commit(commit=self._commit(project, repo, id_), wait=pfs.CommitState.FINISHED)
            root = self._client.pfs.inspect_file(file=pfs.File(commit=info.commit, path="/"))
        parent = info.parent_commit.id if info.parent_commit else None
        return DataCommit(project, repo, info.commit.id, root.hash.hex(), parent or None)

    def ancestors(self, commit: DataCommit) -> Iterator[str]:
        """IDs of the commit's parents, nearest first."""
        parent = commit.parent
        while parent:
            yield parent
            with mapped_errors(self.address):
                info = self._client.pfs.inspect_commit(commit=self._commit(commit.project, commit.repo, parent))
            parent = info.parent_commit.id if info.parent_commit else None

    def difference(self, commit: DataCommit, since: str) -> Difference:
        """What changed in `commit` since an earlier one of the same repo."""
        added: list[str] = []
        changed: list[str] = []
        deleted: list[str] = []
        with mapped_errors(self.address):
            new = pfs.File(commit=self._commit(commit.project, commit.repo, commit.id), path="/")
            old = pfs.File(commit=self._commit(commit.project, commit.repo, since), path="/")
            for change in self._client.pfs.diff_file(new_file=new, old_file=old):
                before, now = change.old_file, change.new_file
                has_before, has_now = bool(before and before.file), bool(now and now.file)
                if (now if has_now else before).file_type != pfs.FileType.FILE:
                    continue
                path = (now if has_now else before).file.path
                (changed if has_before and has_now else added if has_now else deleted).append(path)
        return Difference(tuple(added), tuple(changed), tuple(deleted))

    def reader_token(self, project: str, repo: str, robot: str) -> str:
        """A short-lived token that can read one repo and nothing else; what was given where the engine has no authentication."""
        with mapped_errors(self.address):
            try:
                self._client.auth.who_am_i()
            except AuthServiceNotActivated:
                return self.token
            token = self._client.auth.get_robot_token(robot=robot, ttl=TOKEN_S).token
            resource = auth.Resource(type=auth.ResourceType.REPO, name=f"{project}/{repo}")
            self._client.auth.modify_role_binding(resource=resource, principal=f"robot:{robot}", roles=["repoReader"])
            return str(token)

    def ensure_repo(self, project: str, repo: str, description: str) -> None:
        """Create a repo where it is missing."""
        target = pfs.Repo(name=repo, type="user", project=pfs.Project(name=project))
        try:
            with mapped_errors(self.address):
                self._client.pfs.create_repo(repo=target, description=description)
        except Conflict:
            return

    def head(self, project: str, repo: str, branch: str) -> str | None:
        """ID of a branch's newest finished commit; None where there is none."""
        target = pfs.Branch(repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name=project)), name=branch)
        try:
            with mapped_errors(self.address):
                head = self._client.pfs.inspect_branch(branch=target).head
                info = self._client.pfs.inspect_commit(commit=head) if head and head.id else None
        except NotFound:
            return None
        return str(info.commit.id) if info and info.finished else None

    def read(self, project: str, repo: str, id_: str, path: str) -> bytes | None:
        """A small file of a commit; None where it is missing."""
        file = pfs.File(commit=self._commit(project, repo, id_), path=path)
        try:
            with mapped_errors(self.address):
                self._client.pfs.inspect_file(file=file)
                with self._client.pfs.pfs_file(file=file) as source:
                    return bytes(source.read())
        except NotFound:
            return None

    def write(self, project: str, repo: str, branch: str, folder: str, files: Mapping[str, bytes]) -> str:
        """Replace `folder` by `files` (path below it → content) in one commit; returns the ID of a finished commit that holds them.

        One request makes, fills and finishes the commit: whatever happens to this process, none is left open.
        """
        target = pfs.Branch(repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name=project)), name=branch)

        def requests() -> Iterator[Any]:
            yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=target.repo, branch=target))
            yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=f"/{folder}/"))
            for path, content in sorted(files.items()):
                for start in range(0, max(1, len(content)), PART):
                    yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=f"/{folder}/{path}", raw=content[start : start + PART]))

        with mapped_errors(self.address):
            self._client.pfs.modify_file(requests())
            head = self._client.pfs.inspect_branch(branch=target).head
            self._client.pfs.inspect_commit(commit=head, wait=pfs.CommitState.FINISHED)
        return str(head.id)

    # what the command line needs beside

    def create_project(self, name: str, description: str = "") -> None:
        """Create a project."""
        with mapped_errors(self.address):
            self._client.pfs.create_project(project=pfs.Project(name=name), description=description)

    def create_repo(self, project: str, repo: str, description: str = "") -> None:
        """Create a repo."""
        with mapped_errors(self.address):
            self._client.pfs.create_repo(repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name=project)), description=description)

    def create_pipeline(self, spec: Mapping[str, Any], *, update: bool = False, reprocess: bool = False) -> None:
        """Create a pipeline from a spec, field names as in pachctl's files."""
        with mapped_errors(self.address):
            self._client.pps.create_pipeline_v2(create_pipeline_request_json=json.dumps(spec), update=update, reprocess=reprocess)

    def create_secret(self, name: str, data: Mapping[str, str]) -> None:
        """Create a secret for pipelines."""
        with mapped_errors(self.address):
            self._client.pps.create_secret(name=name, data=dict(data))

    def put_files(
        self,
        project: str,
        repo: str,
        branch: str,
        files: Mapping[str, str | Path],
        *,
        append: bool = False,
        sent: Callable[[int], object] = int,
    ) -> str:
        """Put files (path in the repo → local file) in one commit; returns the ID of the branch's head.

        Args:
            sent: told of every so many bytes that went out.
        """
        target = pfs.Branch(repo=pfs.Repo(name=repo, type="user", project=pfs.Project(name=project)), name=branch)

        def requests() -> Iterator[Any]:
            yield pfs.ModifyFileRequest(set_commit=pfs.Commit(repo=target.repo, branch=target))
            for path, source in files.items():
                if not append:
                    yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))
                with Path(source).open("rb") as file:
                    part = file.read(PART)
                    while True:
                        yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=part))
                        sent(len(part))
                        if not (part := file.read(PART)):
                            break

        with mapped_errors(self.address):
            self._client.pfs.modify_file(requests())
            return str(self._client.pfs.inspect_branch(branch=target).head.id)

    def render(self, template: str, arguments: Mapping[str, str]) -> list[dict[str, Any]]:
        """The pipeline specs that a jsonnet template makes."""
        with mapped_errors(self.address):
            text = self._client.pps.render_template(template=template, args=dict(arguments)).json
        content = json.loads(text)
        return list(content) if isinstance(content, list) else [content]

    def _pipeline(self, project: str, pipeline: str) -> pps.Pipeline:
        return pps.Pipeline(name=pipeline, project=pfs.Project(name=project))

    def _job(self, info: pps.JobInfo) -> Job:
        state = pps.JobState(info.state).name.removeprefix("JOB_")
        where = info.job.pipeline
        began, ended = (when if when and when.year > 1970 else None for when in (info.started, info.finished))  # unset is the epoch
        return Job(where.project.name, where.name, info.job.id, state, info.reason, began, ended)

    def jobs(self, project: str, pipeline: str | None = None) -> list[Job]:
        """Jobs of a project or pipeline, newest first."""
        with mapped_errors(self.address):
            if pipeline:
                found = self._client.pps.list_job(pipeline=self._pipeline(project, pipeline))
            else:
                found = self._client.pps.list_job(projects=[pfs.Project(name=project)])
            return [self._job(info) for info in found]

    def job(self, project: str, pipeline: str, id_: str) -> Job:
        """One job."""
        with mapped_errors(self.address):
            return self._job(self._client.pps.inspect_job(job=pps.Job(pipeline=self._pipeline(project, pipeline), id=id_)))

    def logs(self, project: str, pipeline: str, id_: str, *, follow: bool) -> Iterator[str]:
        """A job's output, line by line; with `follow`, until it has ended."""
        with mapped_errors(self.address):
            job = pps.Job(pipeline=self._pipeline(project, pipeline), id=id_)
            for message in self._client.pps.get_logs(job=job, follow=follow):
                yield message.message
