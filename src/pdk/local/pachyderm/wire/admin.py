"""What `pdk` asks of the server beyond Pachyderm's own API, below ``/-/`` of the S3 gateway's port: checks, garbage, contents, folders.

``-`` is no name that a bucket can have.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pdk.errors import NotFound, PdkError, UserError
from pdk.kit import peers
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import repos
from pdk.local.pachyderm.rules.model import CommitRef, RepoRef
from pdk.local.pachyderm.runtime import check, garbage
from pdk.local.pachyderm.runtime.uploads import Upload, blob_of
from pdk.local.pachyderm.store.blobs import BlobStore, Damaged
from pdk.local.pachyderm.wire.s3_read import begun
from pdk.words import FILE_HEAD

log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]
COLLECT_S = 3600.0  # between two runs of the garbage collection


class Admin:
    """The routes, and the garbage collection that runs by itself.

    Args:
        token: what requests must carry as bearer.
        own: whether the owner's own requests need none.
    """

    def __init__(self, db: Database, blobs: BlobStore, token: str, *, own: bool) -> None:
        self.db, self.blobs, self.token, self.own = db, blobs, token, own
        self._collecting = asyncio.Lock()

    def routes(self) -> list[Route]:
        """For Starlette; before the gateway's."""
        return [
            Route("/-/fsck", self._admitted(self.fsck), methods=["POST"]),
            Route("/-/gc", self._admitted(self.gc), methods=["POST"]),
            Route("/-/content/{name}", self._admitted(self.content), methods=["GET"]),
            Route("/-/put/{project}/{repo}/{branch}", self._admitted(self.put), methods=["POST"]),
        ]

    def _admitted(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint for those who carry the token."""

        async def answer(request: Request) -> Response:
            given = request.headers.get("authorization", "")
            allowed = self.own and peers.of_scope(request.scope)
            if not allowed and not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                return JSONResponse({"error": "send the installation's secret as bearer token"}, 401)
            return await endpoint(request)

        return answer

    async def run(self) -> None:
        """Until cancelled: collect garbage now and then."""
        while True:
            await asyncio.sleep(COLLECT_S)
            await self._collect()

    async def _collect(self) -> garbage.Collected:
        async with self._collecting:
            done = await garbage.collect(self.db, self.blobs)
        log.info("garbage: %d contents of %d bytes removed, %d packs removed", done.contents, done.size, done.packs)
        return done

    async def fsck(self, request: Request) -> Response:
        """``POST /-/fsck?share=0.1``: problems, and how much was looked at."""
        try:
            share = min(1.0, max(0.0, float(request.query_params.get("share", "1"))))
        except ValueError:
            return _refusal(UserError("share must be a number"))
        problems = await asyncio.to_thread(check.everything, self.db, self.blobs, share)
        return JSONResponse({"problems": problems, **check.counts(self.db.reader)})

    async def gc(self, _: Request) -> Response:
        """``POST /-/gc``: what was removed."""
        return JSONResponse(vars(await self._collect()))

    async def content(self, request: Request) -> Response:
        """``GET /-/content/HASH``: a content of the store."""
        try:
            blob = blob_of(self.db.reader, bytes.fromhex(request.path_params["name"]), "that hash")
        except (ValueError, NotFound):
            return _refusal(NotFound(f"no content has the hash {request.path_params['name']!r}"))
        try:
            return StreamingResponse(await begun(self.blobs, blob), media_type="application/octet-stream")
        except Damaged as error:
            return _refusal(error)

    async def put(self, request: Request) -> Response:
        """``POST /-/put/PROJECT/REPO/BRANCH?append=1``: a stream of files, in one commit.

        Each file is its `FILE_HEAD`, the path, the content.
        """
        names, append = request.path_params, request.query_params.get("append") == "1"
        target = CommitRef(RepoRef(names["project"], names["repo"]), branch=names["branch"])
        try:
            repos.repo_pk(self.db.reader, target.repo)
            with Upload(self.db, self.blobs) as upload:
                await _unpack(request.stream(), upload, append=append)
                commit = await upload.commit(target)
        except ClientDisconnect:
            return _refusal(UserError("the stream of files broke off; nothing was written"))
        except PdkError as error:
            return _refusal(error)
        return JSONResponse({"commit": commit.id})


async def _unpack(stream: AsyncIterator[bytes], upload: Upload, *, append: bool) -> None:
    """Take files from a stream.

    Raises:
        UserError: it ends inside a file.
    """
    buffer, path, left = bytearray(), "", 0
    async for part in stream:
        buffer += part
        at = 0
        while True:
            if left:
                taken = min(left, len(buffer) - at)
                if not taken:
                    break
                upload.add(path, bytes(memoryview(buffer)[at : at + taken]))
                at, left = at + taken, left - taken
                continue
            if len(buffer) - at < FILE_HEAD.size:
                break
            length, size = FILE_HEAD.unpack_from(buffer, at)
            if len(buffer) - at < FILE_HEAD.size + length:
                break
            at += FILE_HEAD.size
            path, left = buffer[at : at + length].decode("utf-8", "replace"), size
            at += length
            if not append:
                upload.delete(path)
            if not left:
                upload.add(path, b"")
        del buffer[:at]
    if left or buffer:
        raise UserError("the stream of files ends inside a file; nothing was written")


def _refusal(error: PdkError) -> Response:
    status = 404 if isinstance(error, NotFound) else 400 if isinstance(error, UserError) else 500
    return JSONResponse({"error": str(error)}, status)
