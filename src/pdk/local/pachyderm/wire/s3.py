"""The S3 gateway: commits and branches as buckets, read-only (get, head, list)."""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pdk.errors import NotFound, PdkError
from pdk.local.pachyderm.service import commits, files, repos
from pdk.local.pachyderm.service.model import COMMIT_ID, USER, Commit, CommitRef, RepoRef
from pdk.local.pachyderm.store import tree
from pdk.local.pachyderm.store.blobs import Blob, find
from pdk.local.pachyderm.wire.pfs import Pfs

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MAX_KEYS = 1000
CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/]+)/s3/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class S3Error(Exception):
    """An answer in S3's form."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def refusal_body(status: int, reason: str) -> object:
    """The body of a refusal by the door."""
    return {"status": status, "error": reason}


def parse_bucket(name: str) -> CommitRef:
    """``COMMIT.repo.project``, ``branch.repo.project`` or ``COMMIT.branch.repo.project``; the project may be left out.

    Raises:
        S3Error: it is none of these.
    """
    parts = name.split(".")
    commit = parts.pop(0) if COMMIT_ID.fullmatch(parts[0]) else ""
    if commit and len(parts) == 2:  # COMMIT.repo.project: the branch does not matter
        return CommitRef(RepoRef(parts[1], parts[0]), commit)
    branch = parts.pop(0) if len(parts) > 1 else "master"
    if len(parts) not in (1, 2) or not all(parts):
        raise S3Error(404, "NoSuchBucket", f"The bucket name {name!r} is not of the form branch.repo.project or commit.repo.project")
    return CommitRef(RepoRef(parts[1] if len(parts) == 2 else repos.DEFAULT_PROJECT, parts[0]), commit, branch)


def xml(root: ET.Element, status: int = 200) -> Response:
    """An XML answer."""
    return Response(ET.tostring(root, encoding="utf-8", xml_declaration=True), status, media_type="application/xml")


def element(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    """A child with text."""
    child = ET.SubElement(parent, name)
    child.text = text
    return child


def timestamp(seconds: float | None) -> str:
    """As S3 writes times."""
    return datetime.fromtimestamp(seconds or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Gateway:
    """The HTTP side; what the repos hold comes from the same database as the gRPC side.

    Args:
        required: whether requests must be signed with the installation's secret.
    """

    def __init__(self, pfs: Pfs, secret: str, *, required: bool) -> None:
        self.pfs, self.secret, self.required = pfs, secret, required

    def routes(self) -> list[Route]:
        """For Starlette."""
        everything = ["GET", "HEAD", "PUT", "POST", "DELETE"]
        return [
            Route("/", self.answer, methods=everything),
            Route("/{bucket}", self.answer, methods=everything),
            Route("/{bucket}/{key:path}", self.answer, methods=everything),
        ]

    async def answer(self, request: Request) -> Response:
        """Any request."""
        try:
            self._admit(request)
            if request.method not in ("GET", "HEAD"):
                raise S3Error(501, "NotImplemented", "The local gateway is read-only; write with `pachctl put file` or `pdk put file`")
            bucket, key = request.path_params.get("bucket"), request.path_params.get("key")
            if not bucket:
                return self._buckets()
            commit = self._commit(bucket)
            return self._object(request, commit, key) if key else self._bucket(request, bucket, commit)
        except S3Error as error:
            root = ET.Element("Error")
            for name, text in (("Code", error.code), ("Message", str(error)), ("Resource", request.url.path), ("RequestId", "0")):
                element(root, name, text)
            return xml(root, error.status)

    def _admit(self, request: Request) -> None:
        if not self.required:
            return
        match = CREDENTIAL.fullmatch(request.headers.get("authorization", ""))
        if match is None:
            raise S3Error(403, "AccessDenied", "Sign the request (AWS4-HMAC-SHA256) with the installation's secret as both keys")
        if not hmac.compare_digest(match[1], self.secret):
            raise S3Error(403, "InvalidAccessKeyId", "The access key is not the installation's secret")
        if not hmac.compare_digest(match[5], self._signature(request, match[3], match[4].split(";"))):
            raise S3Error(403, "SignatureDoesNotMatch", "The signature does not fit the request and the secret")

    def _signature(self, request: Request, region: str, signed: list[str]) -> str:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        signer = S3SigV4Auth(Credentials(self.secret, self.secret), "s3", region)
        headers = {name: request.headers.get(name, "") for name in signed}
        path = request.scope.get("raw_path", b"").decode()
        query = request.scope["query_string"].decode()
        rebuilt = AWSRequest(request.method, f"http://{headers.get('host', '')}{path}" + (f"?{query}" if query else ""), headers)
        rebuilt.context["timestamp"] = request.headers.get("x-amz-date", "")
        rebuilt.context["payload_signing_enabled"] = True
        canonical = signer.canonical_request(rebuilt)
        return str(signer.signature(signer.string_to_sign(rebuilt, canonical), rebuilt))

    def _commit(self, bucket: str) -> Commit:
        ref = parse_bucket(bucket)
        try:
            return commits.resolve(self.pfs.reader, ref)
        except PdkError as error:
            raise S3Error(404, "NoSuchBucket", f"The specified bucket does not exist: {error}") from error

    def _buckets(self) -> Response:
        root = ET.Element("ListAllMyBucketsResult", xmlns=NAMESPACE)
        owner = element(root, "Owner")
        element(owner, "ID", "0" * 32)
        element(owner, "DisplayName", "pachyderm")
        listed = element(root, "Buckets")
        for row in repos.list_repos(self.pfs.reader, [], USER):
            for branch in repos.list_branches(self.pfs.reader, RepoRef(row["project"], row["name"], row["type"])):
                bucket = element(listed, "Bucket")
                element(bucket, "Name", f"{branch.name}.{row['name']}.{row['project']}")
                element(bucket, "CreationDate", timestamp(row["created"]))
        return xml(root)

    def _bucket(self, request: Request, bucket: str, commit: Commit) -> Response:
        if request.method == "HEAD":
            return Response()
        query = request.query_params
        if "location" in query:
            root = ET.Element("LocationConstraint", xmlns=NAMESPACE)
            root.text = "PACHYDERM"
            return xml(root)
        delimiter, prefix = query.get("delimiter", ""), query.get("prefix", "")
        if delimiter not in ("", "/"):
            raise S3Error(400, "InvalidDelimiter", "The delimiter must be '/' or left out")
        v2 = query.get("list-type") == "2"
        start = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        if not query.get("max-keys", "0").isdecimal():
            raise S3Error(400, "InvalidArgument", "max-keys must be a number")
        limit = min(int(query.get("max-keys", MAX_KEYS)), MAX_KEYS)
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
            element(item, "ETag", f'"{entry.hash.hex()}"')
            element(item, "Size", str(entry.size))
            element(item, "StorageClass", "STANDARD")
        more = len(found) > limit
        element(root, "IsTruncated", "true" if more else "false")
        if more:
            element(root, "NextContinuationToken" if v2 else "NextMarker", found[limit - 1][0])
        if v2:
            element(root, "KeyCount", str(len(found[:limit])))
        return xml(root)

    def _keys(self, commit: Commit, prefix: str, delimiter: str, start: str, limit: int) -> Iterator[tuple[str, tree.Entry | None]]:
        """Keys (with their entry) and common prefixes (without) behind `start`, in order, at most `limit`."""
        folder = "/" + prefix[: prefix.rfind("/") + 1]
        sight, count = commits.view(self.pfs.reader, commit), 0
        step = tree.children if delimiter else tree.walk
        for entry in step(self.pfs.reader, sight, folder):
            key = entry.path[1:]
            if not key.startswith(prefix) or key <= start or not key:
                continue
            if entry.kind == tree.FOLDER and not delimiter:
                continue
            yield key, entry if entry.kind == tree.FILE else None
            count += 1
            if count == limit:
                return

    def _object(self, request: Request, commit: Commit, key: str) -> Response:
        try:
            entry = files.inspect(self.pfs.reader, commit, key)
            if entry.kind != tree.FILE:
                raise NotFound(key)
        except PdkError as error:
            raise S3Error(404, "NoSuchKey", "The specified key does not exist.") from error
        blob = find(self.pfs.reader, entry.hash)
        if blob is None:
            raise S3Error(500, "InternalError", f"the content of {key} is missing from the store; run `pdk fsck`")
        start, length, status = self._range(request, entry.size)
        headers = {
            "ETag": f'"{entry.hash.hex()}"',
            "Last-Modified": formatdate(commit.finished or commit.started, usegmt=True),
            "Accept-Ranges": "bytes",
            "Content-Length": str(length),
            "x-amz-version-id": commit.id,
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{entry.size}"
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(self._stream(blob, start, length), status, headers, "application/octet-stream")

    async def _stream(self, blob: Blob, start: int, length: int) -> AsyncIterator[bytes]:
        for part in self.pfs.blobs.read(blob, start, length):
            yield part

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
            raise S3Error(416, "InvalidRange", f"The object has {size} bytes")
        return start, end - start + 1, 206
