"""The methods of ``pfs_v2.API`` about files and file sets."""

from __future__ import annotations

import asyncio
import itertools
import tarfile
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from functools import partial

from pdk.errors import NotFound
from pdk.kit.db import Connection, Database
from pdk.kit.reach import Reach
from pdk.local.pachyderm.rules import commits, file_sets, files, globs, repos
from pdk.local.pachyderm.rules.model import Commit, CommitRef, Refused, clean_path
from pdk.local.pachyderm.runtime import check, urls
from pdk.local.pachyderm.runtime.uploads import Upload, blob_of
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.locations import EMPTY
from pdk.local.pachyderm.wire.convert import Converter, Message, commit_ref
from pdk.local.pachyderm.wire.schema import Schema

PART = 1 << 20  # bytes of a message with content
LIST_LIMIT = 100_000  # files that one paged listing may return, as the engine has it


class Files:
    """Files of commits and file sets."""

    def __init__(self, schema: Schema, db: Database, blobs: BlobStore, reach: Reach) -> None:
        self.schema, self.db, self.blobs, self.reach = schema, db, blobs, reach
        self.convert = Converter(schema, db.reader)

    @property
    def reader(self) -> Connection:
        """For reads inside the event loop."""
        return self.db.reader

    # writing

    async def ModifyFile(self, requests: AsyncIterator[Message]) -> Message:
        target: CommitRef | None = None
        with Upload(self.db, self.blobs) as upload:
            async for request in requests:
                if target is not None:
                    if pending := self._take(upload, request):
                        await pending
                elif request.WhichOneof("body") != "set_commit":
                    raise Refused("first message must be a commit")
                else:
                    target = commit_ref(request.set_commit)
                    repos.repo_pk(self.reader, target.repo)
            if target is None:
                raise Refused("first message must be a commit")
            await upload.commit(target)
        return self.schema["google.protobuf.Empty"]()

    def _take(self, upload: Upload, request: Message) -> Awaitable[None] | None:
        """One change of a stream; what has to be waited for, if anything (most streams are long, and most changes are there at once)."""
        kind = request.WhichOneof("body")
        if kind == "add_file":
            add = request.add_file
            if add.WhichOneof("source") == "url":
                return urls.fetch(upload, self.reach, add.path, add.url.url, recursive=add.url.recursive)
            upload.add(add.path, add.raw.value)
        elif kind == "delete_file":
            upload.delete(request.delete_file.path)
        elif kind == "copy_file":
            copy = request.copy_file
            upload.change(files.Copy(copy.dst, commit_ref(copy.src.commit), copy.src.path, copy.append))
        elif kind == "set_commit":
            raise Refused("cannot set commit")
        else:
            raise Refused("unrecognized message type")
        return None

    # file sets

    def _file_set(self, id_: str) -> Message:
        return self.schema["pfs_v2.CreateFileSetResponse"](file_set_id=id_)

    async def CreateFileSet(self, requests: AsyncIterator[Message]) -> Message:
        with Upload(self.db, self.blobs) as upload:
            async for request in requests:
                if pending := self._take(upload, request):
                    await pending
            return self._file_set(await upload.keep(file_sets.TTL_S))

    async def GetFileSet(self, request: Message) -> Message:
        ref = commit_ref(request.commit)
        work = lambda db: file_sets.of_commit(db, commits.resolve(db, ref), file_sets.TTL_S)  # noqa: E731 - one line, used once
        return self._file_set(await self.db.write(work))

    async def AddFileSet(self, request: Message) -> Message:
        target = commit_ref(request.commit)
        commit = commits.resolve(self.reader, target)
        if commit.finished is not None:
            raise Refused(f"commit {commit.ref} has already finished")
        with Upload(self.db, self.blobs) as upload:
            await upload.commit(target, upload.referred(file_sets.changes(self.reader, request.file_set_id)))
        return self.schema["google.protobuf.Empty"]()

    async def RenewFileSet(self, request: Message) -> Message:
        await self.db.write(partial(file_sets.renew, id_=request.file_set_id, ttl_s=request.ttl_seconds))
        return self.schema["google.protobuf.Empty"]()

    async def ComposeFileSet(self, request: Message) -> Message:
        ids, ttl_s = list(request.file_set_ids), float(request.ttl_seconds or file_sets.TTL_LIMIT_S)
        changes = [change for id_ in ids for change in file_sets.changes(self.reader, id_)]
        with Upload(self.db, self.blobs) as upload:
            for change in upload.referred(changes):
                upload.change(change)
            return self._file_set(await upload.keep(ttl_s))

    async def ShardFileSet(self, request: Message) -> Message:
        commits.file_set(self.reader, request.file_set_id)
        answer = self.schema["pfs_v2.ShardFileSetResponse"]()
        answer.shards.add()
        return answer

    # reading

    async def _commit(self, message: Message) -> Commit:
        return commits.resolve(self.reader, commit_ref(message))

    async def InspectFile(self, request: Message) -> Message:
        commit = await self._commit(request.file.commit)
        return self.convert.file_info(commit, files.inspect(self.reader, commit, request.file.path))

    def _paged(self, found: Iterable[tree.Entry], request: Message) -> list[tree.Entry]:
        """Return one page of a listing: what lies behind a marker, so many, in either direction."""
        if request.number > LIST_LIMIT:
            raise Refused(f"cannot return more than {LIST_LIMIT} files at a time")
        if request.number == 0 and request.reverse:
            raise Refused("number must be > 0 when reverse is true")
        marker = request.pagination_marker.path
        if request.reverse:
            return [entry for entry in found if not marker or entry.path < marker][-request.number :][::-1]
        behind = (entry for entry in found if not marker or entry.path > marker)
        return list(itertools.islice(behind, request.number) if request.number > 0 else behind)

    async def ListFile(self, request: Message) -> AsyncIterator[Message]:
        commit = await self._commit(request.file.commit)
        try:
            found = self._paged(files.listing(self.reader, commit, request.file.path), request)
        except NotFound:
            return
        for entry in found:
            yield self.convert.file_info(commit, entry)

    async def WalkFile(self, request: Message) -> AsyncIterator[Message]:
        commit = await self._commit(request.file.commit)
        path = clean_path(request.file.path)
        if path == "/" and not files.inspect(self.reader, commit, "/", empty=True).files:
            return
        for entry in self._paged(files.entries_at(self.reader, commits.view(self.reader, commit), path), request):
            yield self.convert.file_info(commit, entry)

    async def GlobFile(self, request: Message) -> AsyncIterator[Message]:
        commit = await self._commit(request.commit)
        lower, upper = request.path_range.lower, request.path_range.upper
        for entry in list(files.glob(self.reader, commits.view(self.reader, commit), request.pattern)):
            if entry.path >= lower and (not upper or entry.path < upper):
                yield self.convert.file_info(commit, entry)

    async def _matches(self, request: Message) -> tuple[Commit, list[tree.Entry]]:
        commit = await self._commit(request.file.commit)
        if globs.is_pattern(request.file.path):
            found = list(files.glob(self.reader, commits.view(self.reader, commit), request.file.path))
            if not found:
                raise NotFound(f"file {request.file.path} not found in repo {commit.repo} at commit {commit.id}")
            return commit, found
        return commit, [files.inspect(self.reader, commit, request.file.path)]

    async def GetFile(self, request: Message) -> AsyncIterator[Message]:
        _, found = await self._matches(request)
        if len(found) > 1:
            raise Refused("matched multiple files. Use GetFileTAR instead")
        if found[0].kind != tree.FILE:
            raise Refused("cannot get directory or non-regular file. Use GetFileTAR instead")
        value = self.schema["google.protobuf.BytesValue"]
        blob = blob_of(self.reader, found[0].hash, found[0].path)
        if request.offset:
            await asyncio.to_thread(self.blobs.verify, blob)
        for part in self.blobs.read(blob, request.offset):
            yield value(value=part)

    async def GetFileTAR(self, request: Message) -> AsyncIterator[Message]:
        commit, matches = await self._matches(request)
        value, lower, upper = self.schema["google.protobuf.BytesValue"], request.path_range.lower, request.path_range.upper
        buffer = bytearray()
        for match in matches:
            # read to its end before anything is sent: an open cursor would hold back the sight of every other call
            walked = list(tree.walk(self.reader, commits.view(self.reader, commit), match.path)) if match.kind == tree.FOLDER else [match]
            for entry in walked:
                if entry.path < lower or (upper and entry.path >= upper):
                    continue
                for part in self._tar_member(entry):
                    buffer += part
                    if len(buffer) >= PART:
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
            yield from self.blobs.read(blob_of(self.reader, entry.hash, entry.path))
        yield bytes(-entry.size % tarfile.BLOCKSIZE)

    async def DiffFile(self, request: Message) -> AsyncIterator[Message]:
        if not request.HasField("new_file"):
            raise Refused("file cannot be nil")
        new = await self._commit(request.new_file.commit)
        if request.HasField("old_file") and request.old_file.commit.repo.name:
            old: Commit | None = await self._commit(request.old_file.commit)
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
        for problem in await asyncio.to_thread(check.everything, self.db, self.blobs, 1.0):
            yield self.schema["pfs_v2.FsckResponse"](error=problem)
