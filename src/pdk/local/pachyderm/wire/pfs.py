"""The methods of ``pfs_v2.API``."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial

from pdk.errors import NotFound, NotSupported, UserError
from pdk.local.kit.db import Database
from pdk.local.pachyderm.service import commits, files, repos
from pdk.local.pachyderm.service.model import Commit, CommitRef, clean_path
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import EMPTY, Blob, BlobStore, Incoming, find
from pdk.local.pachyderm.wire.convert import Converter, Message, branch_ref, commit_ref, repo_ref
from pdk.local.pachyderm.wire.schema import Schema

STATES = ("COMMIT_STATE_UNKNOWN", "STARTED", "READY", "FINISHING", "FINISHED")


class Pfs:
    """Projects, repos, branches, commits and files."""

    def __init__(self, schema: Schema, db: Database, blobs: BlobStore) -> None:
        self.schema, self.db, self.blobs = schema, db, blobs
        self.convert = Converter(schema, db.reader)
        self._appending: dict[CommitRef, asyncio.Lock] = {}

    @property
    def reader(self) -> sqlite3.Connection:
        """For reads inside the event loop."""
        return self.db.reader

    # projects

    async def CreateProject(self, request: Message) -> Message:
        work = partial(repos.create_project, name=request.project.name, description=request.description, update=request.update)
        await self.db.write(work)
        return self.schema["google.protobuf.Empty"]()

    async def InspectProject(self, request: Message) -> Message:
        return self.convert.project_info(repos.project(self.reader, request.project.name))

    async def InspectProjectV2(self, request: Message) -> Message:
        answer = self.schema["pfs_v2.InspectProjectV2Response"](defaults_json="{}")
        answer.info.CopyFrom(self.convert.project_info(repos.project(self.reader, request.project.name)))
        return answer

    async def ListProject(self, request: Message) -> AsyncIterator[Message]:
        for row in self.reader.execute("SELECT * FROM project ORDER BY created DESC, name").fetchall():
            yield self.convert.project_info(row)

    async def DeleteProject(self, request: Message) -> Message:
        await self.db.write(partial(repos.delete_project, name=request.project.name, force=request.force))
        return self.schema["google.protobuf.Empty"]()

    # repos

    async def CreateRepo(self, request: Message) -> Message:
        ref = repo_ref(request.repo)
        await self.db.write(partial(repos.create_repo, ref=ref, description=request.description, update=request.update))
        return self.schema["google.protobuf.Empty"]()

    async def InspectRepo(self, request: Message) -> Message:
        pk = repos.repo_pk(self.reader, repo_ref(request.repo))
        return self.convert.repo_info(self.reader.execute("SELECT * FROM repo WHERE pk = ?", (pk,)).fetchone(), details=True)

    async def ListRepo(self, request: Message) -> AsyncIterator[Message]:
        for row in repos.list_repos(self.reader, [project.name for project in request.projects], request.type):
            yield self.convert.repo_info(row)

    async def DeleteRepo(self, request: Message) -> Message:
        deleted = await self.db.write(partial(repos.delete_repo, ref=repo_ref(request.repo)))
        return self.schema["pfs_v2.DeleteRepoResponse"](deleted=deleted)

    # branches

    async def CreateBranch(self, request: Message) -> Message:
        head = commit_ref(request.head) if request.HasField("head") else None
        sources = [branch_ref(source) for source in request.provenance]
        await self.db.write(partial(commits.create_branch, ref=branch_ref(request.branch), head=head, sources=sources))
        return self.schema["google.protobuf.Empty"]()

    async def InspectBranch(self, request: Message) -> Message:
        return self.convert.branch_info(repos.branch(self.reader, branch_ref(request.branch)))

    async def ListBranch(self, request: Message) -> AsyncIterator[Message]:
        found = repos.list_branches(self.reader, repo_ref(request.repo))
        for branch in reversed(found) if request.reverse else found:
            yield self.convert.branch_info(branch)

    async def DeleteBranch(self, request: Message) -> Message:
        await self.db.write(partial(repos.delete_branch, ref=branch_ref(request.branch), force=request.force))
        return self.schema["google.protobuf.Empty"]()

    # commits

    async def StartCommit(self, request: Message) -> Message:
        if not request.branch.name:
            raise UserError("branch must be specified")
        parent = commit_ref(request.parent) if request.HasField("parent") and (request.parent.id or request.parent.branch.name) else None
        work = partial(commits.start, ref=branch_ref(request.branch), parent=parent, description=request.description)
        commit: Commit = await self.db.write(work)
        answer = self.schema["pfs_v2.Commit"]()
        self.convert.commit(answer, commit.ref)
        return answer

    async def FinishCommit(self, request: Message) -> Message:
        ref = commit_ref(request.commit)

        def work(db: sqlite3.Connection) -> None:
            commit = commits.resolve(db, ref)
            if commit.origin != "USER" and not request.force:
                raise UserError("cannot finish a pipeline output or meta commit, use 'stop job' instead")
            commits.finish(db, commit, description=request.description, error=request.error)

        await self.db.write(work)
        return self.schema["google.protobuf.Empty"]()

    def _reached(self, commit: Commit, state: int) -> bool:
        if STATES[state] in ("FINISHING", "FINISHED"):
            return commit.finished is not None
        if STATES[state] == "READY":
            return all(source.finished is not None for source in commits.provenance(self.reader, commit.pk))
        return True

    async def wait_for(self, ref: CommitRef, state: int) -> Commit:
        """The commit once it has reached a state of `STATES`."""
        commit = commits.resolve(self.reader, ref)
        async for _ in self.db.changes.watch():
            commit = commits.resolve(self.reader, CommitRef(commit.repo, commit.id))
            if self._reached(commit, state):
                break
        return commit

    async def InspectCommit(self, request: Message) -> Message:
        return self.convert.commit_info(await self.wait_for(commit_ref(request.commit), request.wait))

    async def ListCommit(self, request: Message) -> AsyncIterator[Message]:
        start = commit_ref(request.to) if request.HasField("to") else CommitRef(repo_ref(request.repo))
        if not (start.id or start.branch):
            start = CommitRef(repo_ref(request.repo))
        upto = getattr(request, "from")
        stop = commit_ref(upto) if request.HasField("from") and (upto.id or upto.branch.name) else None
        found = list(commits.listing(self.reader, start, number=request.number, upto=stop))
        for commit in reversed(found) if request.reverse else found:
            yield self.convert.commit_info(commit)

    async def InspectCommitSet(self, request: Message) -> AsyncIterator[Message]:
        for commit in commits.in_set(self.reader, request.commit_set.id):
            if commit.repo.type == "user":
                ref = CommitRef(commit.repo, commit.id)
                yield self.convert.commit_info(await self.wait_for(ref, STATES.index("FINISHED") if request.wait else 0))

    async def ListCommitSet(self, request: Message) -> AsyncIterator[Message]:
        for id_ in commits.sets(self.reader, request.project.name):
            info = self.schema["pfs_v2.CommitSetInfo"]()
            info.commit_set.id = id_
            for commit in commits.in_set(self.reader, id_):
                info.commits.add().CopyFrom(self.convert.commit_info(commit))
            yield info

    async def SubscribeCommit(self, request: Message) -> AsyncIterator[Message]:
        ref, seen = CommitRef(repo_ref(request.repo)), 0
        async for _ in self.db.changes.watch():
            for commit in reversed(list(commits.listing(self.reader, ref))):
                if commit.pk > seen and request.branch in ("", commit.branch):
                    yield self.convert.commit_info(await self.wait_for(commit.ref, request.state))
                seen = max(seen, commit.pk)

    # files

    async def ModifyFile(self, requests: AsyncIterator[Message]) -> Message:
        target: CommitRef | None = None
        changes: list[files.Change] = []
        async with contextlib.AsyncExitStack() as held:
            incoming = held.enter_context(Incoming(self.blobs, self.reader))
            open_path, appends = None, False
            onto: bytes | None = None

            def close_file() -> None:
                nonlocal open_path, onto
                if open_path is not None:
                    changes.append(files.Put(open_path, *incoming.end(), onto))
                    open_path = onto = None

            async for request in requests:
                kind = request.WhichOneof("body")
                if kind == "set_commit":
                    if target is not None:
                        raise UserError("cannot set commit")
                    target = commit_ref(request.set_commit)
                    repos.repo_pk(self.reader, target.repo)
                elif target is None:
                    raise UserError("first message must be a commit")
                elif kind == "add_file":
                    path = clean_path(request.add_file.path)
                    if request.add_file.WhichOneof("source") == "url":
                        raise UserError("files by URL are not offered by the local server; download the file and put it")
                    if open_path != path:
                        close_file()
                        open_path = path
                        if not self._deleted_before(changes, path):
                            # appends to a branch come one after the other, or they would overwrite what the other appended
                            if not appends:
                                await held.enter_async_context(self._appending.setdefault(target, asyncio.Lock()))
                                appends = True
                            onto = self._present(target, path, incoming)
                    incoming.feed(request.add_file.raw.value)
                else:
                    close_file()
                    changes.append(self._change(kind, request))
            close_file()
            if target is None:
                raise UserError("first message must be a commit")
            await asyncio.to_thread(incoming.sync)

            def work(db: sqlite3.Connection) -> None:
                incoming.insert(db)
                files.modify(db, target, changes)

            await self.db.write(work)
        return self.schema["google.protobuf.Empty"]()

    def _change(self, kind: str, request: Message) -> files.Change:
        if kind == "delete_file":
            return files.Delete(request.delete_file.path)
        copy = request.copy_file
        return files.Copy(copy.dst, commit_ref(copy.src.commit), copy.src.path)

    def _deleted_before(self, changes: list[files.Change], path: str) -> bool:
        """Whether this request made the path anew: then it is written, not appended to."""
        for change in reversed(changes):
            if change.path == path and isinstance(change, files.Put):
                raise UserError(f"the parts of {path} must follow each other within one request")
            if isinstance(change, files.Copy) and (path + "/").startswith(clean_path(change.path).rstrip("/") + "/"):
                raise NotSupported(f"{path} is copied and appended to in one request; use two")
            if isinstance(change, files.Delete) and (path + "/").startswith(clean_path(change.path).rstrip("/") + "/"):
                return True
        return False

    def _present(self, target: CommitRef, path: str, incoming: Incoming) -> bytes | None:
        """Feed what a file holds so far; returns its hash, None where there is no such file."""
        try:
            commit = commits.resolve(self.reader, target)
        except NotFound:
            return None
        entry = tree.get(self.reader, commits.view(self.reader, commit), path)
        if entry is None:
            return None
        for part in self.blobs.read(self._blob(entry)):
            incoming.feed(part)
        return entry.hash

    def _blob(self, entry: tree.Entry) -> Blob:
        blob = find(self.reader, entry.hash)
        if blob is None:
            raise NotFound(f"the content of {entry.path} is missing from the store; run `pdk fsck`")
        return blob

    async def InspectFile(self, request: Message) -> Message:
        commit = commits.resolve(self.reader, commit_ref(request.file.commit))
        return self.convert.file_info(commit, files.inspect(self.reader, commit, request.file.path))

    async def ListFile(self, request: Message) -> AsyncIterator[Message]:
        commit = commits.resolve(self.reader, commit_ref(request.file.commit))
        try:
            found: Iterable[tree.Entry] = list(files.listing(self.reader, commit, request.file.path))
        except NotFound:
            return
        for entry in found:
            yield self.convert.file_info(commit, entry)

    async def WalkFile(self, request: Message) -> AsyncIterator[Message]:
        commit = commits.resolve(self.reader, commit_ref(request.file.commit))
        path = clean_path(request.file.path)
        for entry in list(files.entries_at(self.reader, commits.view(self.reader, commit), path)):
            yield self.convert.file_info(commit, entry)

    async def GlobFile(self, request: Message) -> AsyncIterator[Message]:
        commit = commits.resolve(self.reader, commit_ref(request.commit))
        for entry in list(files.glob(self.reader, commits.view(self.reader, commit), request.pattern)):
            yield self.convert.file_info(commit, entry)

    def _matches(self, request: Message) -> list[tree.Entry]:
        commit = commits.resolve(self.reader, commit_ref(request.file.commit))
        if files.is_pattern(request.file.path):
            found = list(files.glob(self.reader, commits.view(self.reader, commit), request.file.path))
            if not found:
                raise NotFound(f"file {request.file.path} not found in repo {commit.repo} at commit {commit.id}")
            return found
        return [files.inspect(self.reader, commit, request.file.path)]

    async def GetFile(self, request: Message) -> AsyncIterator[Message]:
        found = self._matches(request)
        if len(found) > 1:
            raise UserError("matched multiple files. Use GetFileTAR instead")
        if found[0].kind != tree.FILE:
            raise UserError("cannot get directory or non-regular file. Use GetFileTAR instead")
        value = self.schema["google.protobuf.BytesValue"]
        for part in self.blobs.read(self._blob(found[0]), request.offset):
            yield value(value=part)

    async def GetFileTAR(self, request: Message) -> AsyncIterator[Message]:
        commit = commits.resolve(self.reader, commit_ref(request.file.commit))
        value = self.schema["google.protobuf.BytesValue"]
        buffer = bytearray()
        for match in self._matches(request):
            # read to its end before anything is sent: an open cursor would hold back the sight of every other call
            walked = list(tree.walk(self.reader, commits.view(self.reader, commit), match.path)) if match.kind == tree.FOLDER else [match]
            for entry in walked:
                for part in self._tar_member(entry):
                    buffer += part
                    if len(buffer) >= 1 << 20:
                        yield value(value=bytes(buffer))
                        buffer.clear()
        yield value(value=bytes(buffer) + bytes(2 * tarfile.BLOCKSIZE))

    def _tar_member(self, entry: tree.Entry) -> Iterator[bytes]:
        member = tarfile.TarInfo(entry.path)
        if entry.kind == tree.FOLDER:
            member.type, member.mode = tarfile.DIRTYPE, 0
            yield member.tobuf(tarfile.PAX_FORMAT)
            return
        member.size, member.mode = entry.size, 0
        yield member.tobuf(tarfile.PAX_FORMAT)
        if entry.hash != EMPTY:
            yield from self.blobs.read(self._blob(entry))
        yield bytes(-entry.size % tarfile.BLOCKSIZE)

    async def DiffFile(self, request: Message) -> AsyncIterator[Message]:
        new = commits.resolve(self.reader, commit_ref(request.new_file.commit))
        if request.HasField("old_file") and request.old_file.commit.repo.name:
            old: Commit | None = commits.resolve(self.reader, commit_ref(request.old_file.commit))
        else:
            old = commits.by_pk(self.reader, new.parent) if new.parent is not None else None
        path = clean_path(request.new_file.path)
        inside = path.rstrip("/") + "/"
        before = commits.view(self.reader, old) if old else tree.View(())
        for was, now in list(tree.diff(self.reader, before, commits.view(self.reader, new))):
            spelled = (now or was).path  # type: ignore[union-attr]
            if not (spelled == path or spelled.startswith(inside)):
                continue
            answer = self.schema["pfs_v2.DiffFileResponse"]()
            if now:
                answer.new_file.CopyFrom(self.convert.file_info(new, now))
            if was and old:
                answer.old_file.CopyFrom(self.convert.file_info(old, was))
            yield answer

    async def Fsck(self, request: Message) -> AsyncIterator[Message]:
        for row in self.reader.execute("SELECT DISTINCT path, hash, size FROM file WHERE kind = 1").fetchall():
            blob = find(self.reader, row["hash"])
            problem = "its content is not in the store" if blob is None else None
            if blob is not None and blob.size != row["size"]:
                problem = f"its content has {blob.size} bytes instead of {row['size']}"
            if problem:
                yield self.schema["pfs_v2.FsckResponse"](error=f"{row['path']}: {problem}")
