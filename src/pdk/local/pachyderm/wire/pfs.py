"""The methods of ``pfs_v2.API`` about projects, repos, branches and commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from google.protobuf import json_format

from pdk.kit.db import Connection, Database
from pdk.local.pachyderm.rules import branches, commits, history, jobs, repos
from pdk.local.pachyderm.rules.model import Commit, CommitRef, Refused
from pdk.local.pachyderm.wire.convert import Converter, Message, branch_ref, commit_ref, repo_ref
from pdk.local.pachyderm.wire.schema import Schema

STATES = ("COMMIT_STATE_UNKNOWN", "STARTED", "READY", "FINISHING", "FINISHED")
Remove = Callable[[Connection], None]
EndJobs = Callable[[list[jobs.Job]], Awaitable[None]]


class Pfs:
    """Projects, repos, branches and commits.

    Args:
        end_jobs: ends the programs of jobs that were closed because their commits went.
    """

    def __init__(self, schema: Schema, db: Database, end_jobs: EndJobs) -> None:
        self.schema, self.db, self.end_jobs = schema, db, end_jobs
        self.convert = Converter(schema, db.reader)

    @property
    def reader(self) -> Connection:
        """For reads inside the event loop."""
        return self.db.reader

    def _empty(self) -> Message:
        return self.schema["google.protobuf.Empty"]()

    # projects

    async def CreateProject(self, request: Message) -> Message:
        work = partial(repos.create_project, name=request.project.name, description=request.description, update=request.update)
        await self.db.write(work)
        return self._empty()

    async def InspectProject(self, request: Message) -> Message:
        return self.convert.project_info(repos.project(self.reader, request.project.name))

    async def InspectProjectV2(self, request: Message) -> Message:
        answer = self.schema["pfs_v2.InspectProjectV2Response"](defaults_json="{}")
        answer.info.CopyFrom(self.convert.project_info(repos.project(self.reader, request.project.name)))
        return answer

    async def ListProject(self, request: Message) -> AsyncIterator[Message]:
        for project in repos.list_projects(self.reader):
            yield self.convert.project_info(project)

    async def DeleteProject(self, request: Message) -> Message:
        await self.db.write(partial(repos.delete_project, name=request.project.name, force=request.force))
        return self._empty()

    # repos

    async def CreateRepo(self, request: Message) -> Message:
        ref = repo_ref(request.repo)
        await self.db.write(partial(repos.create_repo, ref=ref, description=request.description, update=request.update))
        return self._empty()

    async def InspectRepo(self, request: Message) -> Message:
        return self.convert.repo_info(repos.repo(self.reader, repo_ref(request.repo)), details=True)

    async def ListRepo(self, request: Message) -> AsyncIterator[Message]:
        for repo in repos.list_repos(self.reader, [project.name for project in request.projects], request.type):
            yield self.convert.repo_info(repo)

    async def DeleteRepo(self, request: Message) -> Message:
        deleted = await self.db.write(partial(repos.delete_repo, ref=repo_ref(request.repo), force=request.force))
        return self.schema["pfs_v2.DeleteRepoResponse"](deleted=deleted)

    async def DeleteRepos(self, request: Message) -> Message:
        """Return all user repos of some projects, or of all."""

        def work(db: Connection) -> list[Any]:
            if not request.all and not request.projects:
                return []
            refs = [repo.ref for repo in repos.list_repos(db, [project.name for project in request.projects], "user")]
            for ref in refs:
                repos.delete_repo(db, ref, force=request.force)
            return refs

        answer = self.schema["pfs_v2.DeleteReposResponse"]()
        for ref in await self.db.write(work):
            self.convert.repo(answer.repos.add(), ref)
        return answer

    # branches

    async def CreateBranch(self, request: Message) -> Message:
        head = commit_ref(request.head) if request.HasField("head") else None
        sources = [branch_ref(source) for source in request.provenance]
        trigger = json_format.MessageToDict(request.trigger, preserving_proto_field_name=True) if request.HasField("trigger") else None
        if head is not None and request.head.repo.name and request.head.repo.name != request.branch.repo.name:
            raise Refused("branch and head commit must belong to the same repo")
        work = partial(branches.create, ref=branch_ref(request.branch), head=head, sources=sources, trigger=trigger)
        await self.db.write(work)
        return self._empty()

    async def InspectBranch(self, request: Message) -> Message:
        return self.convert.branch_info(repos.branch(self.reader, branch_ref(request.branch)))

    async def ListBranch(self, request: Message) -> AsyncIterator[Message]:
        if request.repo.name:
            found = repos.list_branches(self.reader, repo_ref(request.repo))
        else:
            refs = [repo.ref for repo in repos.list_repos(self.reader, [], "")]
            found = [branch for ref in refs for branch in repos.list_branches(self.reader, ref)]
        for branch in reversed(found) if request.reverse else found:
            yield self.convert.branch_info(branch)

    async def DeleteBranch(self, request: Message) -> Message:
        await self.db.write(partial(repos.delete_branch, ref=branch_ref(request.branch), force=request.force))
        return self._empty()

    # commits

    async def StartCommit(self, request: Message) -> Message:
        if not request.branch.name:
            raise Refused("branch must be specified")
        parent = commit_ref(request.parent) if request.HasField("parent") and (request.parent.id or request.parent.branch.name) else None
        work = partial(commits.start, ref=branch_ref(request.branch), parent=parent, description=request.description)
        commit: Commit = await self.db.write(work)
        answer = self.schema["pfs_v2.Commit"]()
        self.convert.commit(answer, commit.ref)
        return answer

    async def FinishCommit(self, request: Message) -> Message:
        ref = commit_ref(request.commit)

        def work(db: Connection) -> None:
            commit = commits.resolve(db, ref)
            if commit.finished is None and commit.origin != "USER" and not request.force and jobs.of_commit(db, commit.pk):
                raise Refused("cannot finish a pipeline output or meta commit, use 'stop job' instead")
            commits.finish(db, commit, description=request.description, error=request.error)

        await self.db.write(work)
        return self._empty()

    async def ClearCommit(self, request: Message) -> Message:
        ref = commit_ref(request.commit)
        await self.db.write(lambda db: commits.clear(db, commits.resolve(db, ref)))
        return self._empty()

    def _reached(self, commit: Commit, state: int) -> bool:
        if STATES[state] in ("FINISHING", "FINISHED"):
            return commit.finished is not None
        if STATES[state] == "READY":
            return all(source.finished is not None for source in commits.provenance(self.reader, commit.pk))
        return True

    async def wait_for(self, ref: CommitRef, state: int) -> Commit:
        """Return the commit once it has reached a state of `STATES`."""
        commit = commits.resolve(self.reader, ref)
        if self._reached(commit, state):
            return commit
        async for _ in self.db.changes.watch():
            found = commits.find(self.reader, commit.pk)
            if found is None:
                raise Refused(f"inspect finishing or finished commit: commit {commit.ref} was deleted")
            commit = found
            if self._reached(commit, state):
                break
        return commit

    async def InspectCommit(self, request: Message) -> Message:
        return self.convert.commit_info(await self.wait_for(commit_ref(request.commit), request.wait))

    async def ListCommit(self, request: Message) -> AsyncIterator[Message]:
        upto = getattr(request, "from")
        start = commit_ref(request.to) if request.HasField("to") and (request.to.id or request.to.branch.name) else None
        stop = commit_ref(upto) if request.HasField("from") and (upto.id or upto.branch.name) else None
        if stop and not start:
            raise Refused("cannot use `from` commit without `to` commit")
        if start and request.reverse:
            raise Refused("cannot use 'Reverse' while also using 'From' or 'To'")
        wanted = request.origin_kind and not request.all
        origin = self.schema.member("pfs_v2.OriginKind", request.origin_kind) if wanted else ""
        found = commits.listing(
            self.reader,
            start or CommitRef(repo_ref(request.repo)),
            upto=stop,
            origin=origin,
            reverse=request.reverse,
            number=request.number,
        )
        for commit in list(found):
            yield self.convert.commit_info(commit, listed=True)

    async def InspectCommitSet(self, request: Message) -> AsyncIterator[Message]:
        for commit in commits.whole_set(self.reader, request.commit_set.id):
            state = STATES.index("FINISHED") if request.wait else 0
            yield self.convert.commit_info(await self.wait_for(CommitRef(commit.repo, commit.id), state))

    async def ListCommitSet(self, request: Message) -> AsyncIterator[Message]:
        for id_ in commits.sets(self.reader, request.project.name):
            info = self.schema["pfs_v2.CommitSetInfo"]()
            info.commit_set.id = id_
            for commit in commits.whole_set(self.reader, id_):
                info.commits.add().CopyFrom(self.convert.commit_info(commit))
            yield info

    async def SubscribeCommit(self, request: Message) -> AsyncIterator[Message]:
        ref, seen = CommitRef(repo_ref(request.repo)), 0
        pk = repos.repo_pk(self.reader, ref.repo)
        skip = getattr(request, "from").id
        async for _ in self.db.changes.watch():
            for commit in commits.newer(self.reader, pk, seen):
                seen = max(seen, commit.pk)
                if request.branch in ("", commit.branch) and commit.id != skip:
                    yield self.convert.commit_info(await self.wait_for(commit.ref, request.state))

    async def _take_out(self, remove: Remove, sets: Callable[[Connection], list[str]]) -> None:
        """Remove commits from history, after the open jobs of their commit sets were killed."""

        def work(db: Connection) -> list[jobs.Job]:
            killed = [job for id_ in sets(db) for job in jobs.kill_open(db, "output commit removed", id_=id_)]
            remove(db)
            return killed

        await self.end_jobs(await self.db.write(work))

    async def SquashCommitSet(self, request: Message) -> Message:
        id_ = request.commit_set.id
        await self._take_out(partial(history.squash, id_=id_), lambda _: [id_])
        return self._empty()

    async def DropCommitSet(self, request: Message) -> Message:
        id_ = request.commit_set.id
        await self._take_out(partial(history.drop, id_=id_), lambda _: [id_])
        return self._empty()

    async def SquashCommit(self, request: Message) -> Message:
        commit = commits.resolve(self.reader, commit_ref(request.commit))
        remove = partial(history.squash_one, commit=commit, recursive=request.recursive)
        await self._take_out(remove, lambda db: [below.id for below in history.below(db, commit)])
        return self.schema["pfs_v2.SquashCommitResponse"]()

    async def DropCommit(self, request: Message) -> Message:
        commit = commits.resolve(self.reader, commit_ref(request.commit))
        remove = partial(history.drop_one, commit=commit, recursive=request.recursive)
        await self._take_out(remove, lambda db: [below.id for below in history.below(db, commit)])
        return self.schema["pfs_v2.DropCommitResponse"]()

    async def FindCommits(self, request: Message) -> AsyncIterator[Message]:
        response = self.schema["pfs_v2.FindCommitsResponse"]
        last, searched, found = commits.resolve(self.reader, commit_ref(request.start)), 0, 0
        for commit, touched in history.touching(self.reader, last, request.file_path):
            if commit.finished is None:
                raise commits.NotFinished(f"commit {commit.ref} not finished")
            last = commit
            if touched:
                answer = response(commits_searched=searched)
                self.convert.commit(answer.found_commit, commit.ref)
                yield answer
                found += 1
            searched += 1
            if request.limit and found == request.limit:
                break
        answer = response(commits_searched=searched)
        self.convert.commit(answer.last_searched_commit, last.ref)
        yield answer
