"""The S3 gateway's reads: list, head, get."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from email.utils import formatdate
from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pdk.errors import NotFound, PdkError
from pdk.kit.db import Database
from pdk.local.pachyderm.rules import commits, files, repos
from pdk.local.pachyderm.rules.model import USER, Commit, CommitRef
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import BlobStore
from pdk.local.pachyderm.store.locations import Blob, find
from pdk.local.pachyderm.wire.s3_common import NAMESPACE, S3Error, element, etag, timestamp, whole_number, xml
from pdk.local.pachyderm.wire.s3_conditions import same_range, unchanged

MAX_KEYS = 1000  # of a listing's page, as S3's
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def begun(blobs: BlobStore, blob: Blob, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
    """Read a content, the first part before anything is answered.

    Raises:
        Damaged: there is no first part, or a large content of which only a part is wanted is not as it was written.
    """
    if length not in (None, blob.size):
        await asyncio.to_thread(blobs.verify, blob)
    parts = blobs.read(blob, start, length)
    first = next(parts, b"")

    async def stream() -> AsyncIterator[bytes]:
        yield first
        for part in parts:
            yield part

    return stream()


class Reads:
    """Answers to GET and HEAD."""

    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self.db, self.blobs = db, blobs

    def buckets(self, named: Mapping[str, CommitRef] | None) -> Response:
        """Return every branch of every user repo, or the buckets named."""
        if named is not None:
            found = [(name, commits.resolve(self.db.reader, ref).started) for name, ref in named.items()]
        else:
            found = [
                (f"{branch.name}.{repo.ref.name}.{repo.ref.project}", repo.created)
                for repo in repos.list_repos(self.db.reader, [], USER)
                for branch in repos.list_branches(self.db.reader, repo.ref)
            ]
        root = ET.Element("ListAllMyBucketsResult", xmlns=NAMESPACE)
        owner = element(root, "Owner")
        element(owner, "ID", "0" * 32)
        element(owner, "DisplayName", "pachyderm")
        listed = element(root, "Buckets")
        for name, created in found:
            bucket = element(listed, "Bucket")
            element(bucket, "Name", name)
            element(bucket, "CreationDate", timestamp(created))
        return xml(root)

    def bucket(self, request: Request, bucket: str, commit: Commit) -> Response:
        """Return what a commit holds, page by page."""
        if request.method == "HEAD":
            return Response()
        query = request.query_params
        if "location" in query:
            root = ET.Element("LocationConstraint", xmlns=NAMESPACE)
            root.text = "PACHYDERM"
            return xml(root)
        if "versioning" in query:
            root = ET.Element("VersioningConfiguration", xmlns=NAMESPACE)
            element(root, "Status", "Enabled")
            return xml(root)
        delimiter, prefix = query.get("delimiter", ""), query.get("prefix", "")
        if delimiter not in ("", "/"):
            raise S3Error("InvalidDelimiter")
        v2 = query.get("list-type") == "2"
        start = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        limit = whole_number(query.get("max-keys"), MAX_KEYS, MAX_KEYS)
        root = ET.Element("ListBucketResult", xmlns=NAMESPACE)
        for name, text in (("Name", bucket), ("Prefix", prefix), ("MaxKeys", str(limit)), ("Delimiter", delimiter)):
            element(root, name, text)
        found = list(self._keys(commit, prefix, delimiter, start, limit + 1))
        for name, entry in found[:limit]:
            if entry is None:
                element(element(root, "CommonPrefixes"), "Prefix", name)
                continue
            item = element(root, "Contents")
            element(item, "Key", name)
            element(item, "LastModified", timestamp(commit.finished or commit.started))
            element(item, "ETag", etag(entry))
            element(item, "Size", str(entry.size))
            element(item, "StorageClass", "STANDARD")
        more = len(found) > limit > 0
        element(root, "IsTruncated", "true" if more else "false")
        if more:
            element(root, "NextContinuationToken" if v2 else "NextMarker", found[limit - 1][0])
        if v2:
            element(root, "KeyCount", str(len(found[:limit])))
        return xml(root)

    def _keys(self, commit: Commit, prefix: str, delimiter: str, start: str, limit: int) -> Iterator[tuple[str, tree.Entry | None]]:
        """Keys (with their entry) and common prefixes (without) behind `start`, in order, at most `limit`."""
        folder = "/" + prefix[: prefix.rfind("/") + 1]
        sight, count = commits.view(self.db.reader, commit), 0
        step = tree.children if delimiter else tree.walk
        for entry in step(self.db.reader, sight, folder):
            key = entry.path[1:]
            if not key.startswith(prefix) or key <= start or not key:
                continue
            if entry.kind == tree.FOLDER and not delimiter:
                continue
            yield key, entry if entry.kind == tree.FILE else None
            count += 1
            if count == limit:
                return

    async def object(self, request: Request, commit: Commit, key: str) -> Response:
        """Return a file, or a range of it."""
        try:
            entry = files.inspect(self.db.reader, commit, key)
            if entry.kind != tree.FILE:
                raise NotFound(key)
        except PdkError as error:
            raise S3Error("NoSuchKey") from error
        blob = find(self.db.reader, entry.hash)
        if blob is None:
            raise S3Error("InternalError", f"the content of {key} is missing from the store; run `pdk fsck`")
        tag, modified = etag(entry), commit.finished or commit.started
        if unchanged(request.headers, tag, modified):
            return Response(status_code=304, headers={"ETag": tag, "x-amz-version-id": commit.id})
        start, length, status = self._range(request, entry.size) if same_range(request.headers, tag, modified) else (0, entry.size, 200)
        headers = {
            "ETag": tag,
            "Last-Modified": formatdate(modified, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Length": str(length),
            "x-amz-version-id": commit.id,
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{entry.size}"
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(await begun(self.blobs, blob, start, length), status, headers, "application/octet-stream")

    def _range(self, request: Request, size: int) -> tuple[int, int, int]:
        """First byte, number of bytes and status for a Range header."""
        match = RANGE.fullmatch(request.headers.get("range", ""))
        if match is None or not (match[1] or match[2]):
            return 0, size, 200
        if not match[1]:  # the last N bytes
            length = min(int(match[2]), size)
            return size - length, length, 206
        start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if start > end:
            raise S3Error("InvalidRange", f"The object has {size} bytes")
        return start, end - start + 1, 206
