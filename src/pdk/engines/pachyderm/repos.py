"""Projects, repos, branches and commits of a Pachyderm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pachyderm_sdk.api import auth, pfs
from pachyderm_sdk.errors import AuthServiceNotActivated

from pdk.engines.pachyderm.connection import Connection, Target, commit_of, mapped_errors, moment, repo_of
from pdk.engines.records import Branch, Commit, DataCommit, Project, Repo
from pdk.errors import Conflict, NotFound

TOKEN_S = 24 * 3600  # life of the token that an experiment reads its data with: no training takes longer


class Repos(Connection):
    """The calls about projects, repos, branches and commits. Names of commits and branches are in pachctl's grammar (`Target`)."""

    def projects(self) -> list[Project]:
        """List all projects."""
        with mapped_errors(self.address):
            return [_project(info) for info in self._client.pfs.list_project()]

    def project(self, name: str) -> Project:
        """Return one project."""
        with mapped_errors(self.address):
            return _project(self._client.pfs.inspect_project(project=pfs.Project(name=name)))

    def create_project(self, name: str, description: str = "") -> None:
        """Create a project."""
        with mapped_errors(self.address):
            self._client.pfs.create_project(project=pfs.Project(name=name), description=description)

    def delete_project(self, name: str, *, force: bool) -> None:
        """Remove a project."""
        with mapped_errors(self.address):
            self._client.pfs.delete_project(project=pfs.Project(name=name), force=force)

    def repos(self, project: str | None = None) -> list[Repo]:
        """List the repos of a project, or all that this token may see."""
        with mapped_errors(self.address):
            found = self._client.pfs.list_repo(type="user", projects=[pfs.Project(name=project)] if project else [])
            return [_repo(info) for info in found]

    def repo(self, project: str, name: str) -> Repo:
        """Return one repo, with its branches and its exact size."""
        with mapped_errors(self.address):
            return _repo(self._client.pfs.inspect_repo(repo=Target(name, project).repo))

    def create_repo(self, project: str, repo: str, description: str = "") -> None:
        """Create a repo."""
        with mapped_errors(self.address):
            self._client.pfs.create_repo(repo=repo_of(project, repo), description=description)

    def ensure_repo(self, project: str, repo: str, description: str) -> None:
        """Create a repo where it is missing."""
        try:
            self.create_repo(project, repo, description)
        except Conflict:
            return

    def delete_repo(self, project: str, name: str, *, force: bool) -> None:
        """Remove a repo."""
        with mapped_errors(self.address):
            self._client.pfs.delete_repo(repo=Target(name, project).repo, force=force)

    def reader_token(self, project: str, repo: str, robot: str) -> str:
        """Make a short-lived token that can read one repo and nothing else; without authentication, return what was given."""
        with mapped_errors(self.address):
            try:
                self._client.auth.who_am_i()
            except AuthServiceNotActivated:
                return self.token
            token = self._client.auth.get_robot_token(robot=robot, ttl=TOKEN_S).token
            resource = auth.Resource(type=auth.ResourceType.REPO, name=f"{project}/{repo}")
            self._client.auth.modify_role_binding(resource=resource, principal=f"robot:{robot}", roles=["repoReader"])
            return str(token)

    def branches(self, project: str, repo: str) -> list[Branch]:
        """List the branches of a repo."""
        with mapped_errors(self.address):
            return [_branch(info) for info in self._client.pfs.list_branch(repo=Target(repo, project).repo)]

    def branch(self, project: str, name: str) -> Branch:
        """Return one branch."""
        with mapped_errors(self.address):
            return _branch(self._client.pfs.inspect_branch(branch=Target(name, project).branch))

    def create_branch(self, project: str, name: str, head: str, trigger: Mapping[str, Any] | None) -> None:
        """Make or move a branch."""
        branch, commit = Target(name, project).branch, Target(f"{name.partition('@')[0]}@{head}", project).commit if head else None
        with mapped_errors(self.address):
            self._client.pfs.create_branch(branch=branch, head=commit, trigger=pfs.Trigger(**trigger) if trigger else None)

    def delete_branch(self, project: str, name: str, *, force: bool) -> None:
        """Remove a branch."""
        with mapped_errors(self.address):
            self._client.pfs.delete_branch(branch=Target(name, project).branch, force=force)

    def head(self, project: str, repo: str, branch: str) -> str | None:
        """Return the ID of a branch's newest finished commit; None where there is none."""
        try:
            with mapped_errors(self.address):
                head = self._client.pfs.inspect_branch(branch=pfs.Branch(repo=repo_of(project, repo), name=branch)).head
                info = self._client.pfs.inspect_commit(commit=head) if head and head.id else None
        except NotFound:
            return None
        return str(info.commit.id) if info and info.finished else None

    def start_commit(self, project: str, branch: str, description: str) -> str:
        """Open a commit; returns its ID."""
        with mapped_errors(self.address):
            return str(self._client.pfs.start_commit(branch=Target(branch, project).branch, description=description).id)

    def finish_commit(self, project: str, commit: str, description: str) -> None:
        """Close a commit."""
        with mapped_errors(self.address):
            self._client.pfs.finish_commit(commit=Target(commit, project).commit, description=description)

    def commits(self, project: str, target: str, number: int = 0) -> Iterator[Commit]:
        """Give the commits of a repo, or of a branch's line, newest first; at most `number`, or all."""
        named = Target(target, project)
        with mapped_errors(self.address):
            to = named.commit if named.spelled else None
            for info in self._client.pfs.list_commit(repo=named.repo, to=to, number=number):
                yield _commit(info)

    def commit(self, project: str, target: str, *, wait: bool = False) -> Commit:
        """Return one commit; with `wait`, once it is finished."""
        state = pfs.CommitState.FINISHED if wait else None
        with mapped_errors(self.address):
            return _commit(self._client.pfs.inspect_commit(commit=Target(target, project).commit, wait=state))

    def commit_set(self, id_: str) -> list[Commit]:
        """List all commits that share an ID."""
        with mapped_errors(self.address):
            return [_commit(info) for info in self._client.pfs.inspect_commit_set(commit_set=pfs.CommitSet(id=id_))]

    def squash(self, id_: str) -> None:
        """Take the commits with an ID out of history."""
        with mapped_errors(self.address):
            self._client.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=id_))

    def drop(self, id_: str) -> None:
        """Remove the newest commits, those with an ID, and what they changed."""
        with mapped_errors(self.address):
            self._client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=id_))

    def data_commit(self, project: str, repo: str, id_: str) -> DataCommit:
        """Wait for a commit to be finished, and return it with the hash of its content.

        Raises:
            NotFound: no such repo or commit.
        """
        with mapped_errors(self.address):
            info = self._client.pfs.inspect_commit(commit=commit_of(project, repo, id_), wait=pfs.CommitState.FINISHED)
            root = self._client.pfs.inspect_file(file=pfs.File(commit=info.commit, path="/"))
        parent = info.parent_commit.id if info.parent_commit else None
        return DataCommit(project, repo, info.commit.id, root.hash.hex(), parent or None)

    def ancestors(self, commit: DataCommit) -> Iterator[str]:
        """Give the IDs of a commit's parents, nearest first."""
        parent = commit.parent
        while parent:
            yield parent
            with mapped_errors(self.address):
                info = self._client.pfs.inspect_commit(commit=commit_of(commit.project, commit.repo, parent))
            parent = info.parent_commit.id if info.parent_commit else None


def _project(info: pfs.ProjectInfo) -> Project:
    return Project(info.project.name, moment(info.created_at), info.description)


def _repo(info: pfs.RepoInfo) -> Repo:
    size = info.details.size_bytes if info.details else info.size_bytes_upper_bound
    branches = tuple(branch.name for branch in info.branches)
    return Repo(info.repo.project.name, info.repo.name, moment(info.created), size, info.description, branches)


def _branch(info: pfs.BranchInfo) -> Branch:
    repo, sources = info.branch.repo, tuple(f"{source.repo.name}@{source.name}" for source in info.direct_provenance)
    head, trigger = info.head.id if info.head else None, info.trigger.branch if info.trigger else ""
    return Branch(repo.project.name, repo.name, info.branch.name, head, sources, trigger)


def _commit(info: pfs.CommitInfo) -> Commit:
    repo, branch = info.commit.repo, info.commit.branch
    return Commit(
        project=repo.project.name,
        repo=repo.name,
        branch=branch.name if branch else "",
        id=info.commit.id,
        parent=(info.parent_commit.id or None) if info.parent_commit else None,
        origin=pfs.OriginKind(info.origin.kind).name.lower(),
        description=info.description,
        error=info.error,
        size=info.details.size_bytes if info.details else None,
        started=moment(info.started),
        finished=moment(info.finished),
    )
